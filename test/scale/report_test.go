// SPDX-License-Identifier: Apache-2.0

package scale

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/eventually"
)

// The cost of one report for the API server and etcd, by the number of counters of its node. The agent writes the first
// report. Then the totals grow, and nothing else changes.
func BenchmarkReport(b *testing.B) {
	for _, counters := range []int{1, 5, 20} {
		b.Run(fmt.Sprintf("counters=%d", counters), func(b *testing.B) {
			state := reported(b, counters)
			state.Spec = v1alpha1.XDPNodeStateSpec{} // the agent does not send it
			body, err := json.Marshal(state)
			if err != nil {
				b.Fatal(err)
			}
			measureCPU(b, func() error {
				now := metav1.NowMicro()
				state.Status.ReportTime = &now
				for i := range state.Status.Accounts {
					state.Status.Accounts[i].Counts[0].Packets++
				}
				err := c.Client.Status().Update(b.Context(), state)
				state.Spec = v1alpha1.XDPNodeStateSpec{} // set by the response
				return err
			}, 1)
			b.ReportMetric(float64(len(body)), "bytes")
		})
	}
}

// The cost of a change of a spec, by the number of counters in the node's report. A node without counters and reports shows the
// minimum cost of a write.
func BenchmarkSpec(b *testing.B) {
	change := func(b *testing.B, state *v1alpha1.XDPNodeState) {
		b.Helper()
		measureCPU(b, func() error {
			state.Spec.ReportInterval.Duration += time.Second
			state.Status = v1alpha1.XDPNodeStateStatus{} // the controller does not send it
			return c.Client.Update(b.Context(), state)
		}, 1)
	}
	b.Run("counters=0", func(b *testing.B) {
		state := &v1alpha1.XDPNodeState{}
		state.Name = "nobody"
		state.Spec.ReportInterval.Duration = time.Second
		if err := c.Client.Create(b.Context(), state); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := c.Client.Delete(context.Background(), state); err != nil {
				b.Error(err)
			}
		})
		change(b, state)
	})
	for _, counters := range []int{1, 5, 20} {
		b.Run(fmt.Sprintf("counters=%d", counters), func(b *testing.B) { change(b, reported(b, counters)) })
	}
}

// BenchmarkSpecWriters writes the specs of 1,000 node states with that many writers at the same time (--spec-writers), and
// measures the specs per second and the CPU time of the API server and etcd for one spec.
func BenchmarkSpecWriters(b *testing.B) {
	const nodes = 1000
	states := make([]*v1alpha1.XDPNodeState, nodes)
	for i := range states {
		states[i] = &v1alpha1.XDPNodeState{}
		states[i].Name = fmt.Sprintf("writers-%04d", i)
		states[i].Spec.ReportInterval.Duration = time.Second
		states[i].Spec.Counters = []v1alpha1.NodeCounter{{Name: "all", UID: uuid.NewUUID(), Primary: true}}
		if err := c.Client.Create(b.Context(), states[i]); err != nil {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() {
		for _, state := range states {
			if err := c.Client.Delete(context.Background(), state); err != nil {
				b.Error(err)
			}
		}
	})
	for _, writers := range []int{1, 4, 16, 32} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			began := time.Now()
			measureCPU(b, func() error {
				var group errgroup.Group
				group.SetLimit(writers)
				for _, state := range states {
					group.Go(func() error {
						state.Spec.Counters[0].Generation++
						return c.Client.Update(b.Context(), state)
					})
				}
				return group.Wait()
			}, nodes)
			b.ReportMetric(nodes*float64(b.N)/time.Since(began).Seconds(), "specs/s")
		})
	}
}

// measureCPU reports the CPU time of the API server and etcd for one of the writes that a call of write makes.
func measureCPU(b *testing.B, write func() error, writes int) {
	b.Helper()
	before, err := cpuTimes()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := write(); err != nil {
			b.Fatal(err)
		}
	}
	after, err := cpuTimes()
	if err != nil {
		b.Fatal(err)
	}
	for _, program := range []string{apiServer, etcd} {
		b.ReportMetric(1000*(after[program]-before[program])/float64(b.N*writes), program+"-ms/op")
	}
}

// reported returns a node state with the number of counters after its agent has reported traffic.
func reported(b *testing.B, counters int) *v1alpha1.XDPNodeState {
	b.Helper()
	f, err := newSimulatedAgents(c, 1)
	if err != nil {
		b.Fatal(err)
	}
	if err := f.join(b.Context(), c.Client); err != nil {
		b.Fatal(err)
	}
	state := &v1alpha1.XDPNodeState{}
	state.Name = f.nodes[0].name
	state.Spec.ReportInterval.Duration = time.Second
	for i := range counters {
		state.Spec.Counters = append(state.Spec.Counters, v1alpha1.NodeCounter{
			Name: name(i), UID: uuid.NewUUID(), Generation: 1, Primary: true,
		})
	}
	if err := c.Client.Create(b.Context(), state); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		f.stop()
		node := &corev1.Node{}
		node.Name = state.Name
		if err := c.Client.Delete(context.Background(), node); err != nil {
			b.Error(err)
		}
		if err := c.Client.Delete(context.Background(), state); err != nil {
			b.Error(err)
		}
	})
	if err := f.start(context.Background()); err != nil {
		b.Fatal(err)
	}
	err = eventually.Check(b.Context(), patience, func() error {
		f.traffic.ticks.Add(1_000_000)
		if err := c.Client.Get(b.Context(), types.NamespacedName{Name: state.Name}, state); err != nil {
			return err
		}
		if len(state.Status.Accounts) < counters || len(state.Status.Accounts[0].Counts) == 0 {
			return fmt.Errorf("%d accounts are reported", len(state.Status.Accounts))
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	f.stop()
	if err := c.Client.Get(b.Context(), types.NamespacedName{Name: state.Name}, state); err != nil {
		b.Fatal(err)
	}
	return state
}
