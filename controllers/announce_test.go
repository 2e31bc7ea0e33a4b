package controllers

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	testclock "k8s.io/utils/clock/testing"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/memapi"
)

func TestWhatAllAgentsAreToldAtOnce(t *testing.T) {
	all, one := counter("a").Obj(), counter("a").Pool("edge").Obj()
	told := func(c v1alpha1.XDPCounter, active bool) []v1alpha1.NodeCounter {
		return []v1alpha1.NodeCounter{entry(&c, active)}
	}
	knows := func(generation int64) v1alpha1.XDPNodeState {
		s := state("n1").Told("a").Obj()
		s.Spec.Counters[0].Generation = generation
		return s
	}
	for name, tc := range map[string]struct {
		counters []v1alpha1.XDPCounter
		notice   v1alpha1.XDPNotice
		states   []v1alpha1.XDPNodeState
		want     []v1alpha1.NodeCounter
		waiting  bool
	}{
		"of a counter that selects every node":             {counters: []v1alpha1.XDPCounter{all}, want: told(all, true)},
		"of none that selects some, even if these are all": {counters: []v1alpha1.XDPCounter{one}},
		"of none whose selector cannot be read":            {counters: []v1alpha1.XDPCounter{counter("a").Selector("pool", "Near", "edge").Obj()}},
		"of an empty selector, which selects every node":   {counters: []v1alpha1.XDPCounter{counter("a").Everywhere().Obj()}, want: told(counter("a").Everywhere().Obj(), true)},
		"the oldest first": {
			counters: []v1alpha1.XDPCounter{counter("a").Younger().Obj(), counter("b").Obj()},
			want:     append(told(counter("b").Obj(), true), told(all, true)...),
		},
		"of none that was made suspended": {counters: []v1alpha1.XDPCounter{counter("a").Suspended().Obj()}},
		"but of one that is suspended now": {
			counters: []v1alpha1.XDPCounter{counter("a").Suspended().Obj()}, notice: notice("a"), want: told(counter("a").Suspended().Obj(), false),
		},
		"of a counter that is gone no more": {notice: notice("a"), states: []v1alpha1.XDPNodeState{knows(2)}},
		"as before of one that selects some nodes now, while a node state does not list it": {
			counters: []v1alpha1.XDPCounter{one}, notice: notice("a"), states: []v1alpha1.XDPNodeState{knows(2), state("n2").Obj()},
			want: notice("a").Spec.Counters, waiting: true,
		},
		"or knows an older generation of it": {
			counters: []v1alpha1.XDPCounter{one}, notice: notice("a"), states: []v1alpha1.XDPNodeState{knows(1)},
			want: notice("a").Spec.Counters, waiting: true,
		},
		"and no more when all tell of it": {counters: []v1alpha1.XDPCounter{one}, notice: notice("a"), states: []v1alpha1.XDPNodeState{knows(3)}},
	} {
		t.Run(name, func(t *testing.T) {
			got, waiting := announce(tc.counters, &tc.notice, tc.states)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if waiting != tc.waiting {
				t.Errorf("waiting %v, want %v", waiting, tc.waiting)
			}
		})
	}
}

func TestWhatASpecTakesIn(t *testing.T) {
	older := counter("a").Obj()
	older.Generation = 1
	for name, tc := range map[string]struct {
		counters []v1alpha1.XDPCounter
		want     int64
	}{
		"the notice, if it is made of counters that are as new":        {[]v1alpha1.XDPCounter{counter("a").Obj(), counter("b").Obj()}, 7},
		"nothing, if the notice tells of a newer version of a counter": {[]v1alpha1.XDPCounter{older}, 0},
		"nothing, if it tells of one that is not here, or not yet":     {[]v1alpha1.XDPCounter{counter("b").Obj()}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			n, news := node("n1", "edge"), notice("a")
			news.Generation = 7
			if got := assign(tc.counters, &n, nil, &news, 1, Budget{}).Notice; got != tc.want {
				t.Errorf("generation %d, want %d", got, tc.want)
			}
		})
	}
}

func TestANoticeThatChangesNothingElseIsNoReasonToWriteASpec(t *testing.T) {
	server := memapi.New(testclock.NewFakeClock(now).Now)
	live := &memapi.Client{Server: server}
	a, b, n1, news := counter("a").Obj(), counter("b").Pool("core").Obj(), node("n1", "edge"), notice()
	news.Name = v1alpha1.NoticeName
	err := errors.Join(live.Create(t.Context(), &a), live.Create(t.Context(), &b), live.Create(t.Context(), &n1))
	news.Spec.Counters = []v1alpha1.NodeCounter{entry(&a, true)}
	if err := errors.Join(err, live.Create(t.Context(), &news)); err != nil {
		t.Fatal(err)
	}
	r := &NodeStateReconciler{Client: live, Live: live, Clock: testclock.NewFakeClock(now)}
	reconcile := func() (spec v1alpha1.XDPNodeStateSpec, writes int) {
		t.Helper()
		server.Written = func(memapi.Change) { writes++ }
		if _, err := r.Reconcile(t.Context(), request("n1")); err != nil {
			t.Fatal(err)
		}
		server.Written = nil
		state := &v1alpha1.XDPNodeState{}
		if err := live.Get(t.Context(), types.NamespacedName{Name: "n1"}, state); err != nil {
			t.Fatal(err)
		}
		return state.Spec, writes
	}
	if spec, _ := reconcile(); spec.Notice != 1 {
		t.Errorf("a new node state takes in generation %d of the notice, want 1", spec.Notice)
	}
	news.Spec.Counters = nil
	if err := live.Update(t.Context(), &news); err != nil {
		t.Fatal(err)
	}
	if _, writes := reconcile(); writes != 0 {
		t.Errorf("%d writes because of the notice alone", writes)
	}
	a.Spec.Suspend = true
	if err := live.Update(t.Context(), &a); err != nil {
		t.Fatal(err)
	}
	if spec, writes := reconcile(); writes != 1 || spec.Notice != 2 {
		t.Errorf("%d writes, and generation %d of the notice is taken in, want 1 and 2", writes, spec.Notice)
	}
}

func TestTheNoticeIsWrittenWhereItDiffersAndGoesWithTheLastCounter(t *testing.T) {
	server := memapi.New(testclock.NewFakeClock(now).Now)
	live := &memapi.Client{Server: server}
	writes := 0
	server.Written = func(memapi.Change) { writes++ }
	r := &NoticeReconciler{Client: live, Live: live}
	reconcile := func(want int) {
		t.Helper()
		writes = 0
		if _, err := r.Reconcile(t.Context(), request(v1alpha1.NoticeName)); err != nil {
			t.Fatal(err)
		}
		if writes != want {
			t.Errorf("%d writes, want %d", writes, want)
		}
	}
	there := func() (n v1alpha1.XDPNotice, err error) {
		return n, live.Get(t.Context(), types.NamespacedName{Name: v1alpha1.NoticeName}, &n)
	}
	reconcile(0)
	a := counter("a").Obj()
	if err := live.Create(t.Context(), &a); err != nil {
		t.Fatal(err)
	}
	reconcile(1)
	reconcile(0)
	if n, err := there(); err != nil || n.Entry(a.UID) == nil {
		t.Errorf("the notice is %v (%v), want counter a in it", n.Spec, err)
	}
	if err := live.Delete(t.Context(), &a); err != nil {
		t.Fatal(err)
	}
	reconcile(1)
	if _, err := there(); !apierrors.IsNotFound(err) {
		t.Errorf("without a counter the notice stays: %v", err)
	}
}

// A controller that has just started may see a counter later than the notice that another one wrote of it.
func TestACounterThatTheCacheDoesNotHaveYetStaysInTheNotice(t *testing.T) {
	server := memapi.New(testclock.NewFakeClock(now).Now)
	live := &memapi.Client{Server: server}
	a, n := counter("a").Obj(), notice()
	n.Name = v1alpha1.NoticeName
	err := live.Create(t.Context(), &a)
	n.Spec.Counters = []v1alpha1.NodeCounter{entry(&a, true)}
	if err := errors.Join(err, live.Create(t.Context(), &n)); err != nil {
		t.Fatal(err)
	}
	cache := server.NewCache()
	cache.Forget(memapi.Counters, "a")
	server.Written = func(c memapi.Change) { t.Errorf("the notice is written: %+v", c.New) }
	r := &NoticeReconciler{Client: &memapi.Client{Server: server, Cache: cache}, Live: live}
	result, err := r.Reconcile(t.Context(), request(v1alpha1.NoticeName))
	if err != nil || result.RequeueAfter == 0 {
		t.Errorf("result %+v, error %v, want another try", result, err)
	}
}
