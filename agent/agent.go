// SPDX-License-Identifier: Apache-2.0

// Package agent is the node's half of the operator: it makes the interfaces of its node counted as its
// XDPNodeState says, and reports the totals in that object's status.
package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// Datapath is what the agent needs of the kernel. The real one is datapath.Datapath. While the pins are not visible, errors wrap
// plan.ErrBPFFSNotMounted, and nothing is changed.
type Datapath interface {
	// Attached lists the attachments that are pinned, also those whose interface or link is gone.
	Attached() ([]plan.Attachment, error)
	// Attach makes the interface counted, or brings its program up to date. Idempotent. Errors wrap those of
	// package plan.
	Attach(plan.Attachment) error
	// Detach removes link, program and map. No error if they are gone already.
	Detach(plan.Attachment) error
	// Read returns what each pinned map holds.
	Read() ([]traffic.Reading, error)
	// CountsWireFrames reports whether the kernel loads a program for generic mode that counts the frames of an aggregate.
	CountsWireFrames() bool
	// NewestMap returns an ID that is newer than those of all maps that exist. It does not need the pins.
	NewestMap() (traffic.MapID, error)
}

// Links lists the interfaces of the host's network namespace. The real one is links.Watcher.
type Links interface {
	// List returns the interfaces. Their field Primary need not be set.
	List() ([]plan.Interface, error)
	// Primary returns the indexes of the interfaces of default routes.
	Primary() (map[int]bool, error)
	// DecryptsTunnels reports whether packets of IPsec tunnels are decrypted there. False also if that cannot be read.
	DecryptsTunnels() bool
	// HasSCTP reports whether the kernel's SCTP is loaded. False also if that cannot be read.
	HasSCTP() bool
}

const (
	followUpDelay       = 20 * time.Millisecond  // after a pass that left work for the next one
	attachRetryInterval = 500 * time.Millisecond // after a failed attach: the kernel does not notify when a hook becomes free
	driverRetryInterval = 30 * time.Second       // after a driver refused, while nothing about the interface changes: some drivers reset the NIC
	resyncInterval      = 2 * time.Second        // the kernel does not notify when a link is detached by force
	idleInterval        = 30 * time.Second       // without a node state
)

// Agent makes one pass per Reconcile: gather, plan, attach, read, save, detach. Nothing that the counts depend on is kept
// in memory alone: what it remembers heals what others do to its report, and says when a report or a driver has its turn.
type Agent struct {
	Client   client.Client
	Node     string             // the name of the node, and of its XDPNodeState
	Info     v1alpha1.AgentInfo // who reports; BootID is needed
	Datapath Datapath
	Links    Links
	Clock    clock.PassiveClock
	Resync   time.Duration // the longest time between two passes; zero: 2 s

	passTimes   passTimes
	schedule    reportSchedule
	last        remembered
	refused     map[int]refusal // by interface index
	passMetrics passMetrics
}

// refusal is a driver's, which is not asked again at once: some reset their hardware before they refuse.
type refusal struct {
	err  error
	wish plan.Attachment
	mtu  int
	at   time.Time
}

// remembered is the ledger that was saved last, and in it for whom the maps count that were made since.
type remembered struct {
	state  types.UID // of which node state
	ledger traffic.Ledger
}

// Reconcile makes one pass, whatever it was that asked for it.
//
// The order matters: the map of an attachment is given up only once its counts are saved, and it stays in the
// saved state until it is seen to be gone. So a crash between any two steps loses nothing and counts nothing
// twice.
func (a *Agent) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	began := a.Clock.Now()
	a.passTimes.begin(began)
	wait, err := a.pass(ctx)
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) { // the cache is behind our own last write, or the deletion
		wait, err = followUpDelay, nil
	}
	if errors.Is(err, plan.ErrBPFFSNotMounted) { // it disappeared during the pass, or there is no report in which to say so
		wait, err = attachRetryInterval, nil
	}
	a.passMetrics.pass(a.Clock.Since(began), err)
	if err != nil {
		return ctrl.Result{}, err
	}
	a.passTimes.end(wait)
	return ctrl.Result{RequeueAfter: wait}, nil
}

// resync returns the longest time between two passes.
func (a *Agent) resync() time.Duration { return cmp.Or(a.Resync, resyncInterval) }

// pass makes one pass and returns how long the next one may wait.
func (a *Agent) pass(ctx context.Context) (time.Duration, error) {
	state := &v1alpha1.XDPNodeState{}
	if err := a.Client.Get(ctx, types.NamespacedName{Name: a.Node}, state); apierrors.IsNotFound(err) {
		a.passMetrics.interfaces(nil)
		return idleInterval, a.detachAll(ctx)
	} else if err != nil {
		return 0, fmt.Errorf("get own node state: %w", err)
	}
	before, err := a.ledger(state)
	if err != nil {
		return 0, err
	}
	s, done, err := a.attachSelected(ctx, state.Spec, before.Opened)
	if err != nil {
		return 0, err
	}
	a.logHidden(ctx, s.hidden)
	after, err := a.book(state, s, done, before)
	if err != nil {
		return 0, err
	}
	interfaces := a.interfaces(state.Status, s, done, after)
	a.passMetrics.interfaces(interfaces)
	status := a.report(state, interfaces, before, after)

	// What a map counted is lost with the map, so it is saved before it is detached, also where no report is due: an earlier
	// pass may have reported that it detaches, and ended before it did.
	unsaved := len(done.detach) > 0 && !maps.Equal(before.Accounts, after.Accounts)
	wait, due := a.schedule.next(state, status, unsaved, a.Clock.Now())
	if due && wait > 0 {
		return wait, nil // and detach nothing
	}
	if due {
		if err := a.save(ctx, state, status); err != nil {
			return 0, err
		}
		a.last = remembered{state.UID, after}
		wait = a.resync()
	}
	if err := a.detach(ctx, done.detach); err != nil {
		return 0, err
	}
	switch {
	case !before.Opened || len(done.detach) > 0:
		return followUpDelay, nil
	case len(done.failed) > 0:
		return min(wait, attachRetryInterval), nil
	default:
		return min(wait, a.resync()), nil
	}
}

// attachSelected compares what is attached with what the spec selects, and attaches what is missing. With a ledger that is not
// opened yet it attaches nothing: what is counted before belongs to nobody.
func (a *Agent) attachSelected(ctx context.Context, spec v1alpha1.XDPNodeStateSpec, opened bool) (nodeSnapshot, outcome, error) {
	asked := selections(spec)
	s, err := a.gather(asked)
	if err != nil {
		return s, outcome{}, err
	}
	var o outcome
	o.want, o.selected, o.rejected = plan.Desired(asked, s.interfaces, s.attached)
	if !a.genericIsRight(o.want) {
		for i := range o.want {
			o.want[i].First = ""
		}
	}
	if s.hidden != nil {
		return s, o.allFailed(s.hidden), nil //nolint:nilerr // the outcome has the error
	}
	attach, detach := plan.Diff(s.attached, o.want, s.interfaces)
	o.detach, o.failed = detach, map[int]error{}
	if !opened || len(attach) == 0 {
		return s, o, nil
	}
	o.failed = a.attach(ctx, attach, s.interfaces)
	if s, err = a.gather(asked); err != nil { // an interface that failed may be gone
		return s, o, err
	}
	// The mode that Auto attained is known only now, and so is which counters agree with it.
	_, o.selected, o.rejected = plan.Desired(asked, s.interfaces, s.attached)
	if s.hidden != nil {
		return s, o.allFailed(s.hidden), nil //nolint:nilerr // the outcome has the error
	}
	return s, o, nil
}

// genericIsRight reports whether Auto may choose generic mode because it costs less: whether the frames of aggregates and the
// packets of IPsec tunnels are counted as they are on the wire, and nobody can send by SCTP. Linux panics when it forwards an
// aggregate of SCTP that any program in generic mode has seen (docs/datapath.md). It reads nothing if nothing depends on it.
func (a *Agent) genericIsRight(want []plan.Attachment) bool {
	return slices.ContainsFunc(want, func(w plan.Attachment) bool { return w.First == plan.Generic }) &&
		a.Datapath.CountsWireFrames() && !a.Links.DecryptsTunnels() && !a.Links.HasSCTP()
}

// book reads all maps and adds what they counted to the accounts. If the pins are not visible, it books nothing.
func (a *Agent) book(state *v1alpha1.XDPNodeState, s nodeSnapshot, o outcome, before traffic.Ledger) (traffic.Ledger, error) {
	if s.hidden != nil {
		return a.keep(state, before)
	}
	readings, err := a.read(s)
	if err != nil {
		return traffic.Ledger{}, err
	}
	if before.AddNewMaps(readings, o.selected) { // the interface may be gone before it is reported
		a.last = remembered{state.UID, before}
	}
	return before.Book(readings, o.selected, listed(state.Spec)), nil
}

// nodeSnapshot holds the interfaces and the attachments of the node at the beginning of a pass.
type nodeSnapshot struct {
	interfaces []plan.Interface
	attached   []plan.Attachment
	hidden     error // why the attachments are not known: the pins are not visible
	// tunnels is set if an interface is counted in generic mode, and packets of IPsec tunnels are decrypted on the node.
	tunnels bool
}

// gather lists attachments and interfaces. It reads the default routes only if a selection needs them: a routing table can be
// large.
func (a *Agent) gather(asked []plan.Selection) (s nodeSnapshot, err error) {
	// Attachments first: an attachment that is made meanwhile is then missing, rather than without interface.
	s.attached, err = a.Datapath.Attached()
	if errors.Is(err, plan.ErrBPFFSNotMounted) {
		s.hidden, err = err, nil
	}
	if err != nil {
		return s, fmt.Errorf("list attachments: %w", err)
	}
	if s.interfaces, err = a.Links.List(); err != nil {
		return s, fmt.Errorf("list interfaces: %w", err)
	}
	s.tunnels = s.hasGeneric() && a.Links.DecryptsTunnels()
	if !slices.ContainsFunc(asked, plan.Selection.UsesPrimary) {
		return s, nil
	}
	primary, err := a.Links.Primary()
	if err != nil {
		return s, fmt.Errorf("find the primary interfaces: %w", err)
	}
	for i := range s.interfaces {
		s.interfaces[i].Primary = primary[s.interfaces[i].Index]
	}
	return s, nil
}

// hasGeneric reports whether an interface is counted in generic mode.
func (s nodeSnapshot) hasGeneric() bool {
	present := byIndex(s.interfaces)
	return slices.ContainsFunc(s.attached, func(h plan.Attachment) bool {
		i := present[h.Index]
		return i.Hook.Mode == plan.Generic && h.Live(i)
	})
}

// byIndex returns the interfaces by their index.
func byIndex(interfaces []plan.Interface) map[int]plan.Interface {
	all := make(map[int]plan.Interface, len(interfaces))
	for _, i := range interfaces {
		all[i.Index] = i
	}
	return all
}

// read returns the readings. Those of attachments that no longer count have no interface.
func (a *Agent) read(s nodeSnapshot) ([]traffic.Reading, error) {
	readings, err := a.Datapath.Read()
	if err != nil {
		return nil, fmt.Errorf("read counts: %w", err)
	}
	interfaces := byIndex(s.interfaces)
	live := map[uint32]bool{}
	for _, attachment := range s.attached {
		if attachment.Live(interfaces[attachment.Index]) {
			live[attachment.Map] = true
		}
	}
	for i := range readings {
		if !live[readings[i].Map.ID] {
			readings[i].Index = 0
		}
	}
	return readings, nil
}

// attach returns, by interface index, why an attachment could not be made. One bad interface does not stop the
// others.
func (a *Agent) attach(ctx context.Context, attachments []plan.Attachment, interfaces []plan.Interface) map[int]error {
	log := ctrl.LoggerFrom(ctx)
	present := byIndex(interfaces)
	failed := map[int]error{}
	refused := map[int]refusal{}
	for _, attachment := range attachments {
		now := refusal{wish: attachment, mtu: present[attachment.Index].MTU, at: a.Clock.Now()}
		if last, ok := a.refused[attachment.Index]; ok && reflect.DeepEqual(last.wish, now.wish) && last.mtu == now.mtu && now.at.Sub(last.at) < driverRetryInterval {
			failed[attachment.Index], refused[attachment.Index] = last.err, last
			continue
		}
		if err := a.Datapath.Attach(attachment); err != nil {
			failed[attachment.Index] = err
			if refusedByDriver(err) {
				now.err = err
				refused[attachment.Index] = now
			}
			log.V(1).Info("Interface not attached", "interface", attachment.Name, "mode", attachment.Mode, "reason", reasonOf(err), "error", err.Error())
			continue
		}
		log.Info("Interface attached", "interface", attachment.Name, "mode", attachment.Mode)
	}
	a.refused = refused
	return failed
}

func (a *Agent) detach(ctx context.Context, attachments []plan.Attachment) error {
	var errs []error
	for _, attachment := range attachments {
		if err := a.Datapath.Detach(attachment); err != nil {
			errs = append(errs, fmt.Errorf("detach %s: %w", attachment.Pin, err))
			continue
		}
		ctrl.LoggerFrom(ctx).Info("Interface detached", "index", attachment.Index, "pin", attachment.Pin)
	}
	return errors.Join(errs...)
}

// detachAll detaches everything: the node state is gone, and with it the counters that the counts belong to. The controller
// deletes it when no counter is left and all is detached, or after it has added a departed node's accounts to those
// of the cluster.
func (a *Agent) detachAll(ctx context.Context) error {
	attached, err := a.Datapath.Attached()
	if err != nil {
		return fmt.Errorf("list attachments: %w", err)
	}
	return a.detach(ctx, attached)
}
