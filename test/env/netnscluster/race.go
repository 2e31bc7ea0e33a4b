// SPDX-License-Identifier: Apache-2.0

package netnscluster

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// Program returns the path of a program of cmd/ that Prepare has built. Tests that run with the race detector run programs
// that have it, too.
func Program(root, name string) string {
	return filepath.Join(root, programs, name)
}

// races returns an error with the first data race that the programs have reported in their logs.
func races(logs string) error {
	files, err := filepath.Glob(filepath.Join(logs, "*.log"))
	if err != nil {
		return err
	}
	for _, file := range files {
		log, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		// Between two lines of "=" (https://go.dev/doc/articles/race_detector).
		if _, after, found := bytes.Cut(log, []byte("WARNING: DATA RACE")); found {
			report, _, _ := bytes.Cut(after, []byte("==================\n"))
			return fmt.Errorf("data race in %s:%s", filepath.Base(file), report)
		}
	}
	return nil
}
