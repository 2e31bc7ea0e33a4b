// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/test/env/controlplane"
	"github.com/xdp-operator/xdp-operator/test/util/bpffs"
	wait "github.com/xdp-operator/xdp-operator/test/util/eventually"
)

const (
	programVariable = "SANDBOX_TEST_PROGRAM" // which of programs the test binary is to be
	outsideVariable = "SANDBOX_TEST_OUTSIDE" // the network namespace of the machine
	pidVariable     = "SANDBOX_TEST_PIDFILE"
	logVariable     = "SANDBOX_TEST_LOGFILE"
)

// box is the sandbox that the tests run in. Those of Enter make another one in it.
var box *Sandbox

func TestMain(m *testing.M) {
	o := Options{PIDFile: os.Getenv(pidVariable), LogFile: os.Getenv(logVariable)}
	program := programs()[os.Getenv(programVariable)]
	if program == nil {
		o.Outside = outsideOfTests
	}
	s, err := Enter(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if program != nil {
		os.Exit(program(s))
	}
	box = s
	os.Exit(m.Run())
}

// outsideOfTests finds what the sandbox cannot: the machine's own namespace, and a network to fetch from.
func outsideOfTests() error {
	here, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	assets, err := controlplane.Assets(context.Background(), os.Stderr)
	if err != nil {
		return err
	}
	return errors.Join(os.Setenv(outsideVariable, here), os.Setenv("KUBEBUILDER_ASSETS", assets))
}

// programs are what the test binary does in place of tests.
func programs() map[string]func(*Sandbox) int {
	return map[string]func(*Sandbox) int{
		"exit": func(*Sandbox) int {
			status, _ := strconv.Atoi(os.Args[1])
			return status
		},
		"cat": func(*Sandbox) int {
			_, _ = io.Copy(os.Stdout, os.Stdin)
			fmt.Fprint(os.Stderr, "and errors")
			return 0
		},
		"killed": func(*Sandbox) int {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			for {
				time.Sleep(time.Hour) // an empty select is a deadlock without cgo
			}
		},
		"interrupted": func(*Sandbox) int {
			signals := make(chan os.Signal, 1)
			signal.Notify(signals, os.Interrupt)
			fmt.Fprintln(os.Stdout, "listening")
			fmt.Fprintln(os.Stdout, <-signals)
			return 5
		},
		// Starts "sleep ARG" and leaves it running.
		"leave": func(*Sandbox) int {
			if err := exec.Command("sleep", os.Args[1]).Start(); err != nil {
				return 1
			}
			fmt.Fprintln(os.Stdout, "started")
			return 0
		},
		// Starts "sleep ARG" and stays.
		"stay": func(*Sandbox) int {
			if err := exec.Command("sleep", os.Args[1]).Start(); err != nil {
				return 1
			}
			fmt.Fprintln(os.Stdout, "started")
			for {
				time.Sleep(time.Hour) // an empty select is a deadlock without cgo
			}
		},
		// Makes ten orphans, waits until they have ended, and prints what processes are left.
		"orphans": func(*Sandbox) int {
			if err := exec.Command("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1 & done").Run(); err != nil {
				return 1
			}
			time.Sleep(500 * time.Millisecond)
			states, err := filepath.Glob("/proc/[0-9]*/status")
			if err != nil || len(states) != 2 {
				fmt.Fprintln(os.Stdout, "there are other processes than pid 1 and this one:", states, err)
			}
			return 0
		},
		// Prints where a bpffs is mounted.
		"bpffs": func(*Sandbox) int {
			mounts, err := procfs.GetMounts()
			for _, m := range mounts {
				if m.FSType == "bpf" {
					fmt.Fprintln(os.Stdout, m.MountPoint)
				}
			}
			if err != nil {
				return 1
			}
			return 0
		},
		"detach": func(s *Sandbox) int {
			if err := exec.Command("sleep", os.Args[1]).Start(); err != nil {
				return 1
			}
			fmt.Fprintln(os.Stdout, "before")
			if err := s.Ready(); err != nil {
				fmt.Fprintln(os.Stdout, err)
				return 1
			}
			fmt.Fprintln(os.Stdout, "after")
			for {
				time.Sleep(time.Hour) // an empty select is a deadlock without cgo
			}
		},
	}
}

// command returns the test binary as one of programs, in a sandbox of its own.
func command(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), programVariable+"="+program)
	return cmd
}

// unique returns an argument for sleep by which a test can find it: many seconds.
func unique() string {
	return fmt.Sprintf("9%d", time.Now().UnixNano())
}

// sleepers returns the pids of "sleep arg".
func sleepers(t *testing.T, arg string) []string {
	t.Helper()
	var pids []string
	cmdlines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range cmdlines {
		if got, err := os.ReadFile(path); err == nil && string(got) == "sleep\x00"+arg+"\x00" {
			pids = append(pids, path)
		}
	}
	return pids
}

func TestInside(t *testing.T) {
	t.Run("proc is that of the pid namespace", func(t *testing.T) {
		got, err := os.Readlink("/proc/self")
		if err != nil {
			t.Fatal(err)
		}
		if want := strconv.Itoa(os.Getpid()); got != want || os.Getpid() == 1 {
			t.Errorf("/proc/self is %s, this process %s, pid 1 is another", got, want)
		}
	})
	t.Run("the network namespace is another one, with lo only", func(t *testing.T) {
		here, err := os.Readlink("/proc/self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		if outside := os.Getenv(outsideVariable); here == outside || outside == "" {
			t.Errorf("inside is %q, outside %q", here, outside)
		}
		interfaces, err := net.Interfaces()
		if err != nil {
			t.Fatal(err)
		}
		if len(interfaces) != 1 || interfaces[0].Name != "lo" || interfaces[0].Flags&net.FlagUp == 0 {
			t.Errorf("got %v, want lo, up", interfaces)
		}
	})
	t.Run("run and the bpffs are empty", func(t *testing.T) {
		for pattern, want := range map[string][]string{
			"/run/*": {"/run/netns", os.TempDir()},
			// The kernel puts maps.debug and progs.debug into each new one, if it is so configured.
			"/sys/fs/bpf/*[^g]": nil,
		} {
			got, err := filepath.Glob(pattern)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", pattern, diff)
			}
		}
		var fs unix.Statfs_t
		if err := unix.Statfs("/sys/fs/bpf", &fs); err != nil || fs.Type != unix.BPF_FS_MAGIC {
			t.Errorf("/sys/fs/bpf has type %#x, error %v", fs.Type, err)
		}
	})
	t.Run("the environment has no trace of the stages", func(t *testing.T) {
		if stage, ok := os.LookupEnv(stageVariable); ok {
			t.Errorf("%s=%s", stageVariable, stage)
		}
	})
}

func TestStatusAndOutputPassThrough(t *testing.T) {
	for name, test := range map[string]struct {
		program, arg, input string
		want                string
		status              int
	}{
		"success":           {"exit", "0", "", "", 0},
		"a status":          {"exit", "37", "", "", 37},
		"all three files":   {"cat", "", "input", "input|and errors", 0},
		"killed by 9":       {"killed", "", "", "", 128 + 9},
		"reaps ten orphans": {"orphans", "", "", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := command(t, test.program, test.arg)
			cmd.Stdin = strings.NewReader(test.input)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			if cmd.ProcessState.ExitCode() != test.status {
				t.Errorf("got %v, want status %d", err, test.status)
			}
			got := stdout.String()
			if stderr.Len() > 0 {
				got += "|" + stderr.String()
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// Else the programs of a test outside would stay attached after it has unmounted their bpffs.
func TestBPFFSOfOutsideIsNotMountedInside(t *testing.T) {
	outside := bpffs.Mount(t)
	if err := unix.Mount("bpf", outside, "bpf", 0, ""); err != nil { // a second one over the first
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(outside, unix.MNT_DETACH) })
	out, err := command(t, "bpffs").CombinedOutput()
	if err != nil || string(out) != "/sys/fs/bpf\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestSignalsPassThroughOnce(t *testing.T) {
	cmd := command(t, "interrupted")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitLine(t, out, "listening\n")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(out)
	if err != nil || string(rest) != "interrupt\n" {
		t.Errorf("got %q, %v", rest, err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 5 {
		t.Errorf("got %v, want status 5", err)
	}
}

func awaitLine(t *testing.T, from io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(from, got); err != nil || string(got) != want {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}

func TestNothingOutlivesTheSandbox(t *testing.T) {
	t.Run("when the inside ends", func(t *testing.T) {
		arg := unique()
		if out, err := command(t, "leave", arg).CombinedOutput(); err != nil || string(out) != "started\n" {
			t.Fatalf("got %q, %v", out, err)
		}
		// The kernel is done with it before pid 1 has ended: no waiting.
		if left := sleepers(t, arg); left != nil {
			t.Errorf("left running: %v", left)
		}
	})
	t.Run("when the one who entered is killed", func(t *testing.T) {
		arg := unique()
		cmd := command(t, "stay", arg)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		awaitLine(t, out, "started\n")
		if got := sleepers(t, arg); len(got) != 1 {
			t.Fatalf("running: %v, want one", got)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		// The inside has the other end of the pipe too: its end is the end of the inside.
		if _, err := io.Copy(io.Discard, out); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // killed
		eventually(t, func() error {
			if left := sleepers(t, arg); left != nil {
				return fmt.Errorf("left running: %v", left)
			}
			return nil
		})
	})
}

func TestDetached(t *testing.T) {
	dir := t.TempDir()
	pidFile, logFile := filepath.Join(dir, "pid"), filepath.Join(dir, "log")
	detached := func(program string, args ...string) *exec.Cmd {
		cmd := command(t, program, args...)
		cmd.Env = append(cmd.Env, pidVariable+"="+pidFile, logVariable+"="+logFile)
		return cmd
	}
	arg := unique()
	// Reads to the end of the pipe, and so hangs if the sandbox keeps it.
	out, err := detached("detach", arg).CombinedOutput()
	t.Cleanup(func() {
		if err := Kill(pidFile); err != nil {
			t.Error(err)
		}
	})
	if err != nil || string(out) != "before\n" {
		t.Fatalf("got %q, %v", out, err)
	}
	if got := sleepers(t, arg); len(got) != 1 {
		t.Fatalf("running: %v, want one", got)
	}
	eventually(t, func() error {
		if log, err := os.ReadFile(logFile); string(log) != "after\n" {
			return fmt.Errorf("the log is %q, %w", log, err)
		}
		return nil
	})

	out, err = detached("detach", arg).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "the sandbox of "+pidFile+" is running as process ") {
		t.Errorf("a second one: got %q, %v", out, err)
	}

	if err := Kill(pidFile); err != nil {
		t.Fatal(err)
	}
	if left := sleepers(t, arg); left != nil {
		t.Errorf("left running: %v", left)
	}
	if err := Kill(pidFile); err != nil {
		t.Errorf("kill what is gone: %v", err)
	}

	// Ends before it is ready.
	err = detached("exit", "4").Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 4 {
		t.Errorf("got %v, want status 4", err)
	}
	if _, err := os.Stat(pidFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file of a sandbox that never was: %v", err)
	}
}

func TestDetachedEndsWithTheOutsideBeforeReady(t *testing.T) {
	arg := unique()
	cmd := command(t, "stay", arg)
	pidFile := filepath.Join(t.TempDir(), "pid")
	cmd.Env = append(cmd.Env, pidVariable+"="+pidFile, logVariable+"="+filepath.Join(t.TempDir(), "log"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitLine(t, out, "started\n")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	eventually(t, func() error {
		if left := sleepers(t, arg); left != nil {
			return fmt.Errorf("left running: %v", left)
		}
		return nil
	})
}

func TestKillSparesAnotherProcessWithTheNumber(t *testing.T) {
	other := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	})
	path := filepath.Join(t.TempDir(), "pid")
	if err := record(path, other.Process.Pid); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var pid, started, boot string
	if _, err := fmt.Sscan(string(content), &pid, &started, &boot); err != nil {
		t.Fatal(err)
	}
	for name, stale := range map[string]string{
		"of another start": pid + " 1" + started + " " + boot,
		"of another boot":  pid + " " + started + " 7b1e",
	} {
		if err := os.WriteFile(path, []byte(stale), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Kill(path); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := startTime(other.Process.Pid); err != nil {
			t.Errorf("%s: the other process is gone: %v", name, err)
		}
	}
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Kill(path); err == nil || !strings.Contains(err.Error(), "is not the file of a sandbox") {
		t.Errorf("nonsense: got %v", err)
	}
}

// eventually calls check until it returns nil.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	wait.Succeed(t, 10*time.Second, check)
}
