// SPDX-License-Identifier: Apache-2.0

// Package memapi is an API server in memory, for tests of what may happen between the programs of the project: it has
// what they rely on (UIDs, resource versions, generations, compare-and-swap, preconditions, the status apart, apply)
// for the three kinds that they use, caches that lag behind it at the test's will, and calls that fail before or after
// they took effect. It is used from one goroutine.
package memapi

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// Kind is one of the kinds that the server knows.
type Kind string

// The kinds.
const (
	Nodes      Kind = "nodes"
	Counters   Kind = "xdpcounters"
	NodeStates Kind = "xdpnodestates"
)

// Kinds returns all kinds.
func Kinds() []Kind { return []Kind{Nodes, Counters, NodeStates} }

func kindOf(object any) Kind {
	switch object.(type) {
	case *corev1.Node, *corev1.NodeList:
		return Nodes
	case *v1alpha1.XDPCounter, *v1alpha1.XDPCounterList:
		return Counters
	case *v1alpha1.XDPNodeState, *v1alpha1.XDPNodeStateList:
		return NodeStates
	default:
		panic(fmt.Sprintf("no such kind: %T", object))
	}
}

// Change is one change of an object. Old is nil if it was created, New if it was deleted.
type Change struct{ Old, New client.Object }

// Server holds the objects. Written, if set, sees each change when it is made.
type Server struct {
	Written func(Change)

	now     func() time.Time
	version int64
	objects map[Kind]map[string]client.Object
	log     map[Kind][]Change
}

// New returns an empty server. now gives the creation times.
func New(now func() time.Time) *Server {
	s := &Server{now: now, objects: map[Kind]map[string]client.Object{}, log: map[Kind][]Change{}}
	for _, kind := range Kinds() {
		s.objects[kind] = map[string]client.Object{}
	}
	return s
}

// put stores a copy of the object under a new resource version, or deletes what is there if it is nil.
func (s *Server) put(kind Kind, name string, object client.Object) {
	s.version++
	change := Change{Old: s.objects[kind][name]}
	if object == nil {
		delete(s.objects[kind], name)
	} else {
		object.SetResourceVersion(strconv.FormatInt(s.version, 10))
		change.New = clone(object)
		s.objects[kind][name] = change.New
	}
	s.log[kind] = append(s.log[kind], change)
	if s.Written != nil {
		s.Written(change)
	}
}

// found returns the object as it is, which is not to be changed, or NotFound.
func (s *Server) found(object client.Object) (client.Object, error) {
	kind := kindOf(object)
	if there, ok := s.objects[kind][object.GetName()]; ok {
		return there, nil
	}
	return nil, apierrors.NewNotFound(resource(kind), object.GetName())
}

// Cache is what a client has been told of: it may lag behind the server, each kind by itself, and never goes back.
type Cache struct {
	server  *Server
	seen    map[Kind]int // changes
	objects map[Kind]map[string]client.Object
}

// NewCache returns a cache that is up to date.
func (s *Server) NewCache() *Cache {
	c := &Cache{server: s, seen: map[Kind]int{}, objects: map[Kind]map[string]client.Object{}}
	for _, kind := range Kinds() {
		c.objects[kind] = maps.Clone(s.objects[kind])
		c.seen[kind] = len(s.log[kind])
	}
	return c
}

// Forget lets the cache be as if it had not been told of an object yet.
func (c *Cache) Forget(kind Kind, name string) { delete(c.objects[kind], name) }

// Next lets the cache take in the next change of a kind. ok is false if it is up to date.
func (c *Cache) Next(kind Kind) (change Change, ok bool) {
	log := c.server.log[kind]
	if c.seen[kind] == len(log) {
		return change, false
	}
	change = log[c.seen[kind]]
	c.seen[kind]++
	if change.New == nil {
		delete(c.objects[kind], change.Old.GetName())
	} else {
		c.objects[kind][change.New.GetName()] = change.New
	}
	return change, true
}

// Client is a client of the server.
type Client struct {
	client.Client // what is not here is not there, and panics

	Server *Server
	Cache  *Cache // what reads are answered from; the server itself if nil

	// Fault, if set, is asked before and after each call ("before update", "after update"). An error fails the call:
	// before it took effect or after. It may panic, which is the caller's crash.
	Fault func(point string) error
}

func (c *Client) call(name string, do func() error) error {
	if c.Fault == nil {
		return do()
	}
	if err := c.Fault("before " + name); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return c.Fault("after " + name)
}

func (c *Client) objects(kind Kind) map[string]client.Object {
	if c.Cache != nil {
		return c.Cache.objects[kind]
	}
	return c.Server.objects[kind]
}

// Get implements client.Reader.
func (c *Client) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	return c.read("get", func() error {
		kind := kindOf(into)
		there, ok := c.objects(kind)[key.Name]
		if !ok {
			return apierrors.NewNotFound(resource(kind), key.Name)
		}
		set(into, there)
		return nil
	})
}

// List implements client.Reader. The objects are sorted by name.
func (c *Client) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	return c.read("list", func() error {
		objects := c.objects(kindOf(list))
		names := make([]string, 0, len(objects))
		for name := range objects {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			switch l := list.(type) {
			case *corev1.NodeList:
				l.Items = append(l.Items, *clone(objects[name]).(*corev1.Node))
			case *v1alpha1.XDPCounterList:
				l.Items = append(l.Items, *clone(objects[name]).(*v1alpha1.XDPCounter))
			case *v1alpha1.XDPNodeStateList:
				l.Items = append(l.Items, *clone(objects[name]).(*v1alpha1.XDPNodeState))
			}
		}
		return nil
	})
}

// read fails only where it goes to the server.
func (c *Client) read(name string, do func() error) error {
	if c.Cache != nil {
		return do()
	}
	return c.call(name, do)
}

// Create implements client.Writer.
func (c *Client) Create(_ context.Context, object client.Object, _ ...client.CreateOption) error {
	return c.call("create", func() error {
		kind, s := kindOf(object), c.Server
		if _, ok := s.objects[kind][object.GetName()]; ok {
			return apierrors.NewAlreadyExists(resource(kind), object.GetName())
		}
		object.SetUID(types.UID(fmt.Sprintf("%s-%d", object.GetName(), s.version)))
		object.SetGeneration(1)
		object.SetCreationTimestamp(metav1.NewTime(s.now()))
		s.put(kind, object.GetName(), object)
		return nil
	})
}

// Update implements client.Writer: it changes all but the status.
func (c *Client) Update(_ context.Context, object client.Object, _ ...client.UpdateOption) error {
	return c.call("update", func() error {
		there, err := c.current(object)
		if err != nil {
			return err
		}
		setStatus(object, there)
		object.SetGeneration(there.GetGeneration())
		if !equality.Semantic.DeepEqual(specOf(object), specOf(there)) {
			object.SetGeneration(there.GetGeneration() + 1)
		}
		c.Server.put(kindOf(object), object.GetName(), object)
		return nil
	})
}

// Delete implements client.Writer.
func (c *Client) Delete(_ context.Context, object client.Object, options ...client.DeleteOption) error {
	return c.call("delete", func() error {
		there, err := c.Server.found(object)
		if err != nil {
			return err
		}
		o := (&client.DeleteOptions{}).ApplyOptions(options)
		if p := o.Preconditions; p != nil && (p.UID != nil && *p.UID != there.GetUID() || p.ResourceVersion != nil && *p.ResourceVersion != there.GetResourceVersion()) {
			return conflict(object)
		}
		c.Server.put(kindOf(object), object.GetName(), nil)
		return nil
	})
}

// Status implements client.StatusClient.
func (c *Client) Status() client.SubResourceWriter { return status{c: c} }

type status struct {
	client.SubResourceWriter
	c *Client
}

// Update implements client.SubResourceWriter: it changes nothing but the status.
func (s status) Update(_ context.Context, object client.Object, _ ...client.SubResourceUpdateOption) error {
	return s.c.call("update status", func() error {
		there, err := s.c.current(object)
		if err != nil {
			return err
		}
		next := clone(there)
		setStatus(next, object)
		s.c.Server.put(kindOf(object), object.GetName(), next)
		set(object, next)
		return nil
	})
}

// Patch implements client.SubResourceWriter with merge patches.
func (s status) Patch(_ context.Context, object client.Object, patch client.Patch, _ ...client.SubResourcePatchOption) error {
	return s.c.call("patch status", func() error {
		raw, err := patch.Data(object)
		if err != nil {
			return err
		}
		there, err := s.c.Server.found(object)
		if err != nil {
			return err
		}
		var document, changes map[string]any
		if err := convert(there, &document); err != nil {
			return err
		}
		if err := json.Unmarshal(raw, &changes); err != nil {
			return err
		}
		next := fresh(there)
		if err := convert(merged(document, changes), next); err != nil {
			return err
		}
		if next.GetUID() != there.GetUID() || next.GetResourceVersion() != there.GetResourceVersion() {
			return conflict(object)
		}
		whole := clone(there)
		setStatus(whole, next)
		s.c.Server.put(kindOf(object), object.GetName(), whole)
		set(object, whole)
		return nil
	})
}

// Apply implements client.SubResourceWriter for the one applier of an XDPCounter's status that there is, to whom all of
// it belongs but the retired share.
func (s status) Apply(_ context.Context, config runtime.ApplyConfiguration, _ ...client.SubResourceApplyOption) error {
	return s.c.call("apply status", func() error {
		applied := &v1alpha1.XDPCounter{}
		if err := convert(config, applied); err != nil {
			return err
		}
		there, err := s.c.current(applied)
		if err != nil {
			return err
		}
		next := clone(there).(*v1alpha1.XDPCounter)
		if applied.Status.Retired != nil {
			panic("the retired share is not to be applied")
		}
		applied.Status.Retired = next.Status.Retired
		next.Status = applied.Status
		s.c.Server.put(Counters, next.Name, next)
		return nil
	})
}

// current returns the object as it is, if the one given is of the same UID and version.
func (c *Client) current(object client.Object) (client.Object, error) {
	there, err := c.Server.found(object)
	if err != nil {
		return nil, err
	}
	if object.GetUID() != there.GetUID() || object.GetResourceVersion() != there.GetResourceVersion() {
		return nil, conflict(object)
	}
	return there, nil
}

func conflict(object client.Object) error {
	return apierrors.NewConflict(resource(kindOf(object)), object.GetName(), fmt.Errorf("it was changed"))
}

func resource(kind Kind) schema.GroupResource { return schema.GroupResource{Resource: string(kind)} }

func clone(object client.Object) client.Object { return object.DeepCopyObject().(client.Object) }

func fresh(like client.Object) client.Object {
	return reflect.New(reflect.TypeOf(like).Elem()).Interface().(client.Object)
}

func set(into, from client.Object) {
	reflect.ValueOf(into).Elem().Set(reflect.ValueOf(clone(from)).Elem())
}

func setStatus(into, from client.Object) {
	reflect.ValueOf(into).Elem().FieldByName("Status").Set(reflect.ValueOf(clone(from)).Elem().FieldByName("Status"))
}

func specOf(object client.Object) any {
	return reflect.ValueOf(object).Elem().FieldByName("Spec").Interface()
}

func convert(from, to any) error {
	raw, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, to)
}

// merged applies a JSON merge patch (RFC 7386).
func merged(document, changes map[string]any) map[string]any {
	for key, change := range changes {
		switch c := change.(type) {
		case nil:
			delete(document, key)
		case map[string]any:
			under, _ := document[key].(map[string]any)
			if under == nil {
				under = map[string]any{}
			}
			document[key] = merged(under, c)
		default:
			document[key] = change
		}
	}
	return document
}
