// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
)

const everywhere = "everywhere" // the XDPCounter of all nodes

// TestPrometheus tests one cluster from the first frame to the last alert. Each step starts with the result of the previous one.
func TestPrometheus(t *testing.T) {
	w := newEnv(t)
	a, b, c := w.Nodes()[0], w.Nodes()[1], w.Nodes()[2]
	w.counter(t, everywhere, nil, nil)
	w.ready(t, everywhere)
	sender := newFrameSender(t, w.Nodes())
	keepStatistics(t)
	addBridge(t, a) // without native XDP support
	w.counter(t, "bridges", &v1alpha1.InterfaceSelector{Names: []v1alpha1.InterfacePattern{"br0"}}, map[string]string{"name": "node-a"})
	fast := squeeze(t, rules(t))
	p := startServer(t, w.dir, configure(t, w.dir, w.certificate(), fast, w.targets()))

	step := func(name string, do func(*testing.T)) {
		if !t.Run(name, do) {
			t.FailNow() // later steps depend on this one
		}
	}
	step("who has the token reads, who has none does not", func(t *testing.T) {
		p.expect(t, 4, `sum(up{job=~"xdp-operator.*"})`)
		p.expect(t, 0, `up{job="nobody"}`)
		expectHealthyRules(t, p)
	})
	step("an agent that starts again resets nothing", func(t *testing.T) {
		if err := a.StopAgent(); err != nil {
			t.Fatal(err)
		}
		p.expect(t, 0, `up{node="node-a",job!="nobody"}`)
		w.startAgent(t, a)
		p.expect(t, 1, `up{node="node-a",job!="nobody"}`)
		p.expect(t, 0, `sum(resets(xdpcounter_packets_total[5m])) + sum(resets(xdpcounter_bytes_total[5m]))`)
	})
	step("Prometheus, status and sender agree", func(t *testing.T) {
		sender.held(func() { w.expectEqual(t, p, sender) })
	})
	step("while all is well nothing fires but that br0 is generic", func(t *testing.T) {
		p.fires(t, "XDPCounterGenericMode", model.LabelSet{"node": "node-a", "interface": "br0"})
		eventually(t, func() error {
			firing, err := p.firing(t.Context())
			delete(firing, "XDPCounterGenericMode")
			if err == nil && len(firing) > 0 {
				err = fmt.Errorf("these fire: %v", firing)
			}
			return err
		})
	})
	await(t, p.began.Add(30*time.Second)) // with the shortened durations this is the past hour

	step("a node that is switched on again is a plain reset", func(t *testing.T) {
		sender.held(func() {
			// The node loses everything after its last report, so all frames must be reported first.
			w.expectEqual(t, p, sender)
			if err := errors.Join(c.StopAgent(), c.PowerOff(), c.PowerOn()); err != nil {
				t.Fatal(err)
			}
			sender.connect(t, c)
			w.startAgent(t, c)
			w.attachedIn(t, "00000000-0000-4000-8000-", "node-c") // a boot ID from the sandbox
		})
		p.expect(t, 1, `max(resets(xdpcounter_packets_total{node="node-c"}[5m]))`)
		sender.held(func() { w.expectStatus(t, sender) }) // totals have not decreased
	})
	step("a flood", func(t *testing.T) {
		sender.held(func() { sender.flooded = "node-b" })
		p.fires(t, "XDPCounterProtocolShareUnusual", model.LabelSet{"node": "node-b", "interface": "eth0", "family": "IPv4", "protocol": "ICMP"})
		sender.held(func() { sender.flooded = "" })
	})
	step("another program takes the hook", func(t *testing.T) {
		sender.held(func() { takeHook(t, b) })
		p.fires(t, "XDPCounterHookLost", model.LabelSet{"node": "node-b", "interface": "eth0"})
		p.fires(t, "XDPCounterInterfaceFailed", model.LabelSet{"node": "node-b", "interface": "eth0", "reason": v1alpha1.ReasonXDPHookInUse})
	})
	step("nobody sends any more", func(t *testing.T) {
		sender.held(func() { sender.weight["node-a"] = 0 })
		p.fires(t, "XDPCounterTrafficStopped", model.LabelSet{"node": "node-a", "interface": "eth0"})
	})
	step("IPsec tunnels end on a node with an interface in generic mode", func(t *testing.T) {
		addTunnelPolicy(t, a)
		p.fires(t, "XDPCounterNotExact", model.LabelSet{"node": "node-a", "interface": "br0", "reason": v1alpha1.ReasonDecryptedPacketsCounted})
	})
	step("an agent cannot read its pins", func(t *testing.T) {
		namespaces, err := filepath.Glob(filepath.Join(a.BPFFS, "xdp-operator/v*/n*"))
		if err != nil || len(namespaces) != 1 {
			t.Fatalf("folders of network namespaces: %q, %v", namespaces, err)
		}
		if err := os.MkdirAll(filepath.Join(a.BPFFS, "xdp-operator/v999", filepath.Base(namespaces[0]), "1"), 0o700); err != nil {
			t.Fatal(err)
		}
		p.fires(t, "XDPCounterAgentFailing", model.LabelSet{"node": "node-a"})
		p.expect(t, 0, `xdpcounter_snapshot_success{node="node-a"}`)
		p.expect(t, 0, `xdpcounter_pass_success{node="node-a"}`)
	})
	step("agents are small", func(t *testing.T) {
		const most = 40 << 20
		got, err := p.ask(t.Context(), `quantile_over_time(0.5, process_resident_memory_bytes{node!=""}[5m])`)
		if err != nil || len(got) != 3 {
			t.Fatal(got, err)
		}
		for _, agent := range got {
			t.Logf("%s: %.1f MiB", agent.Metric["node"], float64(agent.Value)/(1<<20))
			if agent.Value > most {
				t.Errorf("the agent of %s has %.1f MiB in memory", agent.Metric["node"], float64(agent.Value)/(1<<20))
			}
		}
	})
	step("an agent is gone", func(t *testing.T) {
		if err := c.StopAgent(); err != nil {
			t.Fatal(err)
		}
		p.fires(t, "XDPCounterAgentDown", model.LabelSet{"node": "node-c"})
		p.fires(t, "XDPCounterReportStale", model.LabelSet{"xdpcounter": everywhere})
	})
	step("every panel shows something", func(t *testing.T) { expectPanels(t, p) })
	step("what is served is written as it should be", func(t *testing.T) { w.expectClean(t) })
	step("the controller is gone", func(t *testing.T) {
		if err := w.controller.Kill(); err != nil {
			t.Fatal(err)
		}
		p.fires(t, "XDPCounterControllerDown", nil)
	})
	step("every alert has fired", func(t *testing.T) {
		eventually(t, func() (err error) {
			fired := p.since(t, `ALERTS{alertstate="firing"}`)
			for _, name := range alerts(t, fast) {
				if !slices.ContainsFunc(fired, func(s *model.SampleStream) bool { return string(s.Metric["alertname"]) == name }) {
					err = errors.Join(err, fmt.Errorf("%s has never fired", name))
				}
			}
			return err
		})
	})
	if *picture != "" {
		draw(t, p, *picture)
	}
}

func await(t *testing.T, moment time.Time) {
	t.Helper()
	select {
	case <-time.After(time.Until(moment)):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

func (w *testEnv) get(ctx context.Context, name string) (*v1alpha1.XDPCounter, error) {
	x := &v1alpha1.XDPCounter{}
	return x, w.Client.Get(ctx, types.NamespacedName{Name: name}, x)
}

func (w *testEnv) ready(t *testing.T, name string) {
	t.Helper()
	eventually(t, func() error {
		x, err := w.get(t.Context(), name)
		if err == nil && !meta.IsStatusConditionTrue(x.Status.Conditions, v1alpha1.ConditionReady) {
			err = fmt.Errorf("%s is not ready: %+v", name, x.Status.Conditions)
		}
		return err
	})
}

// attachedIn waits until an agent reports in a boot whose ID has the prefix that the node's eth0 is counted.
func (w *testEnv) attachedIn(t *testing.T, boot, node string) {
	t.Helper()
	eventually(t, func() error {
		s := &v1alpha1.XDPNodeState{}
		if err := w.Client.Get(t.Context(), types.NamespacedName{Name: node}, s); err != nil {
			return err
		}
		for _, i := range s.Status.Interfaces {
			if i.Name == "eth0" && i.State == v1alpha1.InterfaceAttached && strings.HasPrefix(s.Status.Agent.BootID, boot) {
				return nil
			}
		}
		return fmt.Errorf("eth0 of %s is not attached: %+v", node, s.Status)
	})
}

// expectStatus waits until the status of the counter equals the frames sent. The caller holds the sender.
func (w *testEnv) expectStatus(t *testing.T, sender *frameSender) {
	t.Helper()
	eventually(t, func() error {
		x, err := w.get(t.Context(), everywhere)
		if err == nil {
			err = differ("the status", v1alpha1.TotalsOfProtocols(x.Status.Protocols), sender.all())
		}
		return err
	})
}

// expectEqual waits until Prometheus and the status both equal the frames sent. The caller holds the sender.
func (w *testEnv) expectEqual(t *testing.T, p *server, sender *frameSender) {
	t.Helper()
	w.expectStatus(t, sender)
	eventually(t, func() error {
		for node, sent := range sender.sent {
			got, err := p.totals(t.Context(), fmt.Sprintf("{node=%q}", node))
			if err := errors.Join(err, differ("Prometheus of "+node, got, sent)); err != nil {
				return err
			}
		}
		got, err := p.totals(t.Context(), "")
		return errors.Join(err, differ("Prometheus", got, sender.all()))
	})
}

func differ(who string, got, want traffic.Totals) (err error) {
	all := got.Plus(want)
	for class := range all.NonZero() {
		if got[class] != want[class] {
			err = errors.Join(err, fmt.Errorf("%s: %s is %v, sent were %v", who, class, got[class], want[class]))
		}
	}
	return err
}

// totals returns the values of Prometheus for all classes.
func (s *server) totals(ctx context.Context, selector string) (totals traffic.Totals, err error) {
	for name, field := range map[string]func(*traffic.Counts) *uint64{
		"xdpcounter_packets_total": func(c *traffic.Counts) *uint64 { return &c.Packets },
		"xdpcounter_bytes_total":   func(c *traffic.Counts) *uint64 { return &c.Bytes },
	} {
		vector, err := s.ask(ctx, "sum by (family, protocol) (%s%s)", name, selector)
		if err != nil {
			return totals, err
		}
		for _, sample := range vector {
			family, protocol := string(sample.Metric["family"]), string(sample.Metric["protocol"])
			class, ok := traffic.ParseClass(family + "/" + protocol)
			if !ok {
				class, ok = traffic.ParseClass(family)
			}
			if !ok || float64(uint64(sample.Value)) != float64(sample.Value) {
				return totals, fmt.Errorf("%v is not the count of a class", sample)
			}
			*field(&totals[class]) = uint64(sample.Value)
		}
	}
	return totals, nil
}

func expectHealthyRules(t *testing.T, p *server) {
	t.Helper()
	got, err := p.Rules(t.Context(), nil)
	if err != nil || len(got.Groups) == 0 {
		t.Fatalf("groups of rules: %v, %v", got.Groups, err)
	}
	for _, group := range got.Groups {
		for _, rule := range group.Rules {
			switch r := rule.(type) {
			case promv1.AlertingRule:
				if r.Health == promv1.RuleHealthBad {
					t.Errorf("%s: %s", r.Name, r.LastError)
				}
			case promv1.RecordingRule:
				if r.Health == promv1.RuleHealthBad {
					t.Errorf("%s: %s", r.Name, r.LastError)
				}
			}
		}
	}
}

// expectPanels checks that each query of the dashboard has returned numbers at some time.
func expectPanels(t *testing.T, p *server) {
	t.Helper()
	all := panels(t)
	if len(all) < 20 {
		t.Errorf("the dashboard has %d panels", len(all))
	}
	for _, panel := range all {
		for _, target := range panel.Targets {
			numbers := 0
			for _, series := range p.since(t, target.Expr) {
				for _, v := range series.Values {
					if !math.IsNaN(float64(v.Value)) && !math.IsInf(float64(v.Value), 0) {
						numbers++
					}
				}
			}
			if numbers == 0 {
				t.Errorf("panel %q: %s gives nothing", panel.Title, target.Expr)
			}
		}
	}
}

// keepStatistics enables the kernel's statistics of BPF programs until the end of the test.
func keepStatistics(t *testing.T) {
	t.Helper()
	statistics, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = statistics.Close() })
}

func addBridge(t *testing.T, n *netnscluster.Node) {
	t.Helper()
	err := n.Do(func() error {
		attributes := netlink.NewLinkAttrs()
		attributes.Name = "br0"
		return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attributes})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func addTunnelPolicy(t *testing.T, n *netnscluster.Node) {
	t.Helper()
	err := n.Do(func() error {
		_, everything, err := net.ParseCIDR("10.2.0.0/16")
		return errors.Join(err, netlink.XfrmPolicyAdd(&netlink.XfrmPolicy{Src: everything, Dst: everything, Dir: netlink.XFRM_DIR_IN, Tmpls: []netlink.XfrmPolicyTmpl{{
			Src: net.IPv4(192, 0, 2, 1), Dst: net.IPv4(192, 0, 2, 2), Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL,
		}}}))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// takeHook detaches the link of the node's eth0, and attaches another program before the agent attaches again.
func takeHook(t *testing.T, n *netnscluster.Node) {
	t.Helper()
	if err := n.Agent.Pause(); err != nil {
		t.Fatal(err)
	}
	pins, err := filepath.Glob(filepath.Join(n.BPFFS, "xdp-operator/v*/*/*/link"))
	if err != nil || len(pins) != 1 {
		t.Fatalf("links %q, %v", pins, err)
	}
	ours, err := link.LoadPinnedLink(pins[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "foreign", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.LoadImm(asm.R0, 2 /* XDP_PASS */, asm.DWord), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(ours.Detach(), ours.Close(), n.Do(func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		held, err := link.AttachXDP(link.XDPOptions{Program: foreign, Interface: eth0.Attrs().Index, Flags: link.XDPDriverMode})
		if err == nil {
			t.Cleanup(func() { _ = held.Close() })
		}
		return err
	}), foreign.Close(), n.Agent.Resume())
	if err != nil {
		t.Fatal(err)
	}
}
