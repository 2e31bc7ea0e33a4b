// SPDX-License-Identifier: Apache-2.0

package kubeletcluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A node is this program, executed anew: first it joins the node's control group, then, still as pid 1 of the node, it
// mounts what the node sees, runs containerd, kubelet and kube-proxy, and reaps. When it ends, all of it ends.

// machineVariable holds the file of the machine to those processes, stageVariable what they are to do.
const (
	machineVariable = "XDP_OPERATOR_MACHINE"
	stageVariable   = "XDP_OPERATOR_MACHINE_STAGE"
	stageJoin       = "join"
	stageRun        = "run"
)

// machine is what pid 1 of a node has to know.
type machine struct {
	Name, Address string
	Index         int    // from 1
	Dir           string // holds etc, images, run, lib, log, logs
	BPFFS         string
	Cgroup        string // below each hierarchy's root
	Runc          string // the executable
	Snapshotter   string // of containerd
	Labels        string // of the Node object: "a=b,c=d"
	Programs      Programs
}

// runMachine plays pid 1 of a node if this process was executed for that, and then does not return.
func runMachine() {
	stage := os.Getenv(stageVariable)
	if stage == "" {
		return
	}
	err := os.Unsetenv(stageVariable)
	if err == nil {
		var m machine
		if m, err = readMachine(os.Getenv(machineVariable)); err == nil {
			err = m.play(stage)
		}
	}
	fmt.Fprintln(os.Stderr, "node:", err)
	os.Exit(1)
}

func readMachine(path string) (m machine, err error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal(content, &m)
}

func (m machine) write(path string) error {
	content, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o600)
}

func (m machine) play(stage string) error {
	if os.Getpid() != 1 {
		return fmt.Errorf("%s is set by hand", stageVariable)
	}
	if stage == stageJoin {
		// The thread that executes keeps its namespaces, the others end.
		runtime.LockOSThread()
		if err := joinCgroup(m.Cgroup); err != nil {
			return err
		}
		return syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), stageVariable+"="+stageRun))
	}
	if err := m.furnish(); err != nil {
		return err
	}
	return m.run()
}

// daemon is a program that runs as long as the node does.
type daemon struct {
	name string
	path string
	args []string
}

func (m machine) daemons() []daemon {
	return []daemon{
		{"kubelet", base + "/kubernetes/kubelet", []string{
			"--config=" + base + "/etc/kubelet.yaml", "--kubeconfig=" + base + "/etc/kubelet.kubeconfig",
			"--hostname-override=" + m.Name, "--node-ip=" + m.Address, "--node-labels=" + m.Labels,
		}},
		{"kube-proxy", base + "/kubernetes/kube-proxy", []string{"--config=" + base + "/etc/kube-proxy.yaml"}},
	}
}

// run runs the node's daemons, and again each that ends.
func (m machine) run() error {
	path := strings.Join([]string{base + "/kubernetes", base + "/containerd", "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}, ":")
	// Nothing of the environment that the cluster was started in is meant for the daemons.
	os.Clearenv()
	if err := errors.Join(os.Setenv("PATH", path), os.Setenv("HOME", "/run"), os.Setenv("TMPDIR", tempDir)); err != nil {
		return err
	}
	running := map[int]daemon{}
	launch := func(d daemon) error {
		pid, err := m.launch(d)
		running[pid] = d
		return err
	}
	containerd := daemon{"containerd", base + "/containerd/containerd", []string{"--config", base + "/etc/containerd.toml", "--log-level", "warn"}}
	if err := launch(containerd); err != nil {
		return err
	}
	if err := m.importImages(); err != nil {
		return err
	}
	for _, d := range m.daemons() {
		if err := launch(d); err != nil {
			return err
		}
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for the daemons: %w", err)
		}
		d, ok := running[pid]
		if !ok {
			continue // an orphan
		}
		delete(running, pid)
		fmt.Fprintf(os.Stderr, "node: %s has ended (status %#x) and is started again\n", d.name, uint32(status))
		time.Sleep(time.Second) // as systemd does, against one that ends at once
		if err := launch(d); err != nil {
			return err
		}
	}
}

// launch starts a daemon and returns its pid. It is not waited for by os/exec, which would compete with run.
func (m machine) launch(d daemon) (int, error) {
	log, err := os.OpenFile(filepath.Join(base, "logs", d.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	defer func() { _ = log.Close() }()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer func() { _ = null.Close() }()
	process, err := os.StartProcess(d.path, append([]string{d.path}, d.args...), &os.ProcAttr{
		Env: os.Environ(), Files: []*os.File{null, log, log}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", d.name, err)
	}
	return process.Pid, process.Release()
}

// importImages waits for containerd, and gives it every archive of base/images.
func (m machine) importImages() error {
	const socket = "/run/containerd/containerd.sock"
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		connection, err := net.Dial("unix", socket) //nolint:noctx // it answers or fails at once
		if err == nil {
			_ = connection.Close()
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("wait for containerd: %w", err)
		}
	}
	archives, err := filepath.Glob(base + "/images/*.tar")
	if err != nil {
		return err
	}
	for _, archive := range archives {
		load := ImportCommand(archive)
		out, err := exec.Command(load[0], load[1:]...).CombinedOutput() //nolint:noctx // ends with the node
		if err != nil {
			return fmt.Errorf("import %s: %w: %s", archive, err, out)
		}
	}
	return nil
}

// ImportCommand returns the command that imports the archive of an image on a node; "-" is standard input.
func ImportCommand(archive string) []string {
	return []string{base + "/containerd/ctr", "--namespace=k8s.io", "images", "import", archive}
}

// furnish makes the fresh namespaces of this process a machine: its own /proc, /sys, /run, /var/lib and /var/log, its
// own view of the control groups, its own bpffs. What it does is not seen outside.
func (m machine) furnish() error {
	if err := unix.Sethostname([]byte(m.Name)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	groups, err := hierarchies()
	if err != nil {
		return err
	}
	// Before /proc is a fresh one: after a reboot of the node it is not that of the machine.
	boot, err := os.ReadFile(bootIDFile)
	if err != nil {
		return err
	}
	run := filepath.Join(m.Dir, "run")
	if err := mount("tmpfs", run, "tmpfs", "mode=0755"); err != nil {
		return err
	}
	// Everything of ours goes below /run before that hides where it comes from.
	for _, b := range []struct{ from, to string }{
		{m.Programs.Kubernetes, "kubernetes"}, {m.Programs.Containerd, "containerd"}, {m.Programs.CNI, "cni"},
		{filepath.Join(m.Dir, "etc"), "etc"}, {filepath.Join(m.Dir, "images"), "images"}, {filepath.Join(m.Dir, "logs"), "logs"},
	} {
		to := filepath.Join(m.Dir, "run/xdp-operator", b.to)
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		if err := bind(b.from, to); err != nil {
			return err
		}
	}
	sysctls := filepath.Join(run, "xdp-operator/sysctls")
	if err := os.Mkdir(sysctls, 0o755); err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return mount("proc", "/proc", "proc", "") },
		func() error { return mount("sysfs", "/sys", "sysfs", "") },
		func() error { return mountCgroups(groups) },
		func() error { return bind(m.BPFFS, "/sys/fs/bpf") },
		func() error { return pretend(sysctls, boot) },
		func() error { return forwardPackets() },
		func() error { return bind(filepath.Join(m.Dir, "lib"), "/var/lib") },
		func() error { return bind(filepath.Join(m.Dir, "log"), "/var/log") },
		func() error { return bind(run, "/run") },
		func() error {
			return errors.Join(os.Mkdir("/run/netns", 0o755), os.Mkdir(tempDir, 0o777|os.ModeSticky))
		},
		func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "") },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// tempDir is for temporary files. It ends with the node.
const tempDir = "/run/tmp"

const bootIDFile = "/proc/sys/kernel/random/boot_id"

// pretend shows the node its own boot ID, and gives the kubelet settings of the kernel to write to that it insists on
// and that are the whole machine's.
func pretend(dir string, boot []byte) error {
	for name, value := range map[string]string{
		bootIDFile:                            string(boot),
		"/proc/sys/vm/overcommit_memory":      "1\n",
		"/proc/sys/vm/panic_on_oom":           "0\n",
		"/proc/sys/kernel/panic":              "10\n",
		"/proc/sys/kernel/panic_on_oops":      "1\n",
		"/proc/sys/kernel/keys/root_maxkeys":  "1000000\n",
		"/proc/sys/kernel/keys/root_maxbytes": "25000000\n",
	} {
		file := filepath.Join(dir, filepath.Base(name))
		if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
			return err
		}
		if err := bind(file, name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// forwardPackets makes the node's network namespace a router for its pods.
func forwardPackets() error {
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return fmt.Errorf("forward packets: %w", err)
	}
	// So that a Service works between two pods of one node; without the module br_netfilter there is no such file.
	err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("1"), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("show the bridge's packets to the filter: %w", err)
	}
	return nil
}

func mount(source, dir, kind, options string) error {
	if err := unix.Mount(source, dir, kind, 0, options); err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	return nil
}

func bind(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", from, to, err)
	}
	return nil
}
