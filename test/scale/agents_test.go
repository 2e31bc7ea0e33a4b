// SPDX-License-Identifier: Apache-2.0

package scale

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/agent"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
	"github.com/xdp-operator/xdp-operator/test/util/objects"
	"github.com/xdp-operator/xdp-operator/test/util/scheme"
)

// atOnce is the number of nodes that are created, and of agents that are started, at a time.
const atOnce = 32

// passesPerSecond limits the resync passes of all agents together, because in a cluster each node has its own CPUs. Nothing
// changes here that a resync could find.
const passesPerSecond = 100

// simulatedAgents holds the nodes and their agents. Each agent is the real one, with its own client, cache and watch. They
// share connections, and the API server allows 100 requests per connection.
type simulatedAgents struct {
	config  *rest.Config
	http    *http.Client
	scheme  *runtime.Scheme
	nodes   []*node
	traffic sentTraffic
	peak    peak
}

func newSimulatedAgents(c *netnscluster.Cluster, nodes int) (*simulatedAgents, error) {
	f := &simulatedAgents{scheme: scheme.New()}
	kubeconfig, err := c.Kubeconfig("system:serviceaccount:"+netnscluster.Namespace+":xdp-operator-agent",
		"system:serviceaccounts", "system:serviceaccounts:"+netnscluster.Namespace, "system:authenticated")
	if err != nil {
		return nil, err
	}
	if f.config, err = clientcmd.RESTConfigFromKubeConfig(kubeconfig); err != nil {
		return nil, err
	}
	f.config.QPS = -1 // as agents in pods do; the API server limits the rate by priority and fairness
	f.config.UserAgent = "xdp-operator-agent/simulated"
	f.config.Wrap(f.peak.count)
	if f.http, err = rest.HTTPClientFor(f.config); err != nil {
		return nil, err
	}
	for i := range nodes {
		name := fmt.Sprintf("node-%04d", i)
		f.nodes = append(f.nodes, &node{name: name, agents: f, kernel: kernel{boot: "boot-of-" + name, traffic: &f.traffic}})
	}
	return f, nil
}

// each calls do for all nodes, with limited concurrency.
func each(nodes []*node, do func(*node) error) error {
	var (
		group sync.WaitGroup
		mu    sync.Mutex
		errs  []error
	)
	turn := make(chan struct{}, atOnce)
	for _, n := range nodes {
		turn <- struct{}{}
		group.Go(func() {
			defer func() { <-turn }()
			if err := do(n); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("%s: %w", n.name, err))
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// join creates the Node objects.
func (f *simulatedAgents) join(ctx context.Context, c client.Client) error {
	return each(f.nodes, func(n *node) error {
		object := &corev1.Node{}
		object.Name, object.Labels = n.name, map[string]string{"pool": "edge"}
		return c.Create(ctx, object)
	})
}

// start starts all agents and returns when their caches are synced.
func (f *simulatedAgents) start(ctx context.Context) error {
	return each(f.nodes, func(n *node) error { return n.start(ctx) })
}

// stop stops all agents. Their programs stay attached.
func (f *simulatedAgents) stop() {
	for _, n := range f.nodes {
		n.cancel()
	}
	for _, n := range f.nodes {
		n.running.Wait()
	}
}

// kill stops agents, and makes their nodes NotReady, as if the machines had failed.
func (f *simulatedAgents) kill(ctx context.Context, c client.Client, nodes []*node) error {
	return each(nodes, func(n *node) error {
		n.cancel()
		n.running.Wait()
		return n.condition(ctx, c, corev1.NodeCondition{
			Type: corev1.NodeReady, Status: corev1.ConditionUnknown, Reason: "NodeStatusUnknown", LastTransitionTime: metav1.Now(),
		})
	})
}

// revive is the opposite of kill.
func (f *simulatedAgents) revive(ctx context.Context, c client.Client, nodes []*node) error {
	return each(nodes, func(n *node) error {
		return errors.Join(n.start(context.Background()), n.condition(ctx, c))
	})
}

// condition replaces the conditions of the Node object.
func (n *node) condition(ctx context.Context, c client.Client, conditions ...corev1.NodeCondition) error {
	object := &corev1.Node{}
	object.Name = n.name
	return objects.EditStatus(ctx, c, object, func() { object.Status.Conditions = conditions }) // Kubernetes' own controller writes it
}

// notified returns the number of agents that have received counters whose generations have the given sum.
func (f *simulatedAgents) notified(generations int64) (agents int) {
	for _, n := range f.nodes {
		if n.notified.Load() == generations {
			agents++
		}
	}
	return agents
}

// node is a simulated node.
type node struct {
	name   string
	agents *simulatedAgents
	kernel kernel

	notified atomic.Int64 // sum of the generations of the counters that its agent has received
	cancel   context.CancelFunc
	running  sync.WaitGroup
}

// start starts an agent as cmd/agent does, without a manager. It reconciles at the start, when its spec changes, and after
// RequeueAfter.
func (n *node) start(ctx context.Context) error {
	ctx, n.cancel = context.WithCancel(ctx)
	mapper, err := agent.Mapper(n.agents.config, n.agents.http)
	if err != nil {
		return err
	}
	options := agent.CacheOptions(n.name)
	options.HTTPClient, options.Scheme, options.Mapper = n.agents.http, n.agents.scheme, mapper
	own, err := cache.New(n.agents.config, options)
	if err != nil {
		return err
	}
	api, err := client.New(n.agents.config, client.Options{
		HTTPClient: n.agents.http, Scheme: n.agents.scheme, Mapper: mapper, Cache: &client.CacheOptions{Reader: own},
	})
	if err != nil {
		return err
	}
	informer, err := own.GetInformer(ctx, &v1alpha1.XDPNodeState{}, cache.BlockUntilSynced(false))
	if err != nil {
		return err
	}
	wake := make(chan struct{}, 1)
	if _, err := informer.AddEventHandler(n.handler(wake)); err != nil {
		return err
	}
	n.running.Go(func() { _ = own.Start(ctx) }) // returns when the context is done
	if !own.WaitForCacheSync(ctx) {
		return errors.New("the cache is not synced")
	}
	a := &agent.Agent{
		Resync: max(2*time.Second, time.Duration(len(n.agents.nodes))*time.Second/passesPerSecond),
		Client: api, Node: n.name, Datapath: &n.kernel, Links: &n.kernel, Clock: clock.RealClock{},
		Info: v1alpha1.AgentInfo{Version: "0.1.0", KernelRelease: "6.12.0-amd64", BootID: n.kernel.boot, ProgramTag: "0123456789abcdef"},
	}
	n.running.Go(func() { n.run(ctx, a, wake) })
	return nil
}

func (n *node) handler(wake chan<- struct{}) toolscache.ResourceEventHandler {
	var generation int64
	see := func(object any) {
		state, ok := object.(*v1alpha1.XDPNodeState)
		if !ok || state.Generation == generation {
			return
		}
		generation = state.Generation
		var generations int64
		for _, c := range state.Spec.Counters {
			generations += c.Generation
		}
		n.notified.Store(generations)
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	return toolscache.ResourceEventHandlerFuncs{AddFunc: see, UpdateFunc: func(_, object any) { see(object) }}
}

func (n *node) run(ctx context.Context, a *agent.Agent, wake <-chan struct{}) {
	const first, longest = 100 * time.Millisecond, 5 * time.Second // as agent.SetupWithManager has it
	back := first
	for {
		result, err := a.Reconcile(ctx, ctrl.Request{})
		wait := result.RequeueAfter
		if err != nil {
			wait, back = back, min(2*back, longest)
		} else {
			back = first
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// peak counts write requests and the bytes of their bodies, and holds the maximum number of writes in a second.
type peak struct {
	mu        sync.Mutex
	second    int64
	now, most int
	bytes     int64
}

func (p *peak) count(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.Method != http.MethodGet {
			p.mu.Lock()
			if second := time.Now().Unix(); second != p.second {
				p.second, p.now = second, 0
			}
			p.now++
			p.bytes += r.ContentLength
			p.most = max(p.most, p.now)
			p.mu.Unlock()
		}
		return next.RoundTrip(r)
	})
}

// reset returns the maximum number of writes in a second, and the bytes of all writes, since the last call.
func (p *peak) reset() (most int, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	most, bytes = p.most, p.bytes
	p.most, p.now, p.bytes = 0, 0, 0
	return most, bytes
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
