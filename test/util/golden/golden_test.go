// SPDX-License-Identifier: Apache-2.0

package golden

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// recorder is a test that may fail.
type recorder struct {
	testing.TB

	said []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatal(args ...any) {
	r.said = append(r.said, fmt.Sprint(args...))
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.said = append(r.said, fmt.Sprintf(format, args...))
	runtime.Goexit()
}

// said returns what a test says of itself.
func said(test func(t testing.TB)) string {
	r := &recorder{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		test(r)
	}()
	<-done
	return strings.Join(r.said, "\n")
}

func TestWhatDiffersIsReportedAndWritten(t *testing.T) {
	for name, c := range map[string]struct {
		before    string // of the file; "": there is none
		check     func(t testing.TB, file string)
		complaint []string
		after     string
	}{
		"the same": {
			"a\nb\n", func(t testing.TB, file string) { Check(t, file, "a\nb\n") }, nil, "a\nb\n",
		},
		"another line": {
			"a\nb\n", func(t testing.TB, file string) { Check(t, file, "a\nc\n") },
			[]string{"not as in ", "go test -update writes it", "b", "c"}, "a\nc\n",
		},
		"no file, and a name with a space": {
			"", func(t testing.TB, file string) { Check(t, filepath.Join(filepath.Dir(file), "a file"), "a") },
			[]string{"no such file", "go test -update writes it"}, "a",
		},
		"a part is the same": {
			"1 <b> 2 <e> 3 <e>", func(t testing.TB, file string) { CheckPart(t, file, "<b>", "<e>", " 2 ") }, nil, "1 <b> 2 <e> 3 <e>",
		},
		"another part": {
			"1 <b> 2 <e> 3 <e>", func(t testing.TB, file string) { CheckPart(t, file, "<b>", "<e>", " 4 ") },
			[]string{"not as in ", "2", "4"}, "1 <b> 4 <e> 3 <e>",
		},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "testdata", "a_file")
			if c.before != "" {
				if err := os.Mkdir(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(c.before), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			check := func(t testing.TB) { c.check(t, file) }
			got := said(check)
			for _, part := range c.complaint {
				if !strings.Contains(got, part) {
					t.Errorf("it says %q, and nothing of %q", got, part)
				}
			}
			if c.complaint == nil && got != "" {
				t.Errorf("it says %q", got)
			}
			*update = true
			got = said(check)
			*update = false
			if got += said(check); got != "" {
				t.Errorf("with -update and after it says %q", got)
			}
			if text, err := os.ReadFile(file); err != nil || string(text) != c.after {
				t.Errorf("the file is %q, %v", text, err)
			}
		})
	}
}

func TestADocumentWithoutThePart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("1 <e> <b> 2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := said(func(t testing.TB) { CheckPart(t, file, "<b>", "<e>", "") }); !strings.Contains(got, `has no part between "<b>" and "<e>"`) {
		t.Errorf("it says %q", got)
	}
}
