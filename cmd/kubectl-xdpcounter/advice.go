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
)

// advice says what to do about a reason. {counter} is its name, {nodes} its selector of nodes.
var advice = map[string]string{
	v1alpha1.ReasonXDPHookInUse:        "another XDP program holds the interface, and is left alone. On the node, bpftool net show dev INTERFACE names it. Counting starts by itself when it goes. Or take the interface out by spec.interfaces.exclude.",
	v1alpha1.ReasonNativeUnsupported:   "the driver has no native XDP. Let it count in generic mode there: " + patchAuto,
	v1alpha1.ReasonMTUTooLarge:         "the driver's native XDP does not take so large an MTU. Lower it, or let it count in generic mode there: " + patchAuto,
	v1alpha1.ReasonInterfaceNotFound:   "the interface went away. If it comes back it is counted by itself.",
	v1alpha1.ReasonPermissionDenied:    "the agent needs the capabilities BPF, NET_ADMIN and PERFMON, and SYS_RESOURCE on a kernel before 5.11: agent.capabilities.sysResource of the chart. Something may have taken them from its pod: " + agentPods,
	v1alpha1.ReasonBPFFSNotMounted:     "mount the BPF file system on the node: mount -t bpf bpf /sys/fs/bpf",
	v1alpha1.ReasonKernelTooOld:        "the node needs Linux 5.10 or later. Or leave it out by spec.nodeSelector.",
	v1alpha1.ReasonModeConflict:        "an older XDPCounter has the interface in another mode. Ask for the same spec.attachMode, or take the interface out by spec.interfaces.exclude: kubectl get xdpcounters -o wide",
	v1alpha1.ReasonAttachFailed:        "the message holds the kernel's error; the agent tries again by itself. Its log may tell more: " + agentLogs,
	v1alpha1.ReasonAgentNotReporting:   "see whether the agent's pod runs on the node: " + agentPods + " --field-selector spec.nodeName=NODE",
	v1alpha1.ReasonPending:             "it takes seconds. If it stays, see what the agent does: " + agentLogs,
	v1alpha1.ReasonNoInterfacesMatched: "no interface of the node is selected: ip -br link shows its interfaces there. Change spec.interfaces, or leave the node out by spec.nodeSelector: kubectl edit xdpcounter {counter}",
	v1alpha1.ReasonNoNodesSelected:     "no node has these labels: kubectl get nodes -l '{nodes}'. kubectl get nodes --show-labels shows those that there are.",
	v1alpha1.ReasonInvalidNodeSelector: "mend spec.nodeSelector: kubectl edit xdpcounter {counter}",
	v1alpha1.ReasonUninstalled:         "install xdp-operator again; it counts on from the totals.",
	notSeen:                            "see whether the controller runs: " + controllerPods,
	noNodeState:                        "the controller tells them within seconds. If it does not, see whether it runs: " + controllerPods,
	behind:                             "the controller notes it within seconds. If it does not, see whether it runs: " + controllerPods,
}

const patchAuto = `kubectl patch xdpcounter {counter} --type=merge -p '{"spec":{"attachMode":"Auto"}}'`

// whatToDo returns a tree with what to do, nil if nothing is.
func whatToDo(c *v1alpha1.XDPCounter, reasons map[string]int) *branch {
	todo := branch{text: "What to do"}
	fill := strings.NewReplacer("{counter}", c.Name, "{nodes}", metav1.FormatLabelSelector(c.Spec.NodeSelector))
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		text, ok := advice[reason]
		if !ok {
			text = "kubectl describe xdpcounter {counter} shows all that is known"
		}
		b := branch{text: reason, details: []string{fill.Replace(text)}}
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
