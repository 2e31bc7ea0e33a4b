// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"

	"github.com/xdp-operator/xdp-operator/agent/datapath"
	"github.com/xdp-operator/xdp-operator/agent/links"
	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/agent/xdp"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/bench/source"
)

// attached is what is attached to the receiving interface, and an index into arrays of them.
type attached int

const (
	nothing attached = iota
	emptyNative
	emptyGeneric
	oursNative
	oursGeneric
	oursAuto
	emptyTCX
	attachments
)

var attachedNames = [attachments]string{
	"no program", "empty, native", "empty, generic", "ours, Native", "ours, Generic", "ours, Auto", "empty, tcx",
}

func (a attached) String() string { return attachedNames[a] }

// attachedModes are the modes for package datapath, which attaches ours.
var attachedModes = map[attached]plan.Mode{oursNative: plan.Native, oursGeneric: plan.Generic, oursAuto: plan.Auto}

// The budgets of what Auto leaves of the bulk TCP throughput.
var (
	autoOfEmpty = budget{bound: 0.95, atLeast: true, unit: " of the better empty program"}
	autoOfNone  = budget{bound: 0.80, atLeast: true, unit: " of none"}
)

// byDriver is why Auto misses autoOfEmpty where it does not find the cheaper mode.
const byDriver = "Auto knows the driver, and not what arrives; veths have large segments unless someone switches them off"

// transfer is how long each measurement takes.
type transfer struct {
	rounds    int // in each of which everything has its turn
	warmUp    time.Duration
	stream    time.Duration
	datagrams time.Duration
}

// flow is what arrived in one turn.
type flow struct {
	gigabits  float64 // per second, payload of TCP
	skbBytes  float64 // the mean size of the packets that the interface received meanwhile
	datagrams float64 // frames per second
	mode      plan.Mode
}

// flows are those of all rounds, by round.
type flows [attachments][]flow

// values returns one value of each round.
func (f *flows) values(a attached, of func(flow) float64) []float64 {
	var all []float64
	for _, one := range f[a] {
		all = append(all, of(one))
	}
	return all
}

// share returns what a has of what b has in the same round.
func (f *flows) share(a, b attached, of func(flow) float64) estimate {
	var all []float64
	for round := range min(len(f[a]), len(f[b])) {
		all = append(all, of(f[a][round])/of(f[b][round]))
	}
	return estimateMedian(all)
}

func gigabits(f flow) float64  { return f.gigabits }
func skbBytes(f flow) float64  { return f.skbBytes }
func datagrams(f flow) float64 { return f.datagrams }

// better returns the empty program, of the two modes, that leaves more of the bulk TCP throughput.
func (f *flows) better() attached {
	if median(f.values(emptyGeneric, gigabits)) > median(f.values(emptyNative, gigabits)) {
		return emptyGeneric
	}
	return emptyNative
}

// compareAttachments measures what is left of the traffic over veth pairs with each of the programs.
func compareAttachments(ctx context.Context, out io.Writer, e effort, budgets *ledger) error {
	for _, p := range []struct {
		arriving
		title string
	}{
		{aggregates, "veth, large segments (tso and gso on at the sender, as of pods and virtual machines)"},
		{singleFrames, "veth, single frames (tso and gso off at the sender, GRO on at the receiver, as from a wire)"},
	} {
		v, err := newVethPath(ctx, p.arriving)
		if err != nil {
			return err
		}
		f, err := measureFlows(ctx, v.path, pinsAt, e.transfer)
		if err := errors.Join(err, v.close()); err != nil {
			return fmt.Errorf("%s: %w", p.title, err)
		}
		fmt.Fprintf(out, "%s\n\n", p.title)
		ofEmpty, ofNone := autoOfEmpty, budget{}
		if p.arriving == aggregates {
			ofNone = autoOfNone
		} else {
			ofEmpty.known = byDriver
		}
		if err := writeFlows(out, f, judgeAuto(budgets, f, p.String(), ofEmpty, ofNone)); err != nil {
			return err
		}
		fmt.Fprintln(out)
	}
	return describeFlows(out, e.transfer)
}

func describeFlows(out io.Writer, t transfer) error {
	_, err := fmt.Fprintf(out, "one TCP stream, then UDP frames of %d bytes as fast as one socket sends them; medians of %d rounds in random order,\n"+
		"shares within a round, in brackets the interval of their median (95 %%). best 10 %%: what a tenth of the rounds reaches, which other\n"+
		"work on the machine disturbs least. skb bytes: the mean size of what the interface received\n", source.FrameBytes, t.rounds)
	return err
}

// compareFrom measures what is left of the traffic from a source at an address with a port, over the interface, which gets the
// prefix.
func compareFrom(ctx context.Context, out io.Writer, t transfer, budgets *ledger, from, name string, prefix netip.Prefix) error {
	if err := configure(name, prefix, nil); err != nil {
		return err
	}
	f, err := measureFlows(ctx, path{counted: name, source: from}, pinsAt, t)
	if err != nil {
		return err
	}
	if err := writeFlows(out, f, judgeAuto(budgets, f, name, autoOfEmpty, budget{})); err != nil {
		return err
	}
	fmt.Fprintln(out)
	return describeFlows(out, t)
}

func (a arriving) String() string {
	if a == aggregates {
		return "large segments"
	}
	return "single frames"
}

// judgeAuto judges what Auto leaves, and returns the verdicts. A budget without a bound is not judged.
func judgeAuto(budgets *ledger, f *flows, where string, ofEmpty, ofNone budget) []string {
	verdicts := []string{budgets.judgeEstimate("TCP with Auto, "+where, ofEmpty, f.share(oursAuto, f.better(), gigabits))}
	if ofNone.bound != 0 {
		verdicts = append(verdicts, budgets.judgeEstimate("TCP with Auto, "+where, ofNone, f.share(oursAuto, nothing, gigabits)))
	}
	return verdicts
}

// writeFlows writes the table, with the verdicts in the row of Auto.
func writeFlows(out io.Writer, f *flows, verdicts []string) error {
	_, err := fmt.Fprintf(out, "%-21s | %10s %11s %7s | %9s %7s | %9s | %12s %7s | budget of Auto\n",
		"program", "TCP Gbit/s", "quartiles", "of none", "best 10 %", "of none", "skb bytes", "UDP kframe/s", "of none")
	best := func(a attached) float64 { return quantile(0.9, f.values(a, gigabits)) }
	for a := range attachments {
		if err != nil {
			return err
		}
		if len(f[a]) == 0 {
			_, err = fmt.Fprintf(out, "%-21s | the kernel or the driver does not take it\n", a)
			continue
		}
		name, verdict := a.String(), ""
		if a == oursAuto {
			name, verdict = fmt.Sprintf("%s (%s)", a, f[a][0].mode), " "+strings.Join(verdicts, "; ")
		}
		rates := f.values(a, gigabits)
		_, err = fmt.Fprintf(out, "%-21s | %10s %11s %7.2f | %9s %7.2f | %9.0f | %12.0f %7.2f |%s\n", name,
			short(median(rates)), short(quantile(0.25, rates))+".."+short(quantile(0.75, rates)), f.share(a, nothing, gigabits).median,
			short(best(a)), best(a)/best(nothing),
			median(f.values(a, skbBytes)), median(f.values(a, datagrams))/1e3, f.share(a, nothing, datagrams).median, verdict)
	}
	return err
}

// measureFlows measures the traffic over the path with each of the programs, in random order in each round. What the kernel or
// the driver does not take has no flows. The calling goroutine must be locked to its thread.
func measureFlows(ctx context.Context, p path, bpffs string, t transfer) (f *flows, err error) {
	r, err := newReceiving(p, bpffs)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	all := make([]attached, attachments)
	for a := range all {
		all[a] = attached(a)
	}
	all = slices.DeleteFunc(all, func(a attached) bool { return !r.takes(a) })
	f = &flows{}
	for range t.rounds {
		for _, a := range shuffled(all) {
			one, err := r.turn(ctx, a, t)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", a, err)
			}
			f[a] = append(f[a], one)
		}
	}
	return f, nil
}

// receiving is the receiving end of a path.
type receiving struct {
	path
	index    int
	features map[string]bool // those of the interface without a program
	tool     *ethtool.Ethtool
	empty    *ebpf.Program
	tcx      *ebpf.Program
	ours     *datapath.Datapath
}

// pinsAt is where the pins of ours are, in the sandbox and in guests.
const pinsAt = "/sys/fs/bpf"

// newReceiving requires that nothing is attached to the interface yet.
func newReceiving(p path, bpffs string) (r *receiving, err error) {
	r = &receiving{path: p}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	l, err := netlink.LinkByName(p.counted)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", p.counted, err)
	}
	r.index = l.Attrs().Index
	if r.tool, err = ethtool.NewEthtool(); err != nil {
		return nil, err
	}
	if r.features, err = r.tool.Features(p.counted); err != nil {
		return nil, fmt.Errorf("read the features of %s: %w", p.counted, err)
	}
	if r.empty, err = loadReturning(ebpf.XDP, xdpPass); err != nil {
		return nil, err
	}
	if r.tcx, err = loadReturning(ebpf.SchedCLS, tcxNext); err != nil {
		return nil, err
	}
	r.ours, err = datapath.Open(bpffs, "bench")
	return r, err
}

// The verdicts of the empty programs, of include/uapi/linux/bpf.h.
const (
	xdpPass = 2
	tcxNext = -1
)

func loadReturning(kind ebpf.ProgramType, verdict int32) (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: kind, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()},
	})
}

func (r *receiving) close() error {
	if r.tool != nil {
		r.tool.Close()
	}
	var errs []error
	for _, program := range []*ebpf.Program{r.empty, r.tcx} {
		if program != nil {
			errs = append(errs, program.Close())
		}
	}
	if r.ours != nil {
		errs = append(errs, r.ours.Close())
	}
	return errors.Join(errs...)
}

// takes reports whether the kernel and the driver take the program.
func (r *receiving) takes(a attached) bool {
	detach, err := r.attach(a)
	if err != nil {
		return false
	}
	return detach() == nil
}

// attach attaches the program. detach detaches it, and restores the features that this has changed: after generic mode
// virtio_net does not get hardware GRO back (net/core/dev.c, dev_disable_gro_hw).
func (r *receiving) attach(a attached) (detach func() error, err error) {
	var l link.Link
	switch a {
	case nothing:
		return r.restoreFeatures, nil
	case emptyNative:
		l, err = link.AttachXDP(link.XDPOptions{Program: r.empty, Interface: r.index, Flags: link.XDPDriverMode})
	case emptyGeneric:
		l, err = link.AttachXDP(link.XDPOptions{Program: r.empty, Interface: r.index, Flags: link.XDPGenericMode})
	case emptyTCX:
		l, err = link.AttachTCX(link.TCXOptions{Program: r.tcx, Interface: r.index, Attach: ebpf.AttachTCXIngress})
	default:
		return r.attachOurs(attachedModes[a])
	}
	if err != nil {
		return nil, err
	}
	return func() error { return errors.Join(l.Detach(), l.Close(), r.restoreFeatures()) }, nil
}

// attachOurs attaches as the agent does for a counter with this mode that selects the interface.
func (r *receiving) attachOurs(mode plan.Mode) (detach func() error, err error) {
	interfaces, err := links.Links{}.List()
	if err != nil {
		return nil, err
	}
	selection := plan.Selection{Counter: "bench", Names: []string{r.counted}, Mode: mode}
	want, _, _ := plan.Desired([]plan.Selection{selection}, interfaces, nil)
	if len(want) != 1 {
		return nil, fmt.Errorf("%d interfaces are to be counted", len(want))
	}
	if err := r.ours.Attach(want[0]); err != nil {
		return nil, err
	}
	return func() error {
		have, err := r.ours.Attached()
		errs := []error{err}
		for _, one := range have {
			errs = append(errs, r.ours.Detach(one))
		}
		return errors.Join(append(errs, r.restoreFeatures())...)
	}, nil
}

func (r *receiving) restoreFeatures() error {
	now, err := r.tool.Features(r.counted)
	if err != nil {
		return fmt.Errorf("read the features of %s: %w", r.counted, err)
	}
	changed := maps.Clone(r.features)
	maps.DeleteFunc(changed, func(name string, on bool) bool { return now[name] == on })
	if len(changed) == 0 {
		return nil
	}
	if err := r.tool.Change(r.counted, changed); err != nil {
		return fmt.Errorf("restore the features of %s: %w", r.counted, err)
	}
	return nil
}

// turn measures the traffic with the program.
func (r *receiving) turn(ctx context.Context, a attached, t transfer) (f flow, err error) {
	detach, err := r.attach(a)
	if err != nil {
		return flow{}, err
	}
	defer func() { err = errors.Join(err, r.waitQuiet(), detach()) }()
	l, err := netlink.LinkByIndex(r.index)
	if err != nil {
		return flow{}, fmt.Errorf("find %s: %w", r.counted, err)
	}
	f.mode = xdp.HookOf(l).Mode

	stream, err := r.receive(ctx, source.Stream, t.warmUp, t.stream)
	if err != nil {
		return flow{}, fmt.Errorf("TCP: %w", err)
	}
	frames, err := r.receive(ctx, source.Datagrams, t.warmUp/2, t.datagrams)
	if err != nil {
		return flow{}, fmt.Errorf("UDP: %w", err)
	}
	if attachedModes[a] != "" {
		if err := r.checkCounts(stream.payload, frames.payload); err != nil {
			return flow{}, err
		}
	}
	f.gigabits = 8 * float64(stream.measured) / float64(stream.took.Nanoseconds())
	f.skbBytes = float64(stream.bytes) / float64(stream.packets)
	f.datagrams = float64(frames.packets) / frames.took.Seconds()
	return f, nil
}

// reception is what was received.
type reception struct {
	payload        uint64 // bytes, by the socket, from the start
	measured       uint64 // bytes of it, after warming up
	took           time.Duration
	packets, bytes uint64 // by the interface, after warming up
}

func (r *receiving) receive(ctx context.Context, ask func(context.Context, string) (*source.Receiver, error),
	warmUp, least time.Duration) (n reception, err error) {
	from, err := ask(ctx, r.source)
	if err != nil {
		return reception{}, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	early, _, err := from.Receive(warmUp)
	if err != nil {
		return reception{}, err
	}
	before, err := r.statistics()
	if err != nil {
		return reception{}, err
	}
	if n.measured, n.took, err = from.Receive(least); err != nil {
		return reception{}, err
	}
	after, err := r.statistics()
	if err != nil {
		return reception{}, err
	}
	n.payload = early + n.measured
	n.packets, n.bytes = after.RxPackets-before.RxPackets, after.RxBytes-before.RxBytes
	if n.packets == 0 {
		return reception{}, fmt.Errorf("%s received %d bytes and no packets", r.counted, n.measured)
	}
	return n, nil
}

func (r *receiving) statistics() (*netlink.LinkStatistics, error) {
	l, err := netlink.LinkByIndex(r.index)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", r.counted, err)
	}
	return l.Attrs().Statistics, nil
}

// waitQuiet waits until nothing arrives at the interface, so that no turn begins with the traffic of another one. In an emulated
// machine with several CPUs, to detach a program while frames arrive can crash the kernel (test/kernels/bench.go).
func (r *receiving) waitQuiet() error {
	var last uint64
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		now, err := r.statistics()
		if err != nil {
			return err
		}
		if now.RxPackets == last {
			return nil
		}
		last = now.RxPackets
	}
	return fmt.Errorf("packets still arrive at %s", r.counted)
}

// segmentBytes is more payload than a frame of TCP can have, with an MTU of 1,500 bytes.
const segmentBytes = 1500

// checkCounts returns an error unless ours has counted at least what the sockets have received, as frames on the wire.
func (r *receiving) checkCounts(stream, frames uint64) error {
	have, err := r.ours.Attached()
	if err != nil {
		return err
	}
	readings, err := r.ours.Read()
	if err != nil {
		return err
	}
	if len(have) != 1 || len(readings) != 1 {
		return fmt.Errorf("%d attachments and %d readings", len(have), len(readings))
	}
	const tcp, udp = 6, 17
	tcpCounts := readings[0].Totals[traffic.IP(traffic.IPv4, tcp)]
	udpCounts := readings[0].Totals[traffic.IP(traffic.IPv4, udp)]
	if tcpCounts.Bytes < stream || tcpCounts.Packets < stream/segmentBytes && !have[0].CountsAggregates {
		return fmt.Errorf("%+v were counted of a TCP stream of %d bytes", tcpCounts, stream)
	}
	if udpCounts.Bytes < frames {
		return fmt.Errorf("%+v were counted of %d bytes in UDP datagrams", udpCounts, frames)
	}
	return nil
}
