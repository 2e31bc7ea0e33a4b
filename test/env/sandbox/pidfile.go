// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// record writes into path which process pid is: its number, its start time and the boot.
func record(path string, pid int) error {
	started, err := startTime(pid)
	if err != nil {
		return fmt.Errorf("record the sandbox: %w", err)
	}
	boot, err := bootID()
	if err != nil {
		return fmt.Errorf("record the sandbox: %w", err)
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, "%d %s %s\n", pid, started, boot), 0o644); err != nil {
		return fmt.Errorf("record the sandbox: %w", err)
	}
	return nil
}

// Running returns the pid of the sandbox that path was written for as Options.PIDFile, 0 if it has ended or if there
// is no such file. To look into that sandbox: nsenter --target PID --mount --net --pid.
func Running(path string) (int, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look for the sandbox: %w", err)
	}
	var pid int
	var started, boot string
	if _, err := fmt.Sscan(string(content), &pid, &started, &boot); err != nil {
		return 0, fmt.Errorf("look for the sandbox: %s is not the file of a sandbox: %w", path, err)
	}
	now, err := bootID()
	if err != nil {
		return 0, err
	}
	// A number alone may have gone to another process.
	if is, err := startTime(pid); err != nil || is != started || now != boot {
		return 0, nil //nolint:nilerr // the process has ended
	}
	return pid, nil
}

// Kill ends the sandbox of a PIDFile, with everything in it, and removes the file. It returns when all of it
// has ended. It is no error if it has ended before, or if there is no such file.
func Kill(path string) error {
	pid, err := Running(path)
	if err != nil {
		return err
	}
	if pid != 0 {
		// By pidfd where the kernel has it: then it is this process or none, whatever happens in between.
		process, err := os.FindProcess(pid)
		if err != nil {
			return fmt.Errorf("kill the sandbox: %w", err)
		}
		defer func() { _ = process.Release() }()
		// Once more, now that the process is held.
		if pid, err = Running(path); err != nil {
			return err
		}
		if pid != 0 {
			if err := process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return fmt.Errorf("kill the sandbox: %w", err)
			}
		}
	}
	for deadline := time.Now().Add(10 * time.Second); pid != 0; {
		if time.Now().After(deadline) {
			return fmt.Errorf("kill the sandbox: process %d has not ended after 10 s", pid)
		}
		time.Sleep(10 * time.Millisecond)
		if pid, err = Running(path); err != nil {
			return err
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("kill the sandbox: %w", err)
	}
	return nil
}

// startTime returns when the process was started, in clock ticks since boot: field 22 of proc_pid_stat(5).
// A zombie has none. Pid 1 of a pid namespace becomes one only when all others in it have ended.
func startTime(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The second field is the name in parentheses; it may have spaces and parentheses itself.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return "", fmt.Errorf("/proc/%d/stat has only %d fields", pid, len(fields)+2)
	}
	// Its first thread may be a zombie while another one still ends the other processes of the namespace: field 20 counts threads.
	if fields[0] == "X" || fields[0] == "Z" && fields[20-3] == "1" {
		return "", os.ErrProcessDone
	}
	return fields[22-3], nil
}

func bootID() (string, error) {
	id, err := os.ReadFile(bootIDFile)
	return strings.TrimSpace(string(id)), err
}
