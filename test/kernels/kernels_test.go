// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xdp-operator/xdp-operator/test/kernels/report"
)

// reported is a result of what a guest says.
func reported(t *testing.T, said string) *result {
	t.Helper()
	r := newResult(kernel{wanted: "6.1", version: "6.1.192-2"}, io.Discard)
	for line := range strings.Lines(said) {
		r.read(strings.TrimSuffix(line, "\n"), time.Second)
	}
	return r
}

// said is a line of the guest's own.
func said(t *testing.T, l report.Line) string {
	t.Helper()
	var b bytes.Buffer
	if err := report.Write(&b, l); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestVerdict(t *testing.T) {
	begin := said(t, report.Line{Begin: "bpf"})
	end := func(status int) string { return said(t, report.Line{End: report.End{Status: status, Seconds: 1}}) }
	for name, tc := range map[string]struct{ said, want string }{
		"all passed":        {begin + "\x16=== RUN   TestA\n\x16--- PASS: TestA (0.00s)\n" + end(0), ""},
		"one failed":        {begin + "\x16=== RUN   TestA\n    a.go:1: why\n\x16--- FAIL: TestA (0.00s)\n" + end(1), "bpf: TestA failed\n    a.go:1: why"},
		"one was skipped":   {begin + "\x16--- PASS: TestA (0.00s)\n\x16    --- SKIP: TestB/c (0.00s)\n" + end(0), "bpf: TestB/c was skipped, which no test may be"},
		"it crashed":        {begin + "panic: why\n" + end(2), "bpf ended with status 2\npanic: why"},
		"it did not end":    {begin + "\x16--- PASS: TestA (0.00s)\n", "bpf ended with status 0\n"},
		"the guest is ill":  {said(t, report.Line{Error: "no memory"}), "no memory"},
		"a line is garbled": {report.Mark + "{\n", `"{" from the guest: unexpected end of JSON input`},
	} {
		t.Run(name, func(t *testing.T) {
			want := ""
			if tc.want != "" {
				want = "on Linux 6.1: " + tc.want
			}
			got := ""
			r := reported(t, tc.said)
			if err := r.verdict(true); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestTable(t *testing.T) {
	var text strings.Builder
	for _, level := range []string{"", "integrity", "confidentiality"} {
		begin := "test/kernels/features"
		if level != "" {
			begin += ", lockdown=" + level
		}
		text.WriteString(said(t, report.Line{Begin: begin}))
		for _, feature := range []string{"Generic", "NativeVeth", "NativeVirtio", "NativeJumbo", "Update", "Dispatcher", "Fastcall"} {
			f := report.Finding{Feature: feature, Is: feature != "Fastcall" && (level != "confidentiality" || feature != "Update")}
			text.WriteString(said(t, report.Line{Finding: f}))
		}
		text.WriteString(said(t, report.Line{End: report.End{Seconds: 1}}))
	}
	document := filepath.Join(t.TempDir(), "kernels.md")
	if err := os.WriteFile(document, []byte("before\n"+tableBegin+"old\n"+tableEnd+"after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := replaceTable(document, table([]*result{reported(t, text.String())})); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	row := "| 6.1 | 6.1.192 | yes | yes | yes | yes | yes | yes | no | yes | no |\n"
	if lines := strings.SplitAfter(string(got), "\n"); lines[0] != "before\n" || !strings.Contains(string(got), row) || lines[len(lines)-2] != "after\n" {
		t.Errorf("it says\n%s", got)
	}
}

func TestNewestVersion(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{
		{"6.1.192-2", "6.1.99-1", 1},
		{"6.1.170-1~deb11u1", "6.1.170-2", 0},
		{"7.2.9-1~bpo13+1", "7.2.12-1~bpo13+1", -1},
	} {
		if got := compareVersions(tc.a, tc.b); got != tc.want {
			t.Errorf("%s and %s: %d", tc.a, tc.b, got)
		}
	}
}

// TestArchive checks the header and the padding against the kernel's documentation.
func TestArchive(t *testing.T) {
	var out bytes.Buffer
	a := newArchive(&out)
	a.bytes("/bin/x", []byte("hello"), 0o755)
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for rest := out.Bytes(); len(rest) > 0; {
		var mode, size, named int
		fields := string(rest[:110])
		if _, err := fmt.Sscanf(fields[14:22]+" "+fields[54:62]+" "+fields[94:102], "%x %x %x", &mode, &size, &named); err != nil || fields[:6] != "070701" {
			t.Fatalf("%q: %v", fields, err)
		}
		name := string(rest[110 : 110+named-1])
		rest = rest[(110+named+3)/4*4:]
		got = append(got, fmt.Sprintf("%s %o %s", name, mode, rest[:size]))
		rest = rest[(size+3)/4*4:]
	}
	if diff := cmp.Diff([]string{"bin 40755 ", "bin/x 100755 hello", "TRAILER!!! 0 "}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
