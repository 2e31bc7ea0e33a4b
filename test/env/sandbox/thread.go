// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// onThreadOfItsOwn calls fn on a thread that runs nothing else and ends with it, whatever fn did to the thread.
func onThreadOfItsOwn(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread does not end, and it is what /proc/self shows. While it is held, fn gets another.
			err := onThreadOfItsOwn(fn)
			runtime.UnlockOSThread()
			done <- err
			return
		}
		done <- fn() // and never unlocks
	}()
	return <-done
}
