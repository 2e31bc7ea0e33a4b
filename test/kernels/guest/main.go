// SPDX-License-Identifier: Apache-2.0

// Command guest is the first and only program of a guest of test/kernels: it makes the system fit for tests, runs them,
// finds out what the kernel can do, and switches the machine off.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/test/kernels/report"
)

// stage says that the system is ready.
const stage = "GUEST_IS_READY"

func main() {
	if os.Getenv(stage) == "" {
		// Where package ebpf is initialised it looks into /proc and keeps in mind what it has not found. So this
		// program, once it has mounted it, starts afresh.
		err := prepare()
		if err == nil {
			err = unix.Exec("/init", []string{"/init"}, append(environment(), stage+"=1"))
		}
		fmt.Fprintln(os.Stderr, "guest:", err)
		off()
	}
	out, err := openPort()
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		off()
	}
	if err := run(context.Background(), out); err != nil {
		_ = report.Write(out, report.Line{Error: err.Error()})
	}
	_ = report.Write(out, report.Line{Done: true})
	_ = unix.IoctlSetInt(int(out.Fd()), unix.TCSBRK, 1) // tcdrain(3): until all is sent
	off()
}

// off never returns. To restart ends the emulator (-no-reboot), where to switch off would need ACPI.
func off() {
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	select {}
}

// environment is that of the tests. There is memory enough to collect garbage seldom, which is dear to emulate.
func environment() []string {
	return []string{"PATH=/bin", "HOME=/", "TMPDIR=/tmp", "TERM=dumb", "GOGC=400", report.Guest + "=1"}
}

// prepare mounts what tests expect of a system, and loads the kernel's modules.
func prepare() error {
	for _, m := range []struct{ kind, on, data string }{
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"devtmpfs", "/dev", ""},
		{"devpts", "/dev/pts", "ptmxmode=0666"},
		{"tmpfs", "/tmp", "mode=1777"},
		{"tmpfs", "/run", "mode=0755"},
		{"bpf", "/sys/fs/bpf", "mode=0700"},
		{"securityfs", "/sys/kernel/security", ""},
	} {
		if err := os.MkdirAll(m.on, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.on, m.kind, 0, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s at %s: %w", m.kind, m.on, err)
		}
	}
	// The modules of tunnels would make an interface each in every network namespace (ip-sysctl.rst, fb_tunnels_only_for_init_net).
	if err := os.WriteFile("/proc/sys/net/core/fb_tunnels_only_for_init_net", []byte("1"), 0); err != nil {
		return err
	}
	modules, err := filepath.Glob("/modules/*.ko") // named in the order of what needs what
	if err != nil {
		return err
	}
	slices.Sort(modules)
	for _, name := range modules {
		if err := load(name); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	return nil
}

func load(module string) error {
	file, err := os.Open(module)
	if err != nil {
		return err
	}
	defer file.Close()
	return unix.FinitModule(int(file.Fd()), "", 0)
}

// openPort opens the second serial port, on which nothing of the kernel's appears.
func openPort() (*os.File, error) {
	port, err := os.OpenFile("/dev/ttyS1", os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	settings, err := unix.IoctlGetTermios(int(port.Fd()), unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("the serial port: %w", err)
	}
	settings.Oflag &^= unix.OPOST
	settings.Cflag = settings.Cflag&^unix.CBAUD | unix.B115200
	if err := unix.IoctlSetTermios(int(port.Fd()), unix.TCSETS, settings); err != nil {
		return nil, fmt.Errorf("the serial port: %w", err)
	}
	return port, nil
}

func run(ctx context.Context, out io.Writer) error {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	if err := report.Write(out, report.Line{Release: unix.ByteSliceToString(name.Release[:])}); err != nil {
		return err
	}
	text, err := os.ReadFile(report.Plan)
	if err != nil {
		return err
	}
	var tests []report.Test
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&tests); err != nil {
		return fmt.Errorf("%s: %w", report.Plan, err)
	}
	for _, test := range tests {
		if err := runTests(ctx, out, test); err != nil {
			return err
		}
	}
	return nil
}

// runTests runs the tests of one package. A failed test is reported, and is not an error.
func runTests(ctx context.Context, out io.Writer, test report.Test) error {
	if test.NeedsFragments {
		if err := loadFragments(); err != nil {
			return report.Write(out, report.Line{Left: report.Left{Name: test.Name(), Why: "no xdp.frags: " + err.Error()}})
		}
	}
	if test.Lockdown != "" {
		if err := os.WriteFile("/sys/kernel/security/lockdown", []byte(test.Lockdown), 0); err != nil {
			return report.Write(out, report.Line{Left: report.Left{Name: test.Name(), Why: "no lockdown: " + err.Error()}})
		}
	}
	if err := report.Write(out, report.Line{Begin: test.Name()}); err != nil {
		return err
	}
	args := append([]string{"-test.v=test2json", "-test.short", "-test.timeout=20m"}, test.Args...)
	program := test.Binary()
	if test.Command != "" {
		program, args = test.Command, test.Args
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = test.Folder(), append(environment(), test.Env...)
	cmd.Stdout, cmd.Stderr = out, out
	began := time.Now()
	err := cmd.Run()
	if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
		return err
	}
	end := report.End{Status: cmd.ProcessState.ExitCode(), Seconds: time.Since(began).Seconds()}
	return report.Write(out, report.Line{End: end})
}

// loadFragments loads the least program for frames of many buffers (Linux 5.18).
func loadFragments() error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, Flags: unix.BPF_F_XDP_HAS_FRAGS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2 /* XDP_PASS */), asm.Return()},
	})
	if err != nil {
		return err
	}
	return program.Close()
}
