// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// The resources.
const (
	counterResource   = "xdpcounters"
	nodeStateResource = "xdpnodestates"
)

// pageSize limits the memory that the API server needs for a list.
const pageSize = 500

// client reads XDPCounters and XDPNodeStates. Its errors wrap those in errors.go.
type client struct {
	rest  rest.Interface
	host  string
	clock *serverClock
}

func newClient(flags genericclioptions.RESTClientGetter, local clock.PassiveClock) (*client, error) {
	config, err := flags.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	config = rest.CopyConfig(config)
	config.GroupVersion, config.APIPath = &v1alpha1.GroupVersion, "/apis"
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.UserAgent = "kubectl-xdpcounter/" + version
	config.WarningHandler = rest.NoWarnings{}
	server := &serverClock{local: local}
	config.Wrap(server.wrap)
	c, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("create a client: %w", err)
	}
	return &client{rest: c, host: config.Host, clock: server}, nil
}

// listResult holds all objects of a resource at one resource version.
type listResult struct {
	objects         []runtime.Object
	resourceVersion string
}

// list returns the object with the name, or all objects if the name is empty.
func (c *client) list(ctx context.Context, resource, name string) (listResult, error) {
	var all listResult
	options := metav1.ListOptions{Limit: pageSize, FieldSelector: selectorOf(name)}
	for {
		page, err := c.rest.Get().Resource(resource).VersionedParams(&options, metav1.ParameterCodec).Do(ctx).Get()
		if err != nil {
			return listResult{}, explain(err, "list", resource, c.host)
		}
		objects, err := meta.ExtractList(page)
		if err != nil {
			return listResult{}, fmt.Errorf("list %s: %w", resource, err)
		}
		metadata, err := meta.ListAccessor(page)
		if err != nil {
			return listResult{}, fmt.Errorf("list %s: %w", resource, err)
		}
		all.objects = append(all.objects, objects...)
		all.resourceVersion = metadata.GetResourceVersion()
		if options.Continue = metadata.GetContinue(); options.Continue == "" {
			return all, nil
		}
	}
}

func selectorOf(name string) string {
	if name == "" {
		return ""
	}
	return fields.OneTermEqualSelector("metadata.name", name).String()
}

// watch returns the events of the resource after the resource version.
func (c *client) watch(ctx context.Context, resource, name, after string) (watch.Interface, error) {
	options := metav1.ListOptions{FieldSelector: selectorOf(name), ResourceVersion: after, AllowWatchBookmarks: true, Watch: true}
	w, err := c.rest.Get().Resource(resource).VersionedParams(&options, metav1.ParameterCodec).Watch(ctx)
	return w, explain(err, "watch", resource, c.host)
}

// counters returns the counter with the name, or all counters if the name is empty. If no counter has the name, the error
// lists the names that exist.
func (c *client) counters(ctx context.Context, name string) ([]v1alpha1.XDPCounter, error) {
	found, err := c.list(ctx, counterResource, name)
	if err != nil {
		return nil, err
	}
	if name != "" && len(found.objects) == 0 {
		return nil, c.noCounter(ctx, name)
	}
	return as[v1alpha1.XDPCounter](found.objects), nil
}

func (c *client) nodeStates(ctx context.Context) ([]v1alpha1.XDPNodeState, error) {
	found, err := c.list(ctx, nodeStateResource, "")
	return as[v1alpha1.XDPNodeState](found.objects), err
}

// agentNamespace returns the namespace of the agents' pods, "" if the user may not list pods of all namespaces or if
// there is none.
func (c *client) agentNamespace(ctx context.Context) string {
	raw, err := c.rest.Get().AbsPath("/api/v1/pods").Param("labelSelector", v1alpha1.AgentPodLabels).Param("limit", "1").DoRaw(ctx)
	if err != nil {
		return ""
	}
	var pods metav1.PartialObjectMetadataList
	if json.Unmarshal(raw, &pods) != nil || len(pods.Items) == 0 {
		return ""
	}
	return pods.Items[0].Namespace
}

// noCounter is the error for a counter that is not there.
func (c *client) noCounter(ctx context.Context, name string) error {
	all, err := c.names(ctx)
	switch {
	case err != nil: // the user may have permission to read this counter only
		return fmt.Errorf("%w: %s", errNoCounter, name)
	case len(all) == 0:
		return fmt.Errorf("%w: %s; there are no XDPCounters: create one with kubectl apply -f, for example from config/samples", errNoCounter, name)
	default:
		return fmt.Errorf("%w: %s; existing: %s", errNoCounter, name, strings.Join(all, ", "))
	}
}

// names returns the names of all counters, sorted.
func (c *client) names(ctx context.Context) ([]string, error) {
	all, err := c.list(ctx, counterResource, "")
	var names []string
	for _, counter := range as[v1alpha1.XDPCounter](all.objects) {
		names = append(names, counter.Name)
	}
	return names, err
}

// as returns the objects of the type.
func as[T any](objects []runtime.Object) []T {
	var list []T
	for _, o := range objects {
		if object, ok := any(o).(*T); ok {
			list = append(list, *object)
		}
	}
	return list
}

// update is a notification from follow: a list of all objects, an event of one object, or an error after which the state of
// the resource is unknown.
type update struct {
	resource string
	all      *listResult
	event    watch.Event
	err      error
}

// retryAfter is how long follow waits before it lists the resource again.
const retryAfter = time.Second

// follow lists and watches a resource, and starts again when the watch ends, until ctx is done. It returns an error only if
// the first list or watch fails.
func (c *client) follow(ctx context.Context, resource, name string, notify func(update)) error {
	for first := true; ; first = false {
		err := c.listAndWatch(ctx, resource, name, notify)
		if ctx.Err() == nil && err != nil {
			if first {
				return err
			}
			notify(update{resource: resource, err: err})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryAfter):
		}
	}
}

// listAndWatch notifies about all objects, and then about each event until the watch ends.
func (c *client) listAndWatch(ctx context.Context, resource, name string, notify func(update)) error {
	all, err := c.list(ctx, resource, name)
	if err != nil {
		return err
	}
	notify(update{resource: resource, all: &all})
	w, err := c.watch(ctx, resource, name, all.resourceVersion)
	if err != nil {
		return err
	}
	forward(w, resource, notify)
	return nil
}

// forward notifies about each event until the watch ends. A watch ends by timeout, when the API server stops, and when the
// resource version is too old.
func forward(w watch.Interface, resource string, notify func(update)) {
	defer w.Stop()
	for event := range w.ResultChan() {
		switch event.Type {
		case watch.Added, watch.Modified, watch.Deleted:
			notify(update{resource: resource, event: event})
		case watch.Bookmark:
		case watch.Error:
			return
		}
	}
}
