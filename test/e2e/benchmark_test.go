// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

const (
	tries = 20
	// goal is the maximum of the median on an idle machine, limit that on a busy machine.
	goal  = time.Second
	limit = 5 * time.Second
	// bench is an interface of each node that no other counter selects.
	bench = "bench0"
)

// times are the durations of one try since the start of kubectl.
type times struct {
	kubectl  time.Duration // kubectl has exited
	attached time.Duration // the program is attached on all nodes, so that the next packet is counted
	ready    time.Duration // the API says that the counter is Ready
}

// benchmark creates counters with kubectl apply. Each of them attaches to its own interface on every node.
func benchmark(t *testing.T) {
	for _, n := range c.Nodes() {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = bench
		pair := &netlink.Veth{LinkAttrs: attrs, PeerName: "bench1"}
		if err := n.Do(func() error { return netlink.LinkAdd(pair) }); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := n.Do(func() error { return netlink.LinkDel(pair) }); err != nil {
				t.Error(err)
			}
		}()
	}
	var took []times
	for i := range tries {
		took = append(took, try(t, fmt.Sprintf("try-%d", i)))
	}
	for _, row := range []struct {
		what string
		of   func(times) time.Duration
	}{
		{"kubectl apply has ended", func(t times) time.Duration { return t.kubectl }},
		{"counting on both nodes", func(t times) time.Duration { return t.attached }},
		{"XDPCounter is Ready", func(t times) time.Duration { return t.ready }},
	} {
		var all []time.Duration
		for _, t := range took {
			all = append(all, row.of(t))
		}
		slices.Sort(all)
		median := (all[tries/2-1] + all[tries/2]) / 2
		t.Logf("%-24s median %4d ms, %4d to %4d ms, %d tries (goal %d ms)", row.what,
			median.Milliseconds(), all[0].Milliseconds(), all[tries-1].Milliseconds(), tries, goal.Milliseconds())
		if median > limit {
			t.Errorf("%s only after %v", row.what, median)
		}
	}
}

// try creates a counter, waits until it counts, and deletes it.
func try(t *testing.T, name string) (took times) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	w, err := api.Watch(ctx, &v1alpha1.XDPCounterList{}, client.MatchingFields{"metadata.name": name})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	cmd := c.Kubectl(ctx, "apply", "--filename", "-")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(
		"{apiVersion: xdp-operator.io/v1alpha1, kind: XDPCounter, metadata: {name: %s}, spec: {interfaces: {names: [%s]}}}", name, bench))

	began := time.Now()
	applied, attachedAll := make(chan error, 1), make(chan error, 1)
	go func() {
		out, err := cmd.CombinedOutput()
		took.kubectl = time.Since(began)
		if err != nil {
			err = fmt.Errorf("kubectl apply: %w: %s", err, out)
		}
		applied <- err
	}()
	go func() {
		err := awaitBench(ctx, true)
		took.attached = time.Since(began)
		attachedAll <- err
	}()
	for e := range w.ResultChan() {
		x, ok := e.Object.(*v1alpha1.XDPCounter)
		if ok && meta.IsStatusConditionPresentAndEqual(x.Status.Conditions, v1alpha1.ConditionReady, metav1.ConditionTrue) {
			took.ready = time.Since(began)
			break
		}
	}
	for _, result := range []chan error{applied, attachedAll} {
		if err := <-result; err != nil {
			t.Fatal(err)
		}
	}
	if took.ready == 0 {
		t.Fatalf("counter %s has not become Ready", name)
	}
	x, err := get(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	if err := api.Delete(ctx, x); err != nil {
		t.Fatal(err)
	}
	if err := awaitBench(ctx, false); err != nil {
		t.Fatal(err)
	}
	return took
}

// awaitBench waits until programs are attached to the interfaces of the benchmark on all nodes, or on none.
func awaitBench(ctx context.Context, want bool) error {
	for _, n := range c.Nodes() {
		for {
			programs, err := attached(n)
			if err != nil {
				return err
			}
			if _, is := programs[bench]; is == want {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("a program on %s of %s: want %v: %w", bench, n.Name, want, ctx.Err())
			case <-time.After(2 * time.Millisecond):
			}
		}
	}
	return nil
}
