// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xdp-operator/xdp-operator/agent/plan"
)

func TestStateChangesWithoutEndAreReportedAtALimitedRate(t *testing.T) {
	all := counter("a")
	all.Primary, all.Names = false, []string{"eth*"}
	n := newNode(t, all)
	n.settle()
	const rounds, step = 200, 50 * time.Millisecond
	began, saves, unsaved := n.clock.Now(), 0, 0
	pass := func() {
		steps, result, err := n.pass()
		if err != nil || result.RequeueAfter > resyncInterval {
			t.Fatalf("%v, the next pass in %v", err, result.RequeueAfter)
		}
		saved := slices.Contains(steps, "save")
		if saved {
			saves++
		}
		for _, s := range steps {
			if strings.HasPrefix(s, "detach ") && !saved {
				t.Fatalf("%s, in a pass that saved nothing: %v", s, steps)
			}
			if strings.HasPrefix(s, "attach ") && !saved {
				unsaved++
			}
		}
		n.clock.Step(step)
	}
	for i := range rounds {
		name := fmt.Sprintf("eth%d", 10+i)
		n.interfaces = append(n.interfaces, plan.Interface{Name: name, Index: 10 + i})
		pass()
		if !slices.ContainsFunc(n.attached, func(a plan.Attachment) bool { return a.Pin == name }) {
			t.Fatalf("%s is not attached in the pass that finds it", name)
		}
		n.receive("eth1", 1)
		n.receive(name, 10) // gone before it is reported, as a rule
		n.interfaces = slices.DeleteFunc(n.interfaces, func(i plan.Interface) bool { return i.Name == name })
		pass()
	}
	took := n.clock.Since(began)
	if most := reportBurst + int(took/reportPause); saves > most || unsaved == 0 {
		t.Errorf("%d reports in %v, want at most %d; %d interfaces were attached before the limiter let them be reported", saves, took, most, unsaved)
	}
	n.clock.Step(time.Minute)
	n.settle()
	if got := n.accounts()["a"]; got != 11*rounds {
		t.Errorf("%d packets are counted of the %d that were received", got, 11*rounds)
	}
	if len(n.attached) != 2 { // eth0 and eth1
		t.Errorf("attached are %v", n.attached)
	}
}

// An interface that is gone when it is attached is no failure of an interface that is there.
func TestInterfaceThatVanishesDuringAttachIsNotReported(t *testing.T) {
	n := newNode(t, counter("a"))
	n.settle()
	n.interfaces = append(n.interfaces, plan.Interface{Name: "eth2", Index: 9, Primary: true})
	n.refuse["eth2"] = fmt.Errorf("it went: %w", plan.ErrInterfaceGone)
	n.agent.Links = leaving{n}
	steps, _, err := n.pass()
	if err != nil || !slices.Contains(steps, "attach eth2 refused") {
		t.Fatalf("%v, %v", steps, err)
	}
	if slices.Contains(steps, "save") {
		t.Errorf("a report was written of an interface that is gone: %v", n.state().Status.Interfaces)
	}
}

// leaving lists the interfaces; the last one goes when they have been listed.
type leaving struct{ n *node }

func (l leaving) List() ([]plan.Interface, error) { return l.n.List() }

func (l leaving) Primary() (map[int]bool, error) {
	primary, err := l.n.Primary()
	l.n.agent.Links = l.n
	l.n.interfaces = l.n.interfaces[:len(l.n.interfaces)-1]
	return primary, err
}

func (l leaving) HasSCTP() bool         { return false }
func (l leaving) DecryptsTunnels() bool { return l.n.DecryptsTunnels() }
