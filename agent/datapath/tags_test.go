// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestAnErrorOfReadingTheTagsIsNotKept(t *testing.T) {
	calls := 0
	read := keepFirstSuccess(func() (tags, error) {
		if calls++; calls == 1 {
			return nil, unix.ENOMEM
		}
		return tags{oneBuffer: "0123456789abcdef"}, nil
	})
	if _, err := read(); err == nil {
		t.Error("the first call has no error")
	}
	for range 2 {
		if found, err := read(); err != nil || found[oneBuffer] == "" {
			t.Errorf("got %v, %v", found, err)
		}
	}
	if calls != 2 {
		t.Errorf("the programs are loaded %d times, want 2", calls)
	}
}
