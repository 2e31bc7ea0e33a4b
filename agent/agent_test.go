// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

func TestASharedHookIsReportedAndNotGivenUpWhenOthersComeAndGo(t *testing.T) {
	n := newNode(t, sharing("a"))
	n.settle()
	i := n.state().Status.Interfaces[0]
	if i.State != v1alpha1.InterfaceAttached || i.Coexistence != v1alpha1.CoexistenceDispatcher || i.Mode != v1alpha1.AttachNative {
		t.Errorf("the interface is reported as %+v", i)
	}
	n.interfaces[1].Hook.Program = 77 // another dispatcher, after the attachments were listed
	n.expectSteps("read")

	n.edit(func(s *v1alpha1.XDPNodeState) { s.Spec.Counters[0].Coexistence = "" })
	n.expectSteps("read", "save", "detach eth0") // first, and only then the other way, since its counts are to be saved
	n.interfaces[1].Hook = plan.Hook{}
	n.settle()
	if i := n.state().Status.Interfaces[0]; i.State != v1alpha1.InterfaceAttached || i.Coexistence != "" {
		t.Errorf("the interface is reported as %+v", i)
	}
}

func TestAPassAttachesReadsAndSavesInThisOrder(t *testing.T) {
	n := newNode(t, counter("a"))
	n.expectSteps("read", "save")                // opens the ledger
	n.expectSteps("attach eth0", "read", "save") // counts
	n.expectSteps("read")                        // nothing new: nothing is written
}

func TestAMapIsGivenUpOnlyOnceItsCountsAreSaved(t *testing.T) {
	n := newNode(t, counter("a"))
	n.settle()
	n.receive("eth0", 5)
	n.edit(func(s *v1alpha1.XDPNodeState) { s.Spec.Counters[0].Inactive = true })

	n.saveError = errAPIDown
	steps, _, err := n.pass()
	if !errors.Is(err, errAPIDown) || !slices.Equal(steps, []string{"read", "save refused"}) {
		t.Fatalf("with the API server away the pass took the steps %q and returned %v", steps, err)
	}
	n.saveError = nil
	n.expectSteps("read", "save", "detach eth0")
	n.expectSteps("read", "save") // the map is seen to be gone
	n.expectSteps("read")
	if diff := cmp.Diff(map[string]int64{"a": 5}, n.accounts()); diff != "" {
		t.Errorf("accounts (-want +got):\n%s", diff)
	}
}

func TestWhatIsCountedAfterADetachWasSaidIsSavedBeforeItIsMade(t *testing.T) {
	n := newNode(t, counter("a"))
	n.settle()
	n.edit(func(s *v1alpha1.XDPNodeState) { s.Spec.Counters[0].AttachMode = v1alpha1.AttachGeneric })
	n.detachError = errors.New("no") // or the agent is killed
	if steps, _, err := n.pass(); err == nil {
		t.Fatalf("a pass that cannot detach took the steps %q without an error", steps)
	}
	n.detachError = nil
	n.receive("eth0", 3)
	n.expectSteps("read", "save", "detach eth0")
	if diff := cmp.Diff(map[string]int64{"a": 3}, n.accounts()); diff != "" {
		t.Errorf("accounts (-want +got):\n%s", diff)
	}
}

func TestACacheThatIsBehindIsAnotherTryWithoutAnError(t *testing.T) {
	states := v1alpha1.GroupVersion.WithResource("xdpnodestates").GroupResource()
	for name, err := range map[string]error{
		"the node state was changed": apierrors.NewConflict(states, "n1", errors.New("changed")),
		"the node state is gone":     apierrors.NewNotFound(states, "n1"),
	} {
		n := newNode(t, counter("a"))
		n.saveError = err
		_, result, err := n.pass()
		if err != nil || result.RequeueAfter != followUpDelay {
			t.Errorf("%s: %v, %v, want another try after %v", name, result, err, followUpDelay)
		}
	}
}

func TestWithoutANodeStateEverythingIsDetached(t *testing.T) {
	n := newNode(t, counter("a"))
	n.settle()
	if err := n.client.Delete(t.Context(), n.state()); err != nil {
		t.Fatal(err)
	}
	n.expectSteps("detach eth0")
	n.expectSteps()
}

func TestWhatAnotherNodeStateHasCountedIsNotCountedAgain(t *testing.T) {
	n := newNode(t, counter("a"))
	if err := n.Attach(plan.Attachment{Name: "eth0", Index: 2}); err != nil { // before this node state
		t.Fatal(err)
	}
	n.receive("eth0", 1000)
	n.settle()
	n.receive("eth0", 3)
	n.clock.Step(time.Minute)
	n.settle()
	if diff := cmp.Diff(map[string]int64{"a": 3}, n.accounts()); diff != "" {
		t.Errorf("accounts (-want +got):\n%s", diff)
	}
}

func TestACrashBetweenAttachAndSaveLosesNothing(t *testing.T) {
	n := newNode(t, counter("a"))
	n.expectSteps("read", "save")
	n.saveError = errAPIDown
	if _, _, err := n.pass(); !errors.Is(err, errAPIDown) {
		t.Fatal(err)
	}
	n.receive("eth0", 7)
	n.saveError = nil
	n.agent = &Agent{Client: n.client, Node: "n1", Info: n.agent.Info, Datapath: n, Links: n, Clock: n.clock}
	n.settle()
	if diff := cmp.Diff(map[string]int64{"a": 7}, n.accounts()); diff != "" {
		t.Errorf("accounts (-want +got):\n%s", diff)
	}
}

func TestAStatusEditedByHandIsMendedByTheAgentThatWroteIt(t *testing.T) {
	for name, edit := range map[string]func(*v1alpha1.XDPNodeStateStatus){
		"emptied":          func(s *v1alpha1.XDPNodeStateStatus) { *s = v1alpha1.XDPNodeStateStatus{} },
		"accounts taken":   func(s *v1alpha1.XDPNodeStateStatus) { s.Accounts = nil },
		"readings taken":   func(s *v1alpha1.XDPNodeStateStatus) { s.Interfaces[0].Counts = nil },
		"interfaces taken": func(s *v1alpha1.XDPNodeStateStatus) { s.Interfaces = nil },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, counter("a"))
			n.settle()
			n.receive("eth0", 7)
			n.clock.Step(time.Hour)
			n.settle()
			state := n.state()
			edit(&state.Status)
			if err := n.client.Status().Update(t.Context(), state); err != nil {
				t.Fatal(err)
			}
			n.receive("eth0", 5)
			n.clock.Step(time.Hour)
			n.settle()
			if diff := cmp.Diff(map[string]int64{"a": 12}, n.accounts()); diff != "" {
				t.Errorf("accounts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAMapThatTheKernelHasNoMemoryForIsTriedAgain(t *testing.T) {
	all := counter("a")
	all.Primary, all.Names = false, []string{"eth*"}
	n := newNode(t, all)
	n.refuse["eth0"] = fmt.Errorf("attach eth0: make the map: %w", syscall.ENOMEM)
	n.settle()
	n.receive("eth1", 3)
	type line struct{ Name, State, Reason, Message string }
	lines := func() (lines []line) {
		for _, i := range n.state().Status.Interfaces {
			lines = append(lines, line{i.Name, string(i.State), i.Reason, i.Message})
		}
		return lines
	}
	want := []line{
		{"eth0", "Failed", v1alpha1.ReasonAttachFailed, "attach eth0: make the map: cannot allocate memory; remedy: read the log of the agent; the agent retries"},
		{"eth1", "Attached", "", ""},
	}
	if diff := cmp.Diff(want, lines()); diff != "" {
		t.Errorf("while there is none (-want +got):\n%s", diff)
	}
	delete(n.refuse, "eth0")
	n.clock.Step(time.Minute)
	n.settle()
	n.receive("eth0", 4)
	n.clock.Step(time.Hour)
	n.settle()
	want[0] = line{"eth0", "Attached", "", ""}
	if diff := cmp.Diff(want, lines()); diff != "" {
		t.Errorf("when there is some again (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int64{"a": 7}, n.accounts()); diff != "" {
		t.Errorf("accounts (-want +got):\n%s", diff)
	}
}

func TestOneBadInterfaceDoesNotStopTheOthers(t *testing.T) {
	all := counter("a")
	all.Primary, all.Names = false, []string{"eth*"}
	n := newNode(t, all)
	n.interfaces[1].Hook = plan.Hook{Program: 42, Mode: plan.Native}
	n.refuse["eth0"] = fmt.Errorf("attach eth0: %w", plan.ErrHookInUse)
	n.settle()

	status := n.state().Status
	type line struct{ Name, State, Reason string }
	var got []line
	for _, i := range status.Interfaces {
		got = append(got, line{i.Name, string(i.State), i.Reason})
	}
	want := []line{{"eth0", "Failed", v1alpha1.ReasonXDPHookInUse}, {"eth1", "Attached", ""}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("interfaces (-want +got):\n%s", diff)
	}
	const message = "attach eth0: another XDP program holds the hook; program id 42 is attached in Native mode; remedy: remove " +
		"that program, then counting starts without further action, or exclude the interface; on the node: bpftool net show dev eth0"
	if got := status.Interfaces[0].Message; got != message {
		t.Errorf("message\n%s\nwant\n%s", got, message)
	}
	ready := status.Conditions[0]
	if ready.Reason != v1alpha1.ReasonPartiallyAttached || ready.Message != "1 of 2 interfaces are not counted: eth0 (XDPHookInUse)" {
		t.Errorf("Ready: %s: %s", ready.Reason, ready.Message)
	}
	if slices.ContainsFunc(n.attached, func(a plan.Attachment) bool { return a.Program == 42 }) {
		t.Error("the foreign program was taken for our own")
	}

	delete(n.refuse, "eth0")
	n.interfaces[1].Hook = plan.Hook{}
	n.settle()
	if ready := n.state().Status.Conditions[0]; ready.Status != metav1.ConditionTrue {
		t.Errorf("with the hook free again, Ready is %s: %s", ready.Status, ready.Message)
	}
}

func TestAReportRightAfterAnotherTellsItsRates(t *testing.T) {
	n := newNode(t, counter("a"))
	n.settle()
	n.receive("eth0", 100)
	n.clock.Step(10 * time.Second)
	pass := func() {
		t.Helper()
		if steps, _, err := n.pass(); err != nil || !slices.Contains(steps, "save") {
			t.Fatalf("a pass that was to report made %q, %v", steps, err)
		}
	}
	expect := func(packets, pps int64) {
		t.Helper()
		account := n.state().Status.Accounts[0]
		want := v1alpha1.Counts{{Class: "IPv4/TCP", Packets: packets, Bytes: 100 * packets, PPS: pps, BPS: 800 * pps}}
		if !slices.Equal(account.Counts, want) {
			t.Errorf("the account is %v, want %d packets and %d packets/s of 100 bytes", account, packets, pps)
		}
	}
	pass()
	expect(100, 10)
	n.receive("eth0", 7)
	n.clock.Step(time.Millisecond)
	n.interfaces[1].MTU = 9000 // a change of state
	pass()
	expect(107, 10) // and not 7000
	n.clock.Step(10 * time.Second)
	pass()
	expect(107, 0)
}

func TestAnInterfaceThatVanishesIsReadToItsLastPacket(t *testing.T) {
	n := newNode(t, counter("a"))
	n.settle()
	n.receive("eth0", 9)
	n.interfaces = slices.Delete(n.interfaces, 1, 2)
	n.attached[0].Index = 0
	n.expectSteps("read", "save", "detach eth0")
	n.expectSteps("read", "save")
	if diff := cmp.Diff(map[string]int64{"a": 9}, n.accounts()); diff != "" {
		t.Errorf("accounts (-want +got):\n%s", diff)
	}
	if got := n.state().Status.Interfaces; len(got) != 0 {
		t.Errorf("the interface is still reported: %v", got)
	}
}

func TestFailureMessages(t *testing.T) {
	i := plan.Interface{Name: "eth0", MTU: 9000}
	for want, err := range map[string]error{
		"XDPHookInUse: x: another XDP program holds the hook; remedy: remove that program, then counting starts without further action, or exclude the interface; " +
			"on the node: bpftool net show dev eth0": plan.ErrHookInUse,
		"UpperDeviceHasProgram: x: an interface above this one has an XDP program; remedy: count the interface above and exclude this one, or remove the program above, " +
			"then counting starts without further action; on the node: ip -d link": plan.ErrUpperHasProgram,
		"NativeUnsupported: x: the driver has no native XDP; remedy: use attachMode Auto or Generic; on the node: ethtool -i eth0": plan.ErrNativeUnsupported,
		"NativeRefused: x: the driver refuses native XDP; remedy: use attachMode Auto or Generic; on the node: dmesg":              plan.ErrNativeRefused,
		"MTUTooLarge: x: the MTU is too large for native XDP; the MTU is 9000; remedy: lower the MTU, or use attachMode Auto or Generic; " +
			"on the node: ip link show dev eth0": plan.ErrMTUTooLarge,
		"NotEnoughQueues: x: the queues do not suffice for native XDP; remedy: change the number of queues, or use attachMode Auto or Generic; " +
			"on the node: ethtool -l eth0": plan.ErrNotEnoughQueues,
		"OffloadConflict: x: an offload that is on rules native XDP out; remedy: disable the offload, or use attachMode Auto or Generic; " +
			"on the node: ethtool -k eth0": plan.ErrOffloadConflict,
		"MemberHasProgram: x: a member of the interface has an XDP program; remedy: remove the member's program, " +
			"or use attachMode Auto or Generic; on the node: ip -d link show master eth0": plan.ErrMemberHasProgram,
		"InterfaceNotFound: x: the interface is gone; remedy: none needed: the interface is counted when it is created again": plan.ErrInterfaceGone,
		"PermissionDenied: x: not permitted; remedy: give the agent's container the capabilities BPF, NET_ADMIN and PERFMON, SYS_RESOURCE before Linux 5.11, " +
			"and SYS_ADMIN for coexistence Dispatcher; if it has them, run it with an AppArmor profile or SELinux type that allows bpf and " +
			"writing to the BPF file system; on the node: dmesg | grep -i denied": plan.ErrPermission,
		"BPFFSNotMounted: x: no BPF file system is mounted; remedy: mount the BPF file system on the node; on the node: mount -t bpf bpf /sys/fs/bpf": plan.ErrBPFFSNotMounted,
		"KernelTooOld: x: the kernel has no XDP links (Linux 5.9); remedy: run Linux 5.10 or later on the node, " +
			"or exclude the node by spec.nodeSelector": plan.ErrKernelTooOld,
		"OutOfMemory: x: the kernel has no memory for it; remedy: check the memory of the node and the memory limit of the agent's pod; the agent retries":   plan.ErrOutOfMemory,
		"Pending: x: the counts of an earlier attachment are not saved yet; remedy: wait a few seconds; if it stays, read the log of the agent on that node": plan.ErrPending,
		"AttachFailed: x: no space left; remedy: read the log of the agent; the agent retries":                                                               errors.New("no space left"),
		"DispatcherUnsupported: x: the hook cannot be shared by a dispatcher here; remedy: use coexistence Exclusive if no other XDP program is wanted, " +
			"or exclude the interface": plan.ErrDispatcherRefused,
	} {
		reason, message := failure(fmt.Errorf("x: %w", err), i)
		if got := reason + ": " + message; got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
	const fellBack = "counted in generic mode, because native mode was refused: "
	const retry = "; native mode is tried again when "
	for want, err := range map[string]error{
		"MTUTooLarge: " + fellBack + "the MTU is too large for native XDP; the MTU is 9000" + retry + "the MTU is lowered":           plan.ErrMTUTooLarge,
		"NotEnoughQueues: " + fellBack + "the queues do not suffice for native XDP" + retry + "the number of queues is changed":      plan.ErrNotEnoughQueues,
		"OffloadConflict: " + fellBack + "an offload that is on rules native XDP out" + retry + "the offload is disabled":            plan.ErrOffloadConflict,
		"MemberHasProgram: " + fellBack + "a member of the interface has an XDP program" + retry + "the member's program is removed": plan.ErrMemberHasProgram,
		"NativeUnsupported: " + fellBack + "the driver has no native XDP":                                                            plan.ErrNativeUnsupported,
		"NativeRefused: " + fellBack + "the driver refuses native XDP":                                                               plan.ErrNativeRefused,
	} {
		reason, message := fallback(err, i)
		if got := reason + ": " + message; got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}

// TestRefusedByDriver: the agent asks a driver that refuses less often than it retries other failures.
func TestRefusedByDriver(t *testing.T) {
	for err, want := range map[error]bool{
		plan.ErrNativeUnsupported: true, plan.ErrMTUTooLarge: true, plan.ErrNotEnoughQueues: true, plan.ErrOffloadConflict: true,
		plan.ErrMemberHasProgram: true, plan.ErrNativeRefused: true,
		plan.ErrHookInUse: false, plan.ErrOutOfMemory: false, plan.ErrPermission: false, errors.New("other"): false,
	} {
		if got := refusedByDriver(err); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}

func TestADriverThatRefusesIsNotAskedAtEveryPass(t *testing.T) {
	wants := counter("a")
	wants.AttachMode = v1alpha1.AttachNative
	n := newNode(t, wants)
	quiet, asked, told := []string{"read"}, []string{"attach eth0 refused", "read"}, []string{"attach eth0 refused", "read", "save"}
	n.refuse["eth0"] = fmt.Errorf("attach eth0: %w", plan.ErrNotEnoughQueues)
	n.settle()
	for _, step := range []struct {
		why    string
		change func()
		want   []string
	}{
		{"the next pass does not ask again", func() {}, quiet},
		{"nor one a little later", func() { n.clock.Step(time.Second) }, quiet},
		{"but after a while", func() { n.clock.Step(driverRetryInterval) }, asked},
		{"and when the MTU has changed", func() { n.interfaces[1].MTU = 1400 }, told},
		{"for a hook that is in use it is asked in every pass", func() {
			n.refuse["eth0"] = fmt.Errorf("attach eth0: %w", plan.ErrHookInUse)
			n.clock.Step(driverRetryInterval)
		}, told},
		{"as this", func() {}, asked},
	} {
		step.change()
		steps, _, err := n.pass()
		if diff := cmp.Diff(step.want, steps); diff != "" || err != nil {
			t.Errorf("%s: error %v, steps (-want +got):\n%s", step.why, err, diff)
		}
	}
}

func TestHealthFollowsThePasses(t *testing.T) {
	n := newNode(t, counter("a"))
	if n.agent.Ready(nil) == nil {
		t.Error("ready before the first pass")
	}
	n.saveError = errAPIDown
	if _, _, err := n.pass(); err == nil || n.agent.Ready(nil) == nil {
		t.Error("ready after a pass that failed")
	}
	n.saveError = nil
	n.settle()
	if err := n.agent.Ready(nil); err != nil {
		t.Errorf("not ready after a pass: %v", err)
	}
	n.clock.Step(time.Minute + 2*resyncInterval)
	if err := n.agent.Alive(nil); err != nil {
		t.Errorf("dead within a minute and two of its waits: %v", err)
	}
	n.clock.Step(time.Second)
	if err := n.agent.Alive(nil); err == nil || !strings.Contains(err.Error(), "1m5s ago") {
		t.Errorf("a stuck agent says of its health: %v", err)
	}
}

func TestMapperKnowsTheNodeStateWithoutAnAPIServer(t *testing.T) {
	m, err := Mapper(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	mapping, err := m.RESTMapping(schema.GroupKind{Group: v1alpha1.GroupVersion.Group, Kind: "XDPNodeState"}, "v1alpha1")
	if err != nil || mapping.Resource.Resource != "xdpnodestates" || mapping.Scope.Name() != meta.RESTScopeNameRoot {
		t.Errorf("mapping %+v, error %v", mapping, err)
	}
}
