// SPDX-License-Identifier: Apache-2.0

// Package sandbox lets a program run as root without leaving anything on the machine: in mount, network and pid
// namespaces of its own, so that its processes, network interfaces, mounts and BPF pins end with it, whatever
// ends it. In it, nodes of a cluster are network namespaces (Fabric).
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// stageVariable says to a process that Enter has started which part it has to play.
const stageVariable = "XDP_OPERATOR_SANDBOX_STAGE"

// The stages after the first, which has no stageVariable and waits outside.
const (
	stageInit       = "init"   // pid 1 of the sandbox: sets it up, reaps, forwards signals
	stageInside     = "inside" // the program proper
	detachedPostfix = "-detached"
)

// Options says how Enter enters. The zero value runs the program in a sandbox and waits for it.
type Options struct {
	// Outside is called before anything else, on the machine itself, for what must be done with its network:
	// downloads, builds. Environment variables that it sets reach the inside. May be nil.
	Outside func() error

	// PIDFile, if not empty, makes the sandbox outlive the process that entered it: that one exits with
	// status 0 as soon as the inside calls Ready, and writes into this file what Kill needs. Enter refuses
	// to start a second sandbox as long as that of the file runs.
	PIDFile string
	// LogFile takes the output of the inside after Ready. It goes with PIDFile.
	LogFile string
}

// Sandbox is the inside of a sandbox. The zero value is of no use: Enter makes it.
type Sandbox struct {
	ready *os.File // write end of the pipe on which the outside waits; nil if it does not
	log   *os.File // nil if the outside waits to the end
}

// Enter moves the program into a sandbox. It has to be the first thing that main or TestMain does, since it
// executes the program anew, with the same arguments and environment, up to this call. Of the processes, only
// the one inside returns. The one that called it first passes signals on to it (INT, TERM, QUIT, HUP), exits with
// its status (128 + n if signal n ended it), and if killed takes everything in the sandbox along.
//
// The inside finds its own /proc, an empty tmpfs on /run, a new bpffs on /sys/fs/bpf, and lo up as the only
// interface. TMPDIR is a directory of its own, in memory. It shares the rest of the file system with the machine, and
// /sys shows the machine's devices.
// A sandbox in a sandbox is possible. Enter needs root (CAP_SYS_ADMIN).
func Enter(o Options) (*Sandbox, error) {
	stage := os.Getenv(stageVariable)
	// Not for the children of the inside: they may want a sandbox of their own.
	if err := os.Unsetenv(stageVariable); err != nil {
		return nil, fmt.Errorf("enter the sandbox: %w", err)
	}
	stage, detached := strings.CutSuffix(stage, detachedPostfix)
	var err error
	switch stage {
	case "":
		err = outside(o)
	case stageInit:
		err = initialize(detached)
	case stageInside:
		s := &Sandbox{}
		if detached {
			s.ready, s.log = os.NewFile(readyFD, "ready"), os.NewFile(logFD, "log")
			syscall.CloseOnExec(readyFD)
			syscall.CloseOnExec(logFD)
		}
		return s, nil
	default:
		err = fmt.Errorf("%s=%s is not a stage", stageVariable, stage)
	}
	return nil, fmt.Errorf("enter the sandbox: %w", err)
}

// Ready lets the process that called Enter exit with status 0, if Options.PIDFile asked for it. From then on
// standard output and error are the log file, and standard input is empty. Otherwise it does nothing.
func (s *Sandbox) Ready() error {
	if s.ready == nil {
		return nil
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("detach the sandbox: %w", err)
	}
	defer func() { _ = null.Close() }()
	if err := redirect(null, s.log, s.log); err != nil {
		return fmt.Errorf("detach the sandbox: %w", err)
	}
	if _, err := s.ready.Write([]byte{1}); err != nil {
		return fmt.Errorf("detach the sandbox: %w", err)
	}
	err = errors.Join(s.ready.Close(), s.log.Close())
	s.ready, s.log = nil, nil
	return err
}

// redirect puts files in the place of the descriptors 0, 1, and so on.
func redirect(files ...*os.File) error {
	for fd, file := range files {
		if err := unix.Dup3(int(file.Fd()), fd, 0); err != nil {
			return err
		}
	}
	return nil
}

// self returns a command that executes this program anew, as stage.
func self(stage string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe") //nolint:noctx // signals and the end of this process end it
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), stageVariable+"="+stage)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

// outside starts the sandbox and exits as the inside does. It returns only if that is not possible.
func outside(o Options) error {
	if os.Geteuid() != 0 {
		return errors.New("run this as root: it makes mount, network and pid namespaces")
	}
	if o.Outside != nil {
		if err := o.Outside(); err != nil {
			return err
		}
	}
	if o.PIDFile != "" {
		return outsideDetached(o)
	}
	// PDEATHSIG comes when the thread that forked ends, not the process, see PR_SET_PDEATHSIG(2const).
	runtime.LockOSThread()
	cmd := self(stageInit)
	cmd.SysProcAttr = attributes()
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	signals := listen()
	if err := cmd.Start(); err != nil {
		return explain(err)
	}
	go forward(signals, cmd.Process)
	return exit(cmd.Wait())
}

// attributes returns what makes a child pid 1 of a new sandbox.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID,
		// A process group of its own: else an interrupt from the keyboard would come twice, once
		// from the terminal and once from forward.
		Setpgid: true,
	}
}

// explain adds to the error of a clone what it usually means.
func explain(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("make mount, network and pid namespaces (needs CAP_SYS_ADMIN): %w", err)
	}
	return err
}

// listen begins to collect the signals for forward. It comes before the process is started that they go to: an
// early one would otherwise end this process.
func listen() <-chan os.Signal {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	return signals
}

// forward passes signals on to process, as long as this process lives.
func forward(signals <-chan os.Signal, process *os.Process) {
	for s := range signals {
		_ = process.Signal(s) // an error means that it has ended, and then so do we
	}
}

// exit ends this process in the way that err, the result of exec.Cmd.Wait, says the child has ended.
func exit(err error) error {
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(status(failed.Sys().(syscall.WaitStatus)))
	}
	if err == nil {
		os.Exit(0)
	}
	return err
}

// status returns the exit status for one that ends because its child has, as shells do.
func status(child syscall.WaitStatus) int {
	if child.Signaled() {
		return 128 + int(child.Signal())
	}
	return child.ExitStatus()
}

// Descriptors that a detached sandbox inherits, after 0, 1 and 2.
const (
	readyFD    = 3 // write end; a byte says that the inside is ready
	logFD      = 4
	lifelineFD = 5 // read end, pid 1 only; it ends without a byte if the outside ends too early
)

// outsideDetached starts a sandbox that stays, and exits once it is ready.
func outsideDetached(o Options) error {
	if pid, err := Running(o.PIDFile); err != nil {
		return err
	} else if pid != 0 {
		return fmt.Errorf("the sandbox of %s is running as process %d", o.PIDFile, pid)
	}
	log, err := os.OpenFile(o.LogFile, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open the log of the sandbox: %w", err)
	}
	ready, readyWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	// In the place of PDEATHSIG, which could not be taken back when all is well.
	lifeline, lifelineWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := self(stageInit + detachedPostfix)
	cmd.ExtraFiles = []*os.File{readyWrite, log, lifeline}
	cmd.SysProcAttr = attributes()
	// A session of its own (and with it a process group): the end of the terminal must not end the sandbox.
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Setsid = false, true
	signals := listen()
	if err := cmd.Start(); err != nil {
		return explain(err)
	}
	go forward(signals, cmd.Process)
	if err := errors.Join(readyWrite.Close(), log.Close(), lifeline.Close()); err != nil {
		return err
	}
	if err := record(o.PIDFile, cmd.Process.Pid); err != nil {
		return err // ends this process, and by the lifeline the sandbox
	}
	if n, _ := ready.Read(make([]byte, 1)); n == 0 {
		// It has ended without being ready.
		return errors.Join(os.Remove(o.PIDFile), exit(cmd.Wait()))
	}
	if _, err := lifelineWrite.Write([]byte{1}); err != nil {
		return fmt.Errorf("detach the sandbox: %w", err)
	}
	os.Exit(0)
	return nil
}

// initialize is pid 1 of the sandbox: it sets it up, runs the inside, and exits as that does, upon which the kernel
// kills whatever is left. The inside is not pid 1 itself for two reasons: os/exec would compete with whoever reaps
// orphans, and /proc is only now that of the sandbox (cilium/ebpf looks at it before main, and remembers).
func initialize(detached bool) error {
	if os.Getpid() != 1 {
		return fmt.Errorf("%s is set by hand", stageVariable)
	}
	if detached {
		syscall.CloseOnExec(lifelineFD)
		go func() {
			if n, _ := os.NewFile(lifelineFD, "lifeline").Read(make([]byte, 1)); n == 0 {
				os.Exit(1)
			}
		}()
	}
	if err := furnish(); err != nil {
		return err
	}
	stage := stageInside
	if detached {
		stage += detachedPostfix
	}
	cmd := self(stage)
	if detached {
		cmd.ExtraFiles = []*os.File{os.NewFile(readyFD, "ready"), os.NewFile(logFD, "log")}
	}
	signals := listen()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the inside: %w", err)
	}
	go forward(signals, cmd.Process)
	if detached {
		if err := letGo(cmd.ExtraFiles); err != nil {
			return err
		}
	}
	for {
		var child syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &child, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return fmt.Errorf("wait for the inside: %w", err)
		case pid == cmd.Process.Pid:
			os.Exit(status(child))
		}
	}
}

// letGo gives up what pid 1 has inherited for the inside: nobody who reads from our terminal or pipe should have to
// wait until the sandbox ends.
func letGo(inherited []*os.File) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	log := inherited[logFD-3]
	if err := redirect(null, log, log); err != nil {
		return err
	}
	for _, file := range append([]*os.File{null}, inherited...) {
		if err := file.Close(); err != nil {
			return err
		}
	}
	return nil
}
