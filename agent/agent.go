// Package agent is the node's half of the operator: it makes the interfaces of its node counted as its
// XDPNodeState says, and reports the totals in that object's status.
package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
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

// Datapath is what the agent needs of the kernel. The real one is datapath.Datapath.
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
}

// Links lists the interfaces of the host's network namespace. The real one is links.Links.
type Links interface {
	List() ([]plan.Interface, error)
}

const (
	followUp  = 20 * time.Millisecond  // when a pass left something for the next one
	retry     = 500 * time.Millisecond // when an interface could not be attached: nobody tells that a hook became free
	askDriver = 30 * time.Second       // when a driver refused and nothing about the interface has changed: some reset for it
	look      = 2 * time.Second        // whether all is as it was: nobody tells of a link that is cut
	idle      = 30 * time.Second       // when there is nothing to do
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
	Look     time.Duration // after which a pass looks whether all is as it was; zero: 2 s

	pulse   pulse
	turns   turns
	brake   brake
	last    remembered
	refused map[int]refusal // by interface index
	seen    seen
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
	state    types.UID // of which node state
	replaced string    // the version of it that was replaced then
	ledger   traffic.Ledger
}

// Reconcile makes one pass, whatever it was that asked for it.
//
// The order matters: the map of an attachment is given up only once its counts are saved, and it stays in the
// saved state until it is seen to be gone. So a crash between any two steps loses nothing and counts nothing
// twice.
func (a *Agent) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	began := a.Clock.Now()
	a.pulse.begin(began)
	wait, err := a.pass(ctx)
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) { // the cache is behind our own last write, or the deletion
		wait, err = followUp, nil
	}
	a.seen.pass(a.Clock.Since(began), err)
	if err != nil {
		return ctrl.Result{}, err
	}
	a.pulse.end(wait)
	return ctrl.Result{RequeueAfter: wait}, nil
}

// look returns how long the next pass may wait while all is well.
func (a *Agent) look() time.Duration { return cmp.Or(a.Look, look) }

// pass returns how long the next one may wait.
func (a *Agent) pass(ctx context.Context) (time.Duration, error) {
	state := &v1alpha1.XDPNodeState{}
	if err := a.Client.Get(ctx, types.NamespacedName{Name: a.Node}, state); apierrors.IsNotFound(err) {
		a.seen.interfaces(nil)
		return idle, a.giveUpAll(ctx)
	} else if err != nil {
		return 0, fmt.Errorf("get own node state: %w", err)
	}
	s, err := a.gather()
	if err != nil {
		return 0, err
	}
	before, err := a.ledger(state)
	if err != nil {
		return 0, err
	}

	asked := selections(state.Spec)
	want, selected, rejected := plan.Desired(asked, s.interfaces, s.attached)
	attach, detach := plan.Diff(s.attached, want, s.interfaces)
	failed := map[int]error{}
	if before.Opened { // a ledger is opened before anything new is counted
		if failed = a.attach(ctx, attach, s.interfaces); len(attach) > 0 { // an interface that failed may be gone
			if s, err = a.gather(); err != nil {
				return 0, err
			}
			// Only now is it known which mode Auto has got, and who agrees with it.
			_, selected, rejected = plan.Desired(asked, s.interfaces, s.attached)
		}
	}

	readings, err := a.read(s)
	if err != nil {
		return 0, err
	}
	if before.Meet(readings, selected) { // the interface may be gone before it is reported
		a.last.state, a.last.ledger = state.UID, before
	}
	after := before.Next(readings, selected, listed(state.Spec))
	status := a.report(state, s, outcome{want: want, selected: selected, rejected: rejected, failed: failed, detach: detach}, before, after)
	a.seen.interfaces(status.Interfaces)

	now := a.Clock.Now()
	wait := a.turns.due(state, status, now)
	if wait > 0 && !a.turns.told.IsZero() {
		a.turns.pass(now)
		return min(wait, a.look()), nil // and detach nothing: nobody is told yet
	}
	// What a map counted goes with it, so that is saved even where a report is not due: an earlier pass may have said
	// that it detaches, and ended before it did.
	if grown := len(detach) > 0 && !maps.Equal(before.Accounts, after.Accounts); wait <= 0 || grown {
		if a.brake.holds(state.ResourceVersion, now) {
			return pause, nil // and detach nothing: its counts are not saved
		}
		if err := a.save(ctx, state, status); err != nil {
			return 0, err
		}
		a.last = remembered{state.UID, state.ResourceVersion, after}
		wait = a.look()
	}
	a.turns.pass(now)

	if err := a.detach(ctx, detach); err != nil {
		return 0, err
	}
	switch {
	case !before.Opened || len(detach) > 0:
		return followUp, nil
	case len(failed) > 0:
		return min(wait, retry), nil
	default:
		return min(wait, a.look()), nil
	}
}

// situation is what there is: the interfaces and the attachments.
type situation struct {
	interfaces []plan.Interface
	attached   []plan.Attachment
}

func (a *Agent) gather() (s situation, err error) {
	// Attachments first: an attachment that is made meanwhile is then missing, rather than without interface.
	if s.attached, err = a.Datapath.Attached(); err != nil {
		return s, fmt.Errorf("list attachments: %w", err)
	}
	if s.interfaces, err = a.Links.List(); err != nil {
		return s, fmt.Errorf("list interfaces: %w", err)
	}
	return s, nil
}

// read returns the readings. Those of attachments that no longer count have no interface.
func (a *Agent) read(s situation) ([]traffic.Reading, error) {
	readings, err := a.Datapath.Read()
	if err != nil {
		return nil, fmt.Errorf("read counts: %w", err)
	}
	live := map[uint32]bool{}
	for _, attachment := range s.attached {
		for _, i := range s.interfaces {
			if attachment.Live(i) {
				live[attachment.Map] = true
			}
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
	failed := map[int]error{}
	refused := map[int]refusal{}
	for _, attachment := range attachments {
		now := refusal{wish: attachment, at: a.Clock.Now()}
		if at := slices.IndexFunc(interfaces, func(i plan.Interface) bool { return i.Index == attachment.Index }); at >= 0 {
			now.mtu = interfaces[at].MTU
		}
		if last, ok := a.refused[attachment.Index]; ok && last.wish == now.wish && last.mtu == now.mtu && now.at.Sub(last.at) < askDriver {
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

// giveUpAll detaches everything: the node state is gone, and with it whoever the counts were for. The controller
// deletes it when no counter is left and all is detached, or after it has added a departed node's accounts to those
// of the cluster.
func (a *Agent) giveUpAll(ctx context.Context) error {
	attached, err := a.Datapath.Attached()
	if err != nil {
		return fmt.Errorf("list attachments: %w", err)
	}
	return a.detach(ctx, attached)
}
