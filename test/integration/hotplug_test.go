// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
	"github.com/xdp-operator/xdp-operator/test/util/quiet"
)

var stormSize = flag.Int("storm", 500, "how many interfaces come, are renamed and go in the storm")

// Two interfaces exist during the whole storm and are counted exactly. One of them is renamed repeatedly.
func TestInterfaceStorm(t *testing.T) {
	observe(t)
	n := c.Nodes()[0]
	restart(t, n, "--metrics-bind-address="+agentMetrics, "--metrics-secure=false")
	var sent traffic.Totals
	var wires []*frames.Sender
	for _, name := range []string{"hot-stays", "hot-name0"} {
		addVeth(t, n, name, "far-"+name[4:])
		wires = append(wires, connect(t, n, name, "far-"+name[4:]))
	}
	countHot(t, n)
	storm(t, n, *stormSize/5) // a first storm, so that later growth is not that of caches and buffers
	expectSettled(t, n)
	before := usage(t, n)

	stop := make(chan struct{})
	var senders sync.WaitGroup
	reports := countReports(t, n)
	senders.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				sendOn(t, wires[i%2], frames.Common()[i%len(frames.Common())], 1, &sent)
			}
		}
	})
	began := time.Now()
	storm(t, n, *stormSize)
	took := time.Since(began)
	written := reports()
	close(stop)
	senders.Wait()
	expectSettled(t, n)
	expectTotals(t, "hot", sent)
	t.Logf("%d interfaces came, were renamed and went in %v; %d reports were written, %d frames sent to others and counted",
		*stormSize, took.Round(time.Millisecond), written, sent.Sum().Packets)

	if most := 15 + 2*int(took.Seconds()+1); written > most {
		t.Errorf("%d reports in %v, want at most %d", written, took, most)
	}
	expectNames(t, n, "hot-name0", "hot-stays")
	folders, err := filepath.Glob(filepath.Join(n.BPFFS, "xdp-operator/v*/*/*"))
	if err != nil || len(folders) != 2 {
		t.Errorf("pinned: %v, %v, want two folders", folders, err)
	}
	eventually(t, func() error { // the next read unmaps the tables of the interfaces deleted last
		if tables := usage(t, n).tables; tables != 2 {
			return fmt.Errorf("%d tables are mapped, want 2", tables)
		}
		return nil
	})
	after := usage(t, n)
	t.Logf("the agent before: %+v, after: %+v", before, after)
	if after.files > before.files+10 || after.goroutines > before.goroutines+10 || after.heap > before.heap+8<<20 || after.errors > before.errors {
		t.Errorf("the agent had %+v before the storm, and has %+v", before, after)
	}
}

// storm creates, renames and deletes interfaces one after another without a pause. Now and then it renames an interface that
// stays, which has its original name at the end.
func storm(t *testing.T, n *netnscluster.Node, size int) {
	t.Helper()
	err := n.Do(func() error {
		handle, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer handle.Close()
		rename := func(from, to string) error {
			l, err := handle.LinkByName(from)
			if err != nil {
				return err
			}
			return handle.LinkSetName(l, to)
		}
		stays := "hot-name0"
		for i := range size {
			name, next := fmt.Sprintf("hot-%d", i), fmt.Sprintf("hot-next-%d", i)
			pair := veth(name, "far-end")
			if err := handle.LinkAdd(pair); err != nil {
				return err
			}
			if err := rename(name, next); err != nil {
				return err
			}
			if i%10 == 0 {
				to := fmt.Sprintf("hot-name%d", i+1)
				if err := rename(stays, to); err != nil {
					return err
				}
				stays = to
			}
			l, err := handle.LinkByName(next)
			if err != nil {
				return err
			}
			if err := handle.LinkDel(l); err != nil {
				return err
			}
		}
		return rename(stays, "hot-name0")
	})
	if err != nil {
		t.Fatal(err)
	}
}

// expectNames waits until the node's report lists exactly these interfaces, sorted by index.
func expectNames(t *testing.T, n *netnscluster.Node, want ...string) {
	t.Helper()
	eventually(t, func() error {
		s := &v1alpha1.XDPNodeState{}
		if err := c.Client.Get(t.Context(), types.NamespacedName{Name: n.Name}, s); err != nil {
			return err
		}
		var got []string
		for _, i := range s.Status.Interfaces {
			got = append(got, i.Name)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			return fmt.Errorf("reported: %v, want %v", got, want)
		}
		return nil
	})
}

// countReports counts the reports of a node. The returned function stops counting and returns their number.
func countReports(t *testing.T, n *netnscluster.Node) (stop func() int) {
	t.Helper()
	watcher, err := client.NewWithWatch(c.Config(), client.Options{Scheme: c.Client.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	w, err := watcher.Watch(t.Context(), &v1alpha1.XDPNodeStateList{}, client.MatchingFields{"metadata.name": n.Name})
	if err != nil {
		t.Fatal(err)
	}
	reports, counted := -1, make(chan int) // the first event is the existing report
	go func() {
		var last metav1.MicroTime
		for e := range w.ResultChan() {
			if s, ok := e.Object.(*v1alpha1.XDPNodeState); ok && e.Type != watch.Deleted && s.Status.ReportTime != nil && !s.Status.ReportTime.Equal(&last) {
				last = *s.Status.ReportTime
				reports++
			}
		}
		counted <- reports
	}()
	return func() int {
		w.Stop()
		return <-counted
	}
}

// resources are the resources that an agent uses.
type resources struct {
	files, goroutines int
	tables            int // memory-mapped tables of counts
	heap              int // bytes in use
	errors            int // failed passes
}

// usage returns the resources of the node's agent, from its metrics and from the kernel.
func usage(t *testing.T, n *netnscluster.Node) (r resources) {
	t.Helper()
	eventually(t, func() error {
		var text string
		err := n.Do(func() error {
			got, err := unsecured(t.Context(), agentMetrics)
			if err == nil {
				text = got.body
			}
			return err
		})
		if err != nil {
			return err
		}
		for name, into := range map[string]*int{"process_open_fds": &r.files, "go_goroutines": &r.goroutines, "go_gc_heap_live_bytes": &r.heap,
			`controller_runtime_reconcile_errors_total{controller="agent"}`: &r.errors} {
			_, rest, found := strings.Cut(text, "\n"+name+" ")
			value, _, _ := strings.Cut(rest, "\n")
			number, err := strconv.ParseFloat(value, 64)
			if !found || err != nil {
				return fmt.Errorf("no %s among the agent's metrics: %w", name, err)
			}
			*into = int(number)
		}
		return nil
	})
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", n.Agent.PID()))
	if err != nil {
		t.Fatal(err)
	}
	r.tables = strings.Count(string(maps), "anon_inode:bpf-map")
	return r
}

// countHot creates a counter for the interfaces of the node whose names begin with "hot", for the duration of the test.
func countHot(t testing.TB, n *netnscluster.Node) {
	t.Helper()
	counter(t, "hot", func(s *v1alpha1.XDPCounterSpec) {
		s.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"name": n.Name}}
		s.Interfaces = &v1alpha1.InterfaceSelector{Names: []v1alpha1.InterfacePattern{"hot*"}}
	})
	expectReady(t, "hot", "True", v1alpha1.ReasonAllInterfacesAttached)
}

// expectSettled waits until the node's last report lists exactly the interfaces that are counted.
func expectSettled(t testing.TB, n *netnscluster.Node) {
	t.Helper()
	eventually(t, func() error {
		programs, err := n.Programs()
		if err != nil {
			return err
		}
		s := &v1alpha1.XDPNodeState{}
		if err := c.Client.Get(t.Context(), types.NamespacedName{Name: n.Name}, s); err != nil {
			return err
		}
		for _, i := range s.Status.Interfaces {
			if i.State != v1alpha1.InterfaceAttached {
				return fmt.Errorf("interface %s is %s", i.Name, i.State)
			}
		}
		if len(s.Status.Interfaces) != len(programs) {
			return fmt.Errorf("%d interfaces are reported, %d are counted", len(s.Status.Interfaces), len(programs))
		}
		return nil
	})
}

func veth(name, peer string) *netlink.Veth {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	return &netlink.Veth{LinkAttrs: attrs, PeerName: peer}
}

// addVeth creates a pair of interfaces on the node, and deletes it at the end of the test.
func addVeth(t testing.TB, n *netnscluster.Node, name, peer string) {
	t.Helper()
	pair := veth(name, peer)
	if err := n.Do(func() error { return netlink.LinkAdd(pair) }); err != nil {
		t.Fatalf("add %s: %v", name, err)
	}
	t.Cleanup(func() {
		if err := n.Do(func() error { return netlink.LinkDel(pair) }); err != nil {
			t.Errorf("delete %s: %v", name, err)
		}
	})
}

// connect sets both ends of a pair up, and returns a sender to the first end for the duration of the test.
func connect(t testing.TB, n *netnscluster.Node, name, peer string) (sender *frames.Sender) {
	t.Helper()
	err := n.Do(func() error {
		index := 0
		for _, end := range []string{name, peer} {
			var err error
			if index, err = quiet.Up(end); err != nil {
				return err
			}
		}
		if err := quiet.Ready(name, peer); err != nil {
			return err
		}
		var err error
		sender, err = frames.NewSender(index)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sender.Close() })
	return sender
}
