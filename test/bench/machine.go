// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// describeMachine prints what the figures depend on.
func describeMachine(out io.Writer) error {
	model, err := cpuModel("/proc/cpuinfo")
	if err != nil {
		return err
	}
	var system unix.Utsname
	if err := unix.Uname(&system); err != nil {
		return fmt.Errorf("ask for the kernel's version: %w", err)
	}
	cpus, err := possibleCPUs()
	if err != nil {
		return err
	}
	load, err := loadAverage()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%-14s %s\n", "CPU", model)
	fmt.Fprintf(out, "%-14s %d\n", "possible CPUs", cpus)
	fmt.Fprintf(out, "%-14s %s %s\n", "kernel",
		unix.ByteSliceToString(system.Release[:]), unix.ByteSliceToString(system.Machine[:]))
	fmt.Fprintf(out, "%-14s %s\n", "load average", load)
	mitigations, err := mitigations("/sys/devices/system/cpu/vulnerabilities")
	if err != nil {
		return err
	}
	title := "mitigations"
	for _, m := range mitigations {
		fmt.Fprintf(out, "%-14s %s\n", title, m)
		title = ""
	}
	return nil
}

// cpuModel returns the name of the first CPU; on arm64, which has none there, the number of its part.
func cpuModel(cpuinfo string) (string, error) {
	file, err := os.Open(cpuinfo)
	if err != nil {
		return "", err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		switch strings.TrimSpace(key) {
		case "model name", "CPU part":
			return strings.TrimSpace(value), nil
		}
	}
	return "unknown", lines.Err()
}

// mitigations returns what the kernel says of each vulnerability that the CPU has. A kernel that knows of none says
// nothing.
func mitigations(directory string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(directory, "*"))
	if err != nil {
		return nil, err
	}
	var all []string
	for _, file := range files {
		state, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if text := strings.TrimSpace(string(state)); text != "Not affected" {
			all = append(all, filepath.Base(file)+": "+text)
		}
	}
	return all, nil
}

// loadAverage returns the average numbers of running threads over 1, 5 and 15 minutes.
func loadAverage() (string, error) {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "", err
	}
	return strings.Join(strings.Fields(string(text))[:3], " "), nil
}
