package agent

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// announce lets the notice tell of these counters.
func (n *node) announce(counters ...v1alpha1.NodeCounter) {
	n.t.Helper()
	notice := &v1alpha1.XDPNotice{}
	notice.Name, notice.Generation, notice.Spec.Counters = v1alpha1.NoticeName, 2, counters
	if err := n.client.Create(n.t.Context(), notice); err != nil {
		n.t.Fatal(err)
	}
}

// second is a counter of eth1 that follows the given generation.
func second(generation int64) v1alpha1.NodeCounter {
	c := counter("b")
	c.Generation, c.Primary, c.Names = generation, false, []string{"eth1"}
	return c
}

func TestWhatANoticeTellsIsDoneAtOnceAndReportedWithTheSpecThatFollows(t *testing.T) {
	n := newNode(t, counter("a"))
	n.settle()
	n.clock.Step(time.Second)
	n.announce(second(1))
	n.expectSteps("attach eth1", "read")
	n.receive("eth1", 3)
	n.clock.Step(time.Second)
	n.expectSteps("read")

	n.edit(func(s *v1alpha1.XDPNodeState) { s.Spec.Counters = append(s.Spec.Counters, second(1)) })
	n.expectSteps("read", "save")
	n.expectSteps("read")
	if diff := cmp.Diff(map[string]int64{"a": 0, "b": 3}, n.accounts()); diff != "" {
		t.Errorf("accounts (-want +got):\n%s", diff)
	}
}

func TestWhatANoticeTellsIsReportedAtTheNodesTurnIfNoSpecFollows(t *testing.T) {
	n := newNode(t, counter("a"))
	n.settle()
	n.announce(second(1))
	n.expectSteps("attach eth1", "read")
	n.receive("eth1", 3)
	n.clock.Step(10 * time.Second)
	n.expectSteps("read", "save")
	if diff := cmp.Diff(map[string]int64{"a": 0, "b": 3}, n.accounts()); diff != "" {
		t.Errorf("accounts (-want +got):\n%s", diff)
	}
}

func TestNothingIsDetachedBecauseOfANoticeBeforeItIsReported(t *testing.T) {
	n := newNode(t, counter("a"))
	n.settle()
	n.receive("eth0", 5)
	suspended := counter("a")
	suspended.Generation, suspended.Inactive = 2, true
	n.announce(suspended)
	n.expectSteps("read")
	n.receive("eth0", 2)
	n.edit(func(s *v1alpha1.XDPNodeState) { s.Spec.Counters[0] = suspended })
	n.expectSteps("read", "save", "detach eth0")
	n.settle()
	if diff := cmp.Diff(map[string]int64{"a": 7}, n.accounts()); diff != "" {
		t.Errorf("accounts (-want +got):\n%s", diff)
	}
}

func TestWhichOfSpecAndNoticeIsRight(t *testing.T) {
	inactive := func(generation int64) []v1alpha1.NodeCounter {
		return []v1alpha1.NodeCounter{{Name: "b", UID: "b", Generation: generation, Inactive: true}}
	}
	for name, tc := range map[string]struct {
		spec, notice []v1alpha1.NodeCounter
		takenIn      int64    // the generation of the notice that the spec takes in; it has the second
		want         []string // interfaces that are attached
	}{
		"the spec, without a notice": {spec: []v1alpha1.NodeCounter{counter("a")}, want: []string{"eth0"}},
		"the notice, of a counter that the spec does not have": {
			spec: []v1alpha1.NodeCounter{counter("a")}, notice: []v1alpha1.NodeCounter{second(1)}, takenIn: 1, want: []string{"eth0", "eth1"},
		},
		"the notice, if it follows a higher generation": {spec: inactive(1), notice: []v1alpha1.NodeCounter{second(2)}, want: []string{"eth1"}},
		"the spec, if both follow the same":             {spec: inactive(2), notice: []v1alpha1.NodeCounter{second(2)}},
		"the spec, if it follows a higher one":          {spec: inactive(3), notice: []v1alpha1.NodeCounter{second(2)}},
		"the spec, if it takes the notice in":           {spec: []v1alpha1.NodeCounter{counter("a")}, notice: []v1alpha1.NodeCounter{second(1)}, takenIn: 2, want: []string{"eth0"}},
		"the spec, if it takes in a later one":          {spec: inactive(1), notice: []v1alpha1.NodeCounter{second(2)}, takenIn: 3},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, tc.spec...)
			n.edit(func(s *v1alpha1.XDPNodeState) { s.Spec.Notice = tc.takenIn })
			n.announce(tc.notice...)
			n.settle()
			var got []string
			for _, a := range n.attached {
				got = append(got, a.Pin)
			}
			slices.Sort(got)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("attached (-want +got):\n%s", diff)
			}
		})
	}
}

func TestANoticeAloneAttachesNothing(t *testing.T) {
	n := newNode(t)
	if err := n.client.Delete(t.Context(), n.state()); err != nil {
		t.Fatal(err)
	}
	n.announce(second(1))
	n.expectSteps()
}
