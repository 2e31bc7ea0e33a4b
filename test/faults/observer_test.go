// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
	"github.com/xdp-operator/xdp-operator/test/util/audit"
)

// observer watches every version of every XDPCounter, and checks that totals never decrease, and that protocols and families
// add up to the total. After an outage of the API server it continues at the last version.
type observer struct {
	client client.WithWatch
	cancel context.CancelFunc
	done   chan struct{}

	mu       sync.Mutex
	version  string // of the last event
	seen     int    // versions
	gaps     int    // number of times that the version was too old for the server
	highest  audit.Highest
	mistakes []string // since the last call of take
	wrong    int      // number of versions with a mistake
}

func newObserver(c *netnscluster.Cluster) (*observer, error) {
	watcher, err := client.NewWithWatch(c.Config(), client.Options{Scheme: c.Client.Scheme()})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	o := &observer{client: watcher, cancel: cancel, done: make(chan struct{}), highest: audit.Highest{}}
	go func() {
		defer close(o.done)
		for ctx.Err() == nil {
			o.follow(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return o, nil
}

func (o *observer) end() {
	o.cancel()
	<-o.done
}

// follow watches from the last version until the watch ends.
func (o *observer) follow(ctx context.Context) {
	events, err := o.client.Watch(ctx, &v1alpha1.XDPCounterList{}, &client.ListOptions{
		Raw: &metav1.ListOptions{ResourceVersion: o.version, AllowWatchBookmarks: true},
	})
	if err != nil {
		return // the server is not running
	}
	defer events.Stop()
	for e := range events.ResultChan() {
		o.mu.Lock()
		switch x := e.Object.(type) {
		case *v1alpha1.XDPCounter:
			o.version = x.ResourceVersion
			if e.Type == watch.Added || e.Type == watch.Modified {
				o.check(x)
			}
		case *metav1.Status:
			if apierrors.IsResourceExpired(apierrors.FromObject(x)) || apierrors.IsGone(apierrors.FromObject(x)) {
				o.version = ""
				o.gaps++
			}
		}
		o.mu.Unlock()
	}
}

func (o *observer) check(x *v1alpha1.XDPCounter) {
	if x.Status.Total != nil {
		o.seen++
	}
	if err := o.highest.CheckCounter(x); err != nil {
		o.wrong++
		o.mistakes = append(o.mistakes, err.Error())
	}
}

// take returns the mistakes since the last call.
func (o *observer) take() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	mistakes := o.mistakes
	o.mistakes = nil
	return mistakes
}
