package agent

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// Random histories of faults must neither lose nor double a packet: what the account says at the end is what all maps
// that ever were have counted. One loss is stated (docs/architecture.md): an interface that comes and goes again before
// its first report.
func TestRandomFaultsNeitherLoseNorDoubleAPacket(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for history := range 300 {
		everyEth := counter("a")
		everyEth.Primary, everyEth.Names = false, []string{"eth*"}
		n := newNode(t, everyEth)
		var log []string
		var highest, lost int64
		for range 40 {
			event := random.IntN(9)
			names := []string{"traffic", "traffic", "agent restarts", "API server goes or comes", "report due", "interface gone", "interface back", "link cut by hand", "detach begins or ceases to fail"}
			log = append(log, names[event])
			switch event {
			case 0, 1:
				n.receive("eth0", uint64(random.IntN(9)))
				n.receive("eth1", uint64(random.IntN(9)))
			case 2:
				n.agent = &Agent{Client: n.client, Node: "n1", Info: n.agent.Info, Datapath: n, Links: n, Clock: n.clock}
			case 3:
				n.saveError = toggled(n.saveError != nil, errAPIDown)
			case 4:
				n.clock.Step(time.Minute)
			case 5:
				lost += n.unreported("eth1")
				n.loseInterface("eth1")
			case 6:
				n.addInterface("eth1")
			case 7:
				lost += n.unreported("eth0") + n.unreported("eth1")
				for i := range n.interfaces {
					n.interfaces[i].Hook = plan.Hook{}
				}
			case 8:
				n.detachError = toggled(n.detachError != nil, errors.New("no"))
			}
			_, _, err := n.pass()
			if err != nil && n.saveError == nil && n.detachError == nil {
				t.Fatalf("history %d of seed %d: %v after %q", history, seed, err, log)
			}
			if now := n.accounts()["a"]; now < highest {
				t.Fatalf("history %d of seed %d: the total fell from %d to %d after %q", history, seed, highest, now, log)
			} else {
				highest = now
			}
		}
		n.saveError, n.detachError = nil, nil
		n.clock.Step(time.Hour)
		n.settle()
		want := -lost
		for _, packets := range n.counts {
			want += int64(packets)
		}
		if got := n.accounts()["a"]; got != want {
			t.Fatalf("history %d of seed %d: the account says %d, the maps counted %d, %d of them lost as stated, after %q", history, seed, got, want+lost, lost, log)
		}
		for _, i := range n.state().Status.Interfaces {
			if i.State != v1alpha1.InterfaceAttached {
				t.Fatalf("history %d of seed %d: in the end %s is %s after %q", history, seed, i.Name, i.State, log)
			}
		}
	}
}

// toggled returns err where it was off, and nil where it was on.
func toggled(on bool, err error) error {
	if on {
		return nil
	}
	return err
}

// unreported returns how many packets the map of an interface holds that is in no report yet.
func (n *node) unreported(name string) (packets int64) {
	saved := n.state().Status.Interfaces
	for _, i := range n.interfaces {
		for _, a := range n.attached {
			known := slices.ContainsFunc(saved, func(s v1alpha1.NodeInterface) bool { return s.Map == int64(a.Map) })
			if i.Name == name && a.Live(i) && !known {
				packets += int64(n.counts[a.Map])
			}
		}
	}
	return packets
}

// loseInterface lets an interface vanish. The map that counted for it can still be read.
func (n *node) loseInterface(name string) {
	for _, i := range n.interfaces {
		for a := range n.attached {
			if i.Name == name && n.attached[a].Index == i.Index {
				n.attached[a].Index = 0
			}
		}
	}
	n.interfaces = slices.DeleteFunc(n.interfaces, func(i plan.Interface) bool { return i.Name == name })
}

// addInterface makes an interface of that name if there is none, always with the same index.
func (n *node) addInterface(name string) {
	if !slices.ContainsFunc(n.interfaces, func(i plan.Interface) bool { return i.Name == name }) {
		n.interfaces = append(n.interfaces, plan.Interface{Name: name, Index: 3})
	}
}
