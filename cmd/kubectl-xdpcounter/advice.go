// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// hasOwnRemedy has the reasons of an XDPCounter's Ready condition whose remedy is about the XDPCounter. The other reasons
// of that condition follow from nodes and interfaces, which have reasons of their own.
var hasOwnRemedy = map[string]bool{
	v1alpha1.ReasonUninstalled:         true,
	v1alpha1.ReasonInvalidNodeSelector: true,
	v1alpha1.ReasonNoNodesSelected:     true,
}

const listControllerPods = "kubectl get pods -A -l " + v1alpha1.ControllerPodLabels

// ownReasons are the reasons that only this program uses. All others are in the table of the API.
var ownReasons = map[string]v1alpha1.ReasonInfo{
	notSeen:     {Remedy: "check that the controller runs", Kubectl: listControllerPods},
	noNodeState: {Remedy: "wait a few seconds; if it stays, check that the controller runs", Kubectl: listControllerPods},
	behind:      {Remedy: "wait a few seconds; if it stays, check that the controller runs", Kubectl: listControllerPods},
}

// remedyOf returns what to do about a reason, also about one that this version does not know.
func remedyOf(reason string) v1alpha1.ReasonInfo {
	if own, ok := ownReasons[reason]; ok {
		return own
	}
	if r := v1alpha1.LookupReason(reason); r.Reason != "" {
		return r
	}
	return v1alpha1.ReasonInfo{Remedy: "see the status", Kubectl: "kubectl describe xdpcounter {counter}"}
}

// namespaceHint is the command that lists the namespace of the agents' pods, for users who have to fill it in.
const namespaceHint = "kubectl get daemonsets -A -l app.kubernetes.io/name=xdp-operator"

// namespaceUnknown stands for the namespace of the agents' pods in a command, where the namespace is not known.
const namespaceUnknown = "NAMESPACE"

// needsNamespace reports whether a command that whatToDo prints has the namespace of the agents' pods in it.
func (d diagnosis) needsNamespace() bool {
	for reason := range d.reasons {
		if strings.Contains(remedyOf(reason).Kubectl, "{namespace}") {
			return true
		}
	}
	return false
}

// whatToDo returns a tree with one remedy per reason, nil if there is nothing to do. namespace is that of the agents'
// pods, "" if it is not known.
func (d diagnosis) whatToDo(c *v1alpha1.XDPCounter, namespace string) *branch {
	todo := branch{text: "What to do"}
	for _, reason := range slices.Sorted(maps.Keys(d.reasons)) {
		r, found := remedyOf(reason), d.reasons[reason]
		fill := strings.NewReplacer("{counter}", c.Name, "{interface}", found.iface(), "{namespace}", namespace)
		b := branch{text: reason, details: []string{sentence(r.Remedy)}}
		if reason == v1alpha1.ReasonNoNodesSelected {
			b.details = append(b.details, "spec.nodeSelector is "+metav1.FormatLabelSelector(c.Spec.NodeSelector))
		}
		if strings.Contains(r.Kubectl, "{namespace}") && namespace == "" {
			b.details = append(b.details, "The first command shows the NAMESPACE for the second:", command+namespaceHint)
			fill = strings.NewReplacer("{counter}", c.Name, "{namespace}", namespaceUnknown)
		}
		if r.Kubectl != "" {
			b.details = append(b.details, command+fill.Replace(r.Kubectl))
		}
		if r.OnNode != "" {
			b.details = append(b.details, "On the node:", command+fill.Replace(r.OnNode))
		}
		if found.count > 1 {
			b.text = fmt.Sprintf("%s (%d)", reason, found.count)
		}
		todo.branches = append(todo.branches, b)
	}
	if len(todo.branches) == 0 {
		return nil
	}
	return &todo
}

// sentence makes a sentence of a clause.
func sentence(clause string) string {
	if clause == "" {
		return ""
	}
	return strings.ToUpper(clause[:1]) + clause[1:] + "."
}
