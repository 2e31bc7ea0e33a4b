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

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// The collections.
const (
	counters   = "xdpcounters"
	nodeStates = "xdpnodestates"
)

// pageSize bounds what the API server has to hold of a large collection at once.
const pageSize = 500

// client reads XDPCounters and XDPNodeStates. Errors wrap those of errors.go.
type client struct {
	rest rest.Interface
	host string
}

func newClient(flags genericclioptions.RESTClientGetter) (*client, error) {
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
	c, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return &client{rest: c, host: config.Host}, nil
}

// listed is a collection as it was at one resource version.
type listed struct {
	objects         []runtime.Object
	resourceVersion string
}

// list returns the object with the name, or all if it is "".
func (c *client) list(ctx context.Context, resource, name string) (listed, error) {
	var all listed
	options := metav1.ListOptions{Limit: pageSize, FieldSelector: selectorOf(name)}
	for {
		page, err := c.rest.Get().Resource(resource).VersionedParams(&options, metav1.ParameterCodec).Do(ctx).Get()
		if err != nil {
			return listed{}, explain(err, "list", resource, c.host)
		}
		objects, err := meta.ExtractList(page)
		if err != nil {
			return listed{}, fmt.Errorf("list %s: %w", resource, err)
		}
		about, err := meta.ListAccessor(page)
		if err != nil {
			return listed{}, fmt.Errorf("list %s: %w", resource, err)
		}
		all.objects = append(all.objects, objects...)
		all.resourceVersion = about.GetResourceVersion()
		if options.Continue = about.GetContinue(); options.Continue == "" {
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

// watch returns what happens to the collection after the resource version.
func (c *client) watch(ctx context.Context, resource, name, after string) (watch.Interface, error) {
	options := metav1.ListOptions{FieldSelector: selectorOf(name), ResourceVersion: after, AllowWatchBookmarks: true, Watch: true}
	w, err := c.rest.Get().Resource(resource).VersionedParams(&options, metav1.ParameterCodec).Watch(ctx)
	return w, explain(err, "watch", resource, c.host)
}

// counters returns the counter with the name, or all if it is "". A name that none has is an error that tells those
// there are.
func (c *client) counters(ctx context.Context, name string) ([]v1alpha1.XDPCounter, error) {
	found, err := c.list(ctx, counters, name)
	if err != nil {
		return nil, err
	}
	if name != "" && len(found.objects) == 0 {
		return nil, c.noCounter(ctx, name)
	}
	return as[v1alpha1.XDPCounter](found.objects), nil
}

func (c *client) nodeStates(ctx context.Context) ([]v1alpha1.XDPNodeState, error) {
	found, err := c.list(ctx, nodeStates, "")
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
	case err != nil: // who may see one of them only need not see the others
		return fmt.Errorf("%w: %s", errNoCounter, name)
	case len(all) == 0:
		return fmt.Errorf("%w: %s; there is none at all: kubectl apply -f makes one, for example of config/samples", errNoCounter, name)
	default:
		return fmt.Errorf("%w: %s; there is: %s", errNoCounter, name, strings.Join(all, ", "))
	}
}

// names returns the names of all counters, sorted.
func (c *client) names(ctx context.Context) ([]string, error) {
	all, err := c.list(ctx, counters, "")
	var names []string
	for _, counter := range as[v1alpha1.XDPCounter](all.objects) {
		names = append(names, counter.Name)
	}
	return names, err
}

// as returns the objects that are of the kind.
func as[T any](objects []runtime.Object) []T {
	var list []T
	for _, o := range objects {
		if object, ok := any(o).(*T); ok {
			list = append(list, *object)
		}
	}
	return list
}

// news is what follow tells of a collection: all that is in it, what became of one object, or that nothing is known of
// it since err.
type news struct {
	resource string
	all      *listed
	event    watch.Event
	err      error
}

// retryAfter is how long follow waits before it lists again what it could not watch.
const retryAfter = time.Second

// follow lists and watches a collection, and lists it again when the watch ends, until ctx is done. It returns an error
// only if the first list or watch fails.
func (c *client) follow(ctx context.Context, resource, name string, tell func(news)) error {
	for first := true; ; first = false {
		err := c.listAndWatch(ctx, resource, name, tell)
		if ctx.Err() == nil && err != nil {
			if first {
				return err
			}
			tell(news{resource: resource, err: err})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryAfter):
		}
	}
}

// listAndWatch tells what is there and what becomes of it, until the watch ends.
func (c *client) listAndWatch(ctx context.Context, resource, name string, tell func(news)) error {
	all, err := c.list(ctx, resource, name)
	if err != nil {
		return err
	}
	tell(news{resource: resource, all: &all})
	w, err := c.watch(ctx, resource, name, all.resourceVersion)
	if err != nil {
		return err
	}
	pass(w, resource, tell)
	return nil
}

// pass tells what is watched until the watch ends, as it does after an hour, when the API server ends, and when it has
// forgotten what was before.
func pass(w watch.Interface, resource string, tell func(news)) {
	defer w.Stop()
	for event := range w.ResultChan() {
		switch event.Type {
		case watch.Added, watch.Modified, watch.Deleted:
			tell(news{resource: resource, event: event})
		case watch.Bookmark:
		case watch.Error:
			return
		}
	}
}
