// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/types"

	api "github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/eventually"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

// traffic is what was sent, per node and altogether.
type traffic struct {
	nodes []string
	by    map[string]*api.Totals
	all   api.Totals
	flows []flow // in what is counted: with the counts of their counters in sent
}

// kinds are the frames that the demo sends: TCP, UDP and ICMP over IPv4 and IPv6, ARP, a full frame, and some in
// VLANs.
func kinds() []frames.Frame { return frames.Common() }

// expectOneMore makes the expectation wrong by one packet.
func (s *traffic) expectOneMore() {
	one := api.Counts{Packets: 1, Bytes: 72}
	class := api.IP(api.IPv4, 17)
	s.all[class] = s.all[class].Plus(one)
	s.by[s.nodes[0]][class] = s.by[s.nodes[0]][class].Plus(one)
}

// send sends frames of all kinds to every node, more of some kinds and to some nodes than others, for that long or,
// if it is zero, until the context ends.
func (d *demo) send(ctx context.Context, howLong time.Duration) (traffic, error) {
	sent := traffic{by: map[string]*api.Totals{}}
	var senders []*frames.Sender
	defer func() {
		for _, s := range senders {
			_ = s.Close()
		}
	}()
	for _, n := range d.cluster.Nodes() {
		sender, err := n.Sender()
		if err != nil {
			return sent, err
		}
		senders = append(senders, sender)
		sent.nodes = append(sent.nodes, n.Name)
		sent.by[n.Name] = &api.Totals{}
	}
	const pause = 100 * time.Millisecond
	rounds := int(howLong / pause)
	for round := 0; howLong == 0 || round < rounds; round++ {
		for i, sender := range senders {
			for k, f := range kinds() {
				times := (i + 1) * (len(kinds()) - k)
				if err := sender.Send(f.Data, times); err != nil {
					return sent, fmt.Errorf("send %s to %s: %w", f.Name, sent.nodes[i], err)
				}
				counts := api.Counts{Packets: uint64(times), Bytes: uint64(times * len(f.Data))}
				node := sent.by[sent.nodes[i]]
				node[f.Class] = node[f.Class].Plus(counts)
				sent.all[f.Class] = sent.all[f.Class].Plus(counts)
			}
		}
		select {
		case <-ctx.Done():
			return sent, ctx.Err()
		case <-time.After(pause):
		}
	}
	return sent, nil
}

// compare waits until the API tells exactly what was sent, and returns a table of both. The error says that they
// still differ.
func (d *demo) compare(ctx context.Context, sent traffic) (table string, mismatch error) {
	mismatch = eventually.Check(ctx, 15*time.Second, func() error {
		counted, err := d.counted(ctx, sent.nodes, sent.flows)
		if err != nil {
			return err
		}
		table, err = render(sent, counted)
		return err
	})
	return table, mismatch
}

// counted reads the totals from the API: from the node states per node, from the counter altogether.
func (d *demo) counted(ctx context.Context, nodes []string, flows []flow) (traffic, error) {
	counted := traffic{nodes: nodes, by: map[string]*api.Totals{}, flows: slices.Clone(flows)}
	for i, f := range flows {
		var err error
		if counted.flows[i].sent, err = f.counted(ctx, d); err != nil {
			return counted, err
		}
	}
	x := &v1alpha1.XDPCounter{}
	if err := d.cluster.Client.Get(ctx, types.NamespacedName{Name: counterName}, x); err != nil {
		return counted, err
	}
	counted.all = v1alpha1.TotalsOfProtocols(x.Status.Protocols)
	if sum := counted.all.Sum(); x.Status.Total == nil || v1alpha1.Int64(sum.Packets) != x.Status.Total.Packets || v1alpha1.Int64(sum.Bytes) != x.Status.Total.Bytes {
		return counted, fmt.Errorf("the protocols sum up to %v, the total is %v", sum, x.Status.Total)
	}
	for _, node := range nodes {
		s := &v1alpha1.XDPNodeState{}
		if err := d.cluster.Client.Get(ctx, types.NamespacedName{Name: node}, s); err != nil {
			return counted, err
		}
		counted.by[node] = &api.Totals{}
		for _, account := range s.Status.Accounts {
			if account.UID == x.UID {
				*counted.by[node] = v1alpha1.TotalsOf(account.Counts)
			}
		}
	}
	return counted, nil
}

// render returns the table of packets and bytes, sent and counted. The error names where they differ.
func render(sent, counted traffic) (string, error) {
	var out strings.Builder
	var errs []error
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(cells ...any) {
		for _, c := range cells {
			_, _ = fmt.Fprint(w, c, "\t")
		}
		_, _ = fmt.Fprintln(w)
	}
	row("PACKETS, SENT/COUNTED", strings.ToUpper(strings.Join(sent.nodes, "\t")), "CLUSTER", "BYTES SENT", "BYTES COUNTED", "")
	pair := func(s, c api.Counts) string { return fmt.Sprintf("%d/%d", s.Packets, c.Packets) }
	classes := sent.all.Plus(counted.all)
	for class := range classes.NonZero() {
		cells := []any{class}
		verdict := "equal"
		for _, node := range sent.nodes {
			s, c := sent.by[node][class], counted.by[node][class]
			cells = append(cells, pair(s, c))
			if s != c {
				errs = append(errs, fmt.Errorf("%s on %s: sent %v, counted %v", class, node, s, c))
				verdict = "DIFFERENT"
			}
		}
		s, c := sent.all[class], counted.all[class]
		if s != c {
			errs = append(errs, fmt.Errorf("%s in the cluster: sent %v, counted %v", class, s, c))
			verdict = "DIFFERENT"
		}
		row(append(cells, pair(s, c), s.Bytes, c.Bytes, verdict)...)
	}
	cells := []any{"all"}
	for _, node := range sent.nodes {
		cells = append(cells, pair(sent.by[node].Sum(), counted.by[node].Sum()))
	}
	s, c := sent.all.Sum(), counted.all.Sum()
	row(append(cells, pair(s, c), s.Bytes, c.Bytes, "")...)
	for i, f := range sent.flows {
		c, verdict := counted.flows[i].sent, "equal"
		if c != f.sent {
			errs = append(errs, fmt.Errorf("by TCP to %s: sent %v, counted %v", f.node, f.sent, c))
			verdict = "DIFFERENT"
		}
		cells := []any{fmt.Sprintf("TCP transfer, %s mode", f.mode)}
		for _, node := range sent.nodes {
			if node == f.node {
				cells = append(cells, pair(f.sent, c))
			} else {
				cells = append(cells, "")
			}
		}
		row(append(cells, "", f.sent.Bytes, c.Bytes, verdict)...)
	}
	if err := w.Flush(); err != nil {
		errs = append(errs, err)
	}
	for _, f := range sent.flows {
		_, _ = fmt.Fprintf(&out, "%s mode: the %d frames of the TCP transfer arrived at %s as %d packets.\n", f.mode, f.sent.Packets, f.node, f.packets)
	}
	return out.String(), errors.Join(errs...)
}
