// SPDX-License-Identifier: Apache-2.0

// Package golden compares what people see with files that are read in review. The tests that import it have the flag
// -update, which writes the files.
package golden

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "writes the golden files")

// Check reports how got differs from the file, whose path is relative to the test's package. With -update it writes
// the file, and the folder that it is in, and reports nothing. Spaces in the name of the file stand for underscores, so
// that cases of a table can name files.
func Check(t testing.TB, file, got string) {
	t.Helper()
	file = filepath.Join(filepath.Dir(file), strings.ReplaceAll(filepath.Base(file), " ", "_"))
	if *update {
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(got), 0o644)); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("not as in %s (-want +got; go test -update writes it):\n%s", file, diff)
	}
}

// CheckPart is Check for the part of a file, mostly of a document, between the first begin and the end that follows.
func CheckPart(t testing.TB, file, begin, end, got string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(text), begin)
	_, after, ends := strings.Cut(rest, end)
	if !begins || !ends {
		t.Fatalf("%s has no part between %q and %q", file, begin, end)
	}
	Check(t, file, before+begin+got+end+after)
}
