// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/xdp-operator/xdp-operator/agent"
	"github.com/xdp-operator/xdp-operator/agent/datapath"
	"github.com/xdp-operator/xdp-operator/agent/links"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/kernels/report"
	"github.com/xdp-operator/xdp-operator/test/util/netns"
	"github.com/xdp-operator/xdp-operator/test/util/scheme"
)

// profile has what containerd's default profile for containers allows and denies of files and mounts
// (contrib/apparmor/template.go of containerd). The kernel matches the path that a process sees, so it matters where a pod
// mounts a file system.
const (
	profileName = "container-default"
	profile     = `
profile ` + profileName + ` flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  umount,
  signal,
  ptrace,
  deny mount,
  deny /proc/sys/[^k]** w,
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/kernel/security/** rwklx,
}
`
)

const (
	nodeMount = "/sys/fs/bpf" // where the node has its BPF file system
	podMount  = "/bpf"        // where chart and kustomize mount the same file system in the pods
)

// The environment of a process that runs under the profile.
const (
	roleVariable  = "APPARMOR_TEST_ROLE" // "enter pass" or "enter cleanup", and under the profile "pass" or "cleanup"
	bpffsVariable = "APPARMOR_TEST_BPFFS"
)

// result is what the agent reports of the interface.
type result struct {
	Profile string // of the process
	State   v1alpha1.InterfaceState
	Mode    v1alpha1.AttachMode
	Reason  string
}

func TestMain(m *testing.M) {
	var err error
	switch bpffs := os.Getenv(bpffsVariable); os.Getenv(roleVariable) {
	case "":
		os.Exit(m.Run())
	case "pass":
		err = pass(bpffs)
	case "cleanup":
		err = cleanup(bpffs)
	default:
		err = enter()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// TestContainerProfile runs passes of the agent under the profile, with the same BPF file system at two paths.
func TestContainerProfile(t *testing.T) {
	if os.Getenv(report.Guest) == "" {
		t.Fatal("this test loads an AppArmor profile and mounts " + podMount + ": it is for make test-kernels to run")
	}
	loadProfile(t)
	if err := os.MkdirAll(podMount, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(nodeMount, podMount, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	ns := netns.New(t)
	ns.Veth(t, "eth0", "peer")

	t.Run("below /sys the agent is refused", func(t *testing.T) {
		expect(t, passes(t, ns, nodeMount), result{
			Profile: profileName + " (enforce)", State: v1alpha1.InterfaceFailed, Reason: v1alpha1.ReasonPermissionDenied,
		})
		expectPins(t, 0)
	})
	t.Run("where the chart mounts it the agent attaches and pins", func(t *testing.T) {
		expect(t, passes(t, ns, podMount), result{
			Profile: profileName + " (enforce)", State: v1alpha1.InterfaceAttached, Mode: v1alpha1.AttachNative,
		})
		expectPins(t, 1)
	})
	t.Run("agent cleanup detaches and removes the pins there", func(t *testing.T) {
		confined(t, ns, "cleanup", podMount)
		expectPins(t, 0)
	})
}

func expect(t *testing.T, got, want result) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func expectPins(t *testing.T, want int) {
	t.Helper()
	pins, err := filepath.Glob(filepath.Join(nodeMount, "xdp-operator", "v*", "*", "*", "link"))
	if err != nil || len(pins) != want {
		t.Errorf("the node has the pins %q, error %v, want %d", pins, err, want)
	}
}

func loadProfile(t *testing.T) {
	t.Helper()
	parser := exec.Command("/sbin/apparmor_parser", "--replace", "--skip-cache")
	parser.Stdin = strings.NewReader(profile)
	if out, err := parser.CombinedOutput(); err != nil {
		t.Fatalf("load an AppArmor profile: %v\n%s", err, out)
	}
}

// passes runs the agent under the profile until its node is settled.
func passes(t *testing.T, ns *netns.Namespace, bpffs string) (r result) {
	t.Helper()
	if err := json.Unmarshal(confined(t, ns, "pass", bpffs), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// confined starts this program under the profile and returns what it prints.
func confined(t *testing.T, ns *netns.Namespace, role, bpffs string) []byte {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVariable+"=enter "+role, bpffsVariable+"="+bpffs)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	var out []byte
	var err error
	ns.Do(func() { out, err = cmd.Output() })
	if err != nil {
		t.Fatalf("%s under the profile: %v\n%s", role, err, stderr.Bytes())
	}
	return out
}

// enter starts the program again, under the profile: the kernel changes the profile of a thread when it executes a program.
func enter() error {
	runtime.LockOSThread()
	if err := os.WriteFile("/proc/thread-self/attr/exec", []byte("exec "+profileName), 0); err != nil {
		return fmt.Errorf("choose the profile: %w", err)
	}
	if err := os.Setenv(roleVariable, strings.TrimPrefix(os.Getenv(roleVariable), "enter ")); err != nil {
		return err
	}
	return unix.Exec("/proc/self/exe", os.Args, os.Environ())
}

// pass runs passes of an agent that counts eth0, and prints a result.
func pass(bpffs string) error {
	label, err := os.ReadFile("/proc/self/attr/current")
	if err != nil {
		return err
	}
	d, err := datapath.Open(bpffs, "boot")
	if err != nil {
		return err
	}
	defer d.Close()
	state := &v1alpha1.XDPNodeState{ObjectMeta: metav1.ObjectMeta{Name: "n1", Generation: 1}}
	state.Spec.ReportInterval.Duration = time.Second
	state.Spec.Counters = []v1alpha1.NodeCounter{
		{Name: "a", UID: types.UID("a"), Generation: 1, Names: []string{"eth0"}, AttachMode: v1alpha1.AttachNative},
	}
	api := fake.NewClientBuilder().WithScheme(scheme.New()).WithStatusSubresource(state).WithObjects(state).Build()
	a := &agent.Agent{Client: api, Node: "n1", Info: v1alpha1.AgentInfo{BootID: "boot"}, Datapath: d, Links: links.Links{}, Clock: clock.RealClock{}}
	ctx := ctrl.SetupSignalHandler()
	for wait := time.Duration(0); wait < 50*time.Millisecond; { // until a pass has nothing to follow it up at once
		time.Sleep(wait)
		result, err := a.Reconcile(ctx, ctrl.Request{})
		if err != nil {
			return err
		}
		wait = result.RequeueAfter
	}
	if err := api.Get(ctx, types.NamespacedName{Name: "n1"}, state); err != nil {
		return err
	}
	if len(state.Status.Interfaces) != 1 {
		return fmt.Errorf("want one interface, got %+v", state.Status)
	}
	i := state.Status.Interfaces[0]
	return json.NewEncoder(os.Stdout).Encode(result{
		Profile: strings.TrimSpace(string(label)), State: i.State, Mode: i.Mode, Reason: i.Reason,
	})
}

// cleanup does what agent cleanup does.
func cleanup(bpffs string) error {
	d, err := datapath.Open(bpffs, "")
	if err != nil {
		return err
	}
	defer d.Close()
	left, err := d.Cleanup()
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("left: %v", left)
	}
	return err
}
