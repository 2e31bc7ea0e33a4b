// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/test/util/bpffs"
)

// cpuListVariable is the environment variable with which the test binary runs xdpcount on a machine with other CPUs. Its value
// is the path of the list.
const cpuListVariable = "XDPCOUNT_TEST_CPU_LIST"

const possibleCPUs = "/sys/devices/system/cpu/possible"

// withoutTypes is the environment variable with which the test binary runs xdpcount on a machine whose kernel has no BTF.
const withoutTypes = "XDPCOUNT_TEST_WITHOUT_BTF"

// execWithCPUList becomes xdpcount, in a mount namespace in which the kernel's list of possible CPUs is that of the file.
func execWithCPUList(list string) error { return execWith(list, possibleCPUs) }

// execWith becomes xdpcount, in a mount namespace in which another file has the contents of the given one.
func execWith(contents, file string) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace (needs root): %w", err)
	}
	err := errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount(contents, file, "", unix.MS_BIND, ""),
	)
	if err != nil {
		return fmt.Errorf("replace %s: %w", file, err)
	}
	return unix.Exec(binary, append([]string{binary}, os.Args[1:]...), os.Environ())
}

// onCPUs returns a command that runs xdpcount where the list of possible CPUs is this one.
func onCPUs(t *testing.T, list string) *exec.Cmd {
	t.Helper()
	file := filepath.Join(t.TempDir(), "possible")
	if err := os.WriteFile(file, []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), cpuListVariable+"="+file, "XDP_OPERATOR_XDPCOUNT="+binary)
	return cmd
}

// machineList returns this machine's list of possible CPUs and one more range above a gap, as on machines whose numbers have gaps.
func machineList(t *testing.T) string {
	t.Helper()
	list, err := os.ReadFile(possibleCPUs)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(list)) + ",200-201\n"
}

func TestCPUNumbersWithGaps(t *testing.T) {
	l := newLab(t)
	p := l.startAs(t, onCPUs(t, machineList(t)), "eth0")
	p.untilCounting(t)
	l.traffic(t, 3)
	p.untilCounted(t, l.sent)
	last, status := p.end(t, os.Interrupt)
	if status != 0 || p.stderr.Len() != 0 {
		t.Fatalf("status %d: %s", status, p.stderr.String())
	}
	if diff := cmp.Diff(wantCounts(l.sent), counts(last.Interfaces[0])); diff != "" {
		t.Errorf("not what was sent (-sent +counted):\n%s", diff)
	}
}

func TestCPUListThatCannotBeRead(t *testing.T) {
	for name, args := range map[string][]string{"attached": {"eth0"}, "pinned": {"--pinned", "--bpffs", bpffs.Mount(t)}} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			p := l.startAs(t, onCPUs(t, "all\n"), args...)
			_, status := p.ended(t)
			const want = "xdpcount: read the list of possible CPUs from " + possibleCPUs + `: "all\n" is not a list of CPUs` + "\n"
			if status != 1 || p.stderr.String() != want {
				t.Errorf("status %d: %s, want %s", status, p.stderr.String(), want)
			}
			l.expectUnhooked(t, "eth0")
		})
	}
}
