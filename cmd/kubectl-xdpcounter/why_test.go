// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/golden"
)

// hookInUse is the cause that the agent reports; the message has the remedy of the table behind it.
const hookInUse = "attach eth0: another XDP program holds the hook, id 7: device or resource busy; program id 7 is attached in Native mode"

// fails sets the state of an interface of the node to Failed.
func fails(s v1alpha1.XDPNodeState, i int, reason, message string) v1alpha1.XDPNodeState {
	s.Status.Interfaces[i].State, s.Status.Interfaces[i].Mode = v1alpha1.InterfaceFailed, ""
	s.Status.Interfaces[i].Reason, s.Status.Interfaces[i].Message = reason, message
	return s
}

// omitting adds the numbers of interfaces that the node state does not list.
func omitting(s v1alpha1.XDPNodeState, numbers v1alpha1.OmittedInterfaces) v1alpha1.XDPNodeState {
	s.Status.OmittedInterfaces = append(s.Status.OmittedInterfaces, numbers)
	return s
}

// slowed adds features that the attach has switched off to an interface of the node.
func slowed(s v1alpha1.XDPNodeState, i int, off ...v1alpha1.SwitchedOffFeatures) v1alpha1.XDPNodeState {
	s.Status.Interfaces[i].SwitchedOff = off
	return s
}

func TestWhy(t *testing.T) {
	c := aCounter("workers", traffic.Totals{})
	other := aCounter("other", traffic.Totals{})
	is := func(status metav1.ConditionStatus, reason, message string, change func(*v1alpha1.XDPCounter)) v1alpha1.XDPCounter {
		c := aCounter("workers", traffic.Totals{})
		withReady(&c, status, reason, message)
		if change != nil {
			change(&c)
		}
		return c
	}
	node := func(name string) v1alpha1.XDPNodeState { return aNode(name, -3*time.Second, traffic.Totals{}, c) }
	silent := aNode("n4", -time.Hour, traffic.Totals{}, c)
	never := aNode("n5", 0, traffic.Totals{}, c)
	never.Status = v1alpha1.XDPNodeStateStatus{}
	slow := node("n6")
	slow.Spec.Counters[0].Generation, slow.Status.Accounts = 1, nil
	none := node("n7")
	none.Status.Interfaces = nil
	leaving := node("n8")
	leaving.Status.Interfaces[1].State, leaving.Status.Interfaces[1].Name = v1alpha1.InterfaceDetaching, ""
	inactive := fails(node("n9"), 0, v1alpha1.ReasonAttachFailed, "of a counter that no longer selects this node")
	inactive.Spec.Counters[0].Inactive = true

	aggregation := func(name string) v1alpha1.SwitchedOffFeatures {
		return v1alpha1.SwitchedOffFeatures{Interface: name, Features: []string{"rx-gro-hw", "rx-lro"}}
	}
	for name, test := range map[string]struct {
		counter v1alpha1.XDPCounter
		states  []v1alpha1.XDPNodeState
		ready   bool
	}{
		"ready": {c, []v1alpha1.XDPNodeState{node("n1"), node("n2"), aNode("n3", -time.Hour, traffic.Totals{}, other)}, true},
		"many kinds of failures": {
			is(metav1.ConditionFalse, v1alpha1.ReasonPartiallyAttached, "7 of 9 nodes have failures: n3/eth0 (XDPHookInUse), n4 (AgentNotReporting), n5 (AgentNotReporting) and 4 more", func(c *v1alpha1.XDPCounter) {
				c.Status.Nodes.Selected = 11
				c.Spec.Interfaces = &v1alpha1.InterfaceSelector{Primary: true, Names: []v1alpha1.InterfacePattern{"ens*"}, Exclude: []v1alpha1.InterfacePattern{"ens9"}}
			}),
			[]v1alpha1.XDPNodeState{
				node("n2"), node("n1"), inactive, leaving, none, slow, never, silent,
				fails(node("n3"), 0, v1alpha1.ReasonXDPHookInUse, v1alpha1.FailureMessage(v1alpha1.ReasonXDPHookInUse, hookInUse, "eth0")),
				fails(fails(node("n3b"), 0, v1alpha1.ReasonNativeUnsupported, v1alpha1.FailureMessage(v1alpha1.ReasonNativeUnsupported, "attach eth0: the driver has no native XDP: operation not supported", "eth0")), 1, v1alpha1.ReasonXDPHookInUse, ""),
			}, false,
		},
		"interfaces that are not listed": {
			is(metav1.ConditionFalse, v1alpha1.ReasonPartiallyAttached, "1 of 1 node has failures: n1/eth0 (XDPHookInUse) and 3900 more", func(c *v1alpha1.XDPCounter) { c.Status.Nodes.Selected = 1 }),
			[]v1alpha1.XDPNodeState{omitting(fails(node("n1"), 0, v1alpha1.ReasonXDPHookInUse, hookInUse), v1alpha1.OmittedInterfaces{UID: c.UID, Failed: 3850, Pending: 50, Skipped: 7})}, false,
		},
		"switched off features": {
			c,
			[]v1alpha1.XDPNodeState{
				slowed(node("n1"), 0, aggregation("eth0")), slowed(node("n2"), 0, aggregation("eth0")), slowed(node("n3"), 0, aggregation("eth0")),
				slowed(slowed(node("n4"), 0, aggregation("eth0")), 1, v1alpha1.SwitchedOffFeatures{Interface: "v1", Features: []string{"tx-tcp-segmentation", "tx-udp-segmentation"}}),
				slowed(aNode("n5", -time.Second, traffic.Totals{}, other), 0, aggregation("of-another-counter")),
			}, true,
		},
		"switched off features and a failure": {
			is(metav1.ConditionFalse, v1alpha1.ReasonPartiallyAttached, "1 of 1 node has failures: n1/eth0 (XDPHookInUse)", func(c *v1alpha1.XDPCounter) { c.Status.Nodes.Selected = 1 }),
			[]v1alpha1.XDPNodeState{slowed(slowed(fails(node("n1"), 0, v1alpha1.ReasonXDPHookInUse, hookInUse), 0, aggregation("not-attached")), 1, aggregation("eth1.100é-abcde"))}, false,
		},
		"suspended":                        {is(metav1.ConditionTrue, v1alpha1.ReasonSuspended, "counting is suspended; the totals are kept", func(c *v1alpha1.XDPCounter) { c.Spec.Suspend = true }), []v1alpha1.XDPNodeState{silent}, true},
		"no controller":                    {is(metav1.ConditionUnknown, v1alpha1.ReasonPending, "Waiting for the controller", func(c *v1alpha1.XDPCounter) { c.Status.ObservedGeneration, c.Status.Nodes = 0, nil }), nil, false},
		"outdated status":                  {is(metav1.ConditionTrue, v1alpha1.ReasonAllInterfacesAttached, "2 interfaces are being counted on 1 node", func(c *v1alpha1.XDPCounter) { c.Generation = 3 }), []v1alpha1.XDPNodeState{node("n1")}, false},
		"node state newer than the status": {c, []v1alpha1.XDPNodeState{node("n1"), silent}, true},
		"unreachable node": {
			is(metav1.ConditionFalse, v1alpha1.ReasonPartiallyAttached, "2 of 3 nodes have failures: n2 (NodeUnreachable), n3 (NodeUnreachable)", func(c *v1alpha1.XDPCounter) {
				c.Status.Nodes.Selected = 3
				for name, since := range map[string]string{"n2": "11:58:50", "n3": "11:57:50"} {
					c.Status.Failures = append(c.Status.Failures, v1alpha1.Failure{
						Node: name, Reason: v1alpha1.ReasonNodeUnreachable,
						Message: v1alpha1.FailureMessage(v1alpha1.ReasonNodeUnreachable, "the node has been unreachable since 2026-11-20T"+since+"Z", ""),
					})
				}
			}),
			[]v1alpha1.XDPNodeState{
				node("n1"),
				aNode("n2", -75*time.Second, traffic.Totals{}, c),  // its report is not late yet
				aNode("n3", -140*time.Second, traffic.Totals{}, c), // its report is late
			}, false,
		},
		"no node selected": {is(metav1.ConditionFalse, v1alpha1.ReasonNoNodesSelected, "spec.nodeSelector selects no node", func(c *v1alpha1.XDPCounter) {
			c.Status.Nodes.Selected = 0
			c.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"pool": "edge"}}
		}), nil, false},
		"unknown reason": {is(metav1.ConditionFalse, v1alpha1.ReasonNothingAttached, "1 of 1 node has failures: n1/eth0 (Quantum)", func(c *v1alpha1.XDPCounter) { c.Status.Nodes.Selected = 1 }), []v1alpha1.XDPNodeState{fails(node("n1"), 0, "Quantum", "entangled")}, false},
		"no status":      {v1alpha1.XDPCounter{ObjectMeta: metav1.ObjectMeta{Name: "bare", Generation: 1}}, nil, false},
		"uninstalled":    {is(metav1.ConditionUnknown, v1alpha1.ReasonUninstalled, "xdp-operator was uninstalled; the totals are kept", func(c *v1alpha1.XDPCounter) { c.Status.Nodes.Selected = 0 }), nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			var text strings.Builder
			for _, columns := range []int{0, 60, 80, 120} {
				d := diagnose(&test.counter, test.states, noon)
				if d.ready != test.ready {
					t.Errorf("ready is %v", d.ready)
				}
				lines := d.lines(&test.counter, "monitoring", columns)
				fmt.Fprintf(&text, "== %d columns\n%s\n", columns, strings.Join(lines, "\n"))
			}
			golden.Check(t, "testdata/why "+name+".txt", text.String())
		})
	}
}

// The name of an interface can have characters that a terminal executes, or that a shell does if a command is copied.
func TestWhyEscapesNames(t *testing.T) {
	c := aCounter("workers", traffic.Totals{})
	for name, want := range map[string]string{"eth0": "eth0", "a\x1b[31m": `a\x1b[31m`, "a;reboot": "a;reboot"} {
		s := fails(aNode("n1", -time.Second, traffic.Totals{}, c), 0, v1alpha1.ReasonXDPHookInUse, "attach "+name+": busy")
		s.Status.Interfaces[0].Name = name
		d := diagnose(&c, []v1alpha1.XDPNodeState{s}, noon)
		text := strings.Join(d.lines(&c, "", 0), "\n")
		if strings.Contains(text, "\x1b") || !strings.Contains(text, want+"  XDPHookInUse") || !strings.Contains(text, "attach "+want) {
			t.Errorf("%q is printed as\n%q", name, text)
		}
		commands := 0
		for line := range strings.Lines(text) {
			if strings.Contains(line, command) {
				commands++
				if name != "eth0" && strings.Contains(line, want) {
					t.Errorf("%q is part of a command: %s", name, line)
				}
			}
		}
		if commands == 0 {
			t.Error("no command is printed")
		}
	}
}

func TestTreeEscapesTextsAndCommands(t *testing.T) {
	b := branch{text: "a\x1b", details: []string{"b\x1b", command + "c\x1b"}, branches: []branch{{text: "d\x1b"}}}
	want := []string{`a\x1b`, `│  b\x1b`, `│  $ c\x1b`, `└─ d\x1b`}
	if got := b.lines(0); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestOneRemedyPerFailure: neither a message in the tree nor the list of what to do repeats a remedy.
func TestOneRemedyPerFailure(t *testing.T) {
	c := aCounter("workers", traffic.Totals{})
	for _, r := range v1alpha1.Reasons() {
		if r.Remedy == "" || r.Scope == v1alpha1.ScopeCounter {
			continue
		}
		d := diagnose(&c, []v1alpha1.XDPNodeState{fails(aNode("n1", -time.Second, traffic.Totals{}, c), 0, r.Reason, v1alpha1.FailureMessage(r.Reason, "the cause", "eth0"))}, noon)
		text := strings.Join(d.lines(&c, "monitoring", 0), "\n")
		for _, once := range []string{"the cause", sentence(r.Remedy)} {
			if strings.Count(text, once) != 1 {
				t.Errorf("%s: %q is not printed once:\n%s", r.Reason, once, text)
			}
		}
		if strings.Contains(text, "remedy: ") || strings.ContainsAny(strings.ReplaceAll(text, `'{"spec":{"attachMode":"Auto"}}'`, ""), "{}") {
			t.Errorf("%s: a placeholder, or the remedy in the tree:\n%s", r.Reason, text)
		}
	}
}

// TestCommandsWithANamespace: the log command works for a release in any namespace.
func TestCommandsWithANamespace(t *testing.T) {
	c := aCounter("workers", traffic.Totals{})
	c.Status.Nodes.Selected = 1
	withReady(&c, metav1.ConditionFalse, v1alpha1.ReasonPartiallyAttached, "1 of 1 nodes have failures: n1/eth0 (AttachFailed)")
	d := diagnose(&c, []v1alpha1.XDPNodeState{fails(aNode("n1", -time.Second, traffic.Totals{}, c), 0, v1alpha1.ReasonAttachFailed, "x")}, noon)
	if !d.needsNamespace() {
		t.Error("it needs no namespace")
	}
	for namespace, want := range map[string]string{
		"monitoring": `      Read the log of the agent; the agent retries.
      $ kubectl logs -n monitoring -l app.kubernetes.io/name=xdp-operator,app.kubernetes.io/component=agent --prefix --tail=20`,
		"": `      Read the log of the agent; the agent retries.
      The first command shows the NAMESPACE for the second:
      $ kubectl get daemonsets -A -l app.kubernetes.io/name=xdp-operator
      $ kubectl logs -n NAMESPACE -l app.kubernetes.io/name=xdp-operator,app.kubernetes.io/component=agent --prefix --tail=20`,
	} {
		if text := strings.Join(d.lines(&c, namespace, 0), "\n"); !strings.Contains(text, want) {
			t.Errorf("namespace %q:\n%s", namespace, text)
		}
	}
}
