package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// forWhole holds the reasons of an XDPCounter's Ready condition that say by themselves what to do. Behind the others are
// nodes and interfaces, whose reasons do.
var forWhole = map[string]bool{
	v1alpha1.ReasonUninstalled:         true,
	v1alpha1.ReasonInvalidNodeSelector: true,
	v1alpha1.ReasonNoNodesSelected:     true,
}

const (
	controllerPods = "kubectl get pods -A -l app.kubernetes.io/name=xdp-operator,app.kubernetes.io/component=controller"
	agentPods      = "kubectl get pods -A -o wide -l app.kubernetes.io/name=xdp-operator,app.kubernetes.io/component=agent"
	agentLogs      = "kubectl logs -n xdp-operator-system -l app.kubernetes.io/component=agent --prefix --tail=20"
	edit           = "kubectl edit xdpcounter {counter}"
	patchAuto      = `kubectl patch xdpcounter {counter} --type=merge -p '{"spec":{"attachMode":"Auto"}}'`
)

// step is what to do about a reason. In the command {counter} is the name of the counter, {nodes} its selector of nodes.
type step struct {
	text    string
	command string // "": none
}

var advice = map[string]step{
	v1alpha1.ReasonXDPHookInUse:          {"Another XDP program holds the interface, and is left alone. Counting starts by itself when it goes. Or take the interface out by spec.interfaces.exclude. On the node, this names the program:", "bpftool net show"},
	v1alpha1.ReasonNativeUnsupported:     {"The driver has no native XDP. This lets it count in generic mode there:", patchAuto},
	v1alpha1.ReasonMTUTooLarge:           {"The driver's native XDP does not take so large an MTU. Lower it, or let it count in generic mode there:", patchAuto},
	v1alpha1.ReasonInterfaceNotFound:     {"The interface went away. If it comes back it is counted by itself.", ""},
	v1alpha1.ReasonPermissionDenied:      {"The agent needs the capabilities BPF, NET_ADMIN and PERFMON, and on a kernel before 5.11 SYS_RESOURCE, which is agent.capabilities.sysResource of the chart. Something may have taken them from its pod:", agentPods},
	v1alpha1.ReasonBPFFSNotMounted:       {"On the node, mount the BPF file system:", "mount -t bpf bpf /sys/fs/bpf"},
	v1alpha1.ReasonKernelTooOld:          {"The node needs Linux 5.10 or later. Or leave it out by spec.nodeSelector:", edit},
	v1alpha1.ReasonNodeUnreachable:       {"The cluster hears nothing from the node. What its interfaces count is reported when it is back. See what is known of it:", "kubectl get nodes -o wide"},
	v1alpha1.ReasonUpperDeviceHasProgram: {"An interface above this one (a bond, a bridge, a VLAN) has an XDP program. Count that one, or take this one out by spec.interfaces.exclude:", edit},
	v1alpha1.ReasonMemberHasProgram:      {"A member of the bond has an XDP program. Count the members, or let it count in generic mode there:", patchAuto},
	v1alpha1.ReasonNotEnoughQueues:       {"The driver wants other numbers of queues for native XDP, which the message names (ethtool -L). Or let it count in generic mode there:", patchAuto},
	v1alpha1.ReasonOffloadConflict:       {"An offload is on that the driver does not combine with native XDP, which the message names (ethtool -K). Or let it count in generic mode there:", patchAuto},
	v1alpha1.ReasonNativeRefused:         {"The driver refuses native XDP for the reason in the message. Or let it count in generic mode there:", patchAuto},
	v1alpha1.ReasonOutOfMemory:           {"The node had no memory for it; the agent tries again by itself. See the limits of its pod:", agentPods},
	v1alpha1.ReasonNoEthernet:            {"The packets of the interface have no Ethernet header. Take it out by spec.interfaces.exclude, and select the one through which they come:", edit},
	v1alpha1.ReasonDispatcherUnsupported: {"The hook cannot be shared there, for the reason in the message. Ask for spec.coexistence Exclusive, or take the interface out by spec.interfaces.exclude:", edit},
	v1alpha1.ReasonModeConflict:          {"An older XDPCounter has the interface in another mode. Ask for the same spec.attachMode, or take the interface out by spec.interfaces.exclude:", edit},
	v1alpha1.ReasonAttachFailed:          {"The message holds the kernel's error; the agent tries again by itself. Its log may tell more:", agentLogs},
	v1alpha1.ReasonAgentNotReporting:     {"See whether the agent's pod runs on the node:", agentPods},
	v1alpha1.ReasonPending:               {"It takes seconds. If it stays, see what the agent does:", agentLogs},
	v1alpha1.ReasonNoInterfacesMatched:   {"Change spec.interfaces, or leave the node out by spec.nodeSelector:", edit},
	v1alpha1.ReasonNoNodesSelected:       {"No node has the labels {nodes}. This shows those that there are:", "kubectl get nodes --show-labels"},
	v1alpha1.ReasonInvalidNodeSelector:   {"Mend spec.nodeSelector:", edit},
	v1alpha1.ReasonUninstalled:           {"Install xdp-operator again; it counts on from the totals.", ""},
	notSeen:                              {"See whether the controller runs:", controllerPods},
	noNodeState:                          {"The controller tells them within seconds. If it does not, see whether it runs:", controllerPods},
	behind:                               {"The controller notes it within seconds. If it does not, see whether it runs:", controllerPods},
}

// forUnknown is for a reason that this version does not know.
var forUnknown = step{"This shows all that is known:", "kubectl describe xdpcounter {counter}"}

// whatToDo returns a tree with what to do, nil if nothing is.
func whatToDo(c *v1alpha1.XDPCounter, reasons map[string]int) *branch {
	todo := branch{text: "What to do"}
	fill := strings.NewReplacer("{counter}", c.Name, "{nodes}", metav1.FormatLabelSelector(c.Spec.NodeSelector))
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		todoFor, ok := advice[reason]
		if !ok {
			todoFor = forUnknown
		}
		b := branch{text: reason, details: []string{fill.Replace(todoFor.text)}}
		if todoFor.command != "" {
			b.details = append(b.details, command+fill.Replace(todoFor.command))
		}
		if n := reasons[reason]; n > 1 {
			b.text = fmt.Sprintf("%s (%d)", reason, n)
		}
		todo.branches = append(todo.branches, b)
	}
	if len(todo.branches) == 0 {
		return nil
	}
	return &todo
}
