// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const policyName = "xdp-operator-own-node"

// TestAgentPermissions uses a real API server and real tokens of the agents' service account.
func TestAgentPermissions(t *testing.T) {
	for name, installation := range map[string]struct {
		objects            objects
		namespace, account string
	}{
		"as kustomize installs it": {objects: kustomize(t, "default"), namespace: namespace, account: "xdp-operator-agent"},
		"with another account in another namespace": {
			objects:   func() objects { all, _ := helm(t, "elsewhere", "agent: {serviceAccount: {name: other}}"); return all }(),
			namespace: "elsewhere", account: "other",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := install(t, installation.objects, installation.namespace)
			for _, node := range []string{"a", "b"} {
				c.make(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}})
				c.make(t, state(node))
			}
			onA := c.agent(t, installation.account, "a")
			unbound := c.as(c.token(t, installation.account, nil))
			unscheduled := c.agent(t, installation.account, "")

			t.Run("agent role", func(t *testing.T) {
				if err := report(t, onA, "a", "1"); err != nil {
					t.Errorf("its own status: %v", err)
				}
				for what, err := range c.otherWrites(t, onA, "b") {
					refused(t, what, err, "cannot ")
				}
				refused(t, "the status of another node", report(t, onA, "b", "1"), policyName)
				refused(t, "without a pod", report(t, unbound, "a", "2"), "names no node")
				refused(t, "of a pod on no node", report(t, unscheduled, "a", "2"), "names no node")
			})
			// The admission policy must hold even if the role has too many permissions by mistake.
			c.make(t, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "too-wide"}, Rules: []rbacv1.PolicyRule{{
				APIGroups: []string{"xdp-operator.io"}, Resources: []string{"xdpnodestates", "xdpnodestates/status"}, Verbs: []string{"*"},
			}}})
			c.bind(t, "too-wide", installation.account)
			t.Run("role with all permissions", func(t *testing.T) {
				await(t, func() error { // a new role takes effect with a delay
					if err := onA.Delete(t.Context(), state("b"), client.DryRunAll); err == nil || !strings.Contains(err.Error(), policyName) {
						return fmt.Errorf("the role does not work yet: %w", err)
					}
					return nil
				})
				if err := report(t, onA, "a", "3"); err != nil {
					t.Errorf("its own status: %v", err)
				}
				for what, err := range c.otherWrites(t, onA, "b") {
					refused(t, what, err, policyName)
				}
				refused(t, "the status of another node", report(t, onA, "b", "1"), "the agent on node a may not UPDATE the node state of b")
				for what, err := range c.otherWrites(t, onA, "a") {
					refused(t, what+" of its own", err, policyName)
				}
				for what, err := range c.otherWrites(t, unbound, "a") {
					refused(t, what+" without a pod", err, "names no node")
				}
			})
			t.Run("state unchanged", func(t *testing.T) {
				b := state("b")
				if err := c.Get(t.Context(), client.ObjectKeyFromObject(b), b); err != nil {
					t.Fatal(err)
				}
				if b.GetGeneration() != 1 || b.Object["status"] != nil {
					t.Errorf("the state of b was changed: %v", b.Object)
				}
			})
			t.Run("reading", func(t *testing.T) {
				for _, node := range []string{"a", "b"} { // admission does not see reads, and node states contain no secrets
					if err := onA.Get(t.Context(), types.NamespacedName{Name: node}, state(node)); err != nil {
						t.Error(err)
					}
				}
				for _, kind := range []schema.GroupVersionKind{
					{Version: "v1", Kind: "Secret"}, {Version: "v1", Kind: "Pod"}, {Version: "v1", Kind: "Node"},
					{Version: "v1", Kind: "ConfigMap"}, {Version: "v1", Kind: "Namespace"}, {Version: "v1", Kind: "ServiceAccount"},
					{Group: "xdp-operator.io", Version: "v1alpha1", Kind: "XDPCounter"},
					{Group: "apps", Version: "v1", Kind: "DaemonSet"}, {Group: "coordination.k8s.io", Version: "v1", Kind: "Lease"},
				} {
					list := &unstructured.UnstructuredList{}
					list.SetGroupVersionKind(kind)
					refused(t, "list "+kind.Kind, onA.List(t.Context(), list, client.InNamespace(installation.namespace)), "cannot list")
					one := &unstructured.Unstructured{}
					one.SetGroupVersionKind(kind)
					refused(t, "get "+kind.Kind, onA.Get(t.Context(), types.NamespacedName{Namespace: installation.namespace, Name: "a"}, one), "cannot get")
				}
			})
			t.Run("other users", func(t *testing.T) {
				// An account with permission to write the status, but with a name that is not in the policy.
				c.make(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "stranger", Namespace: installation.namespace}})
				c.bind(t, "xdp-operator-agent", "stranger")
				stranger := c.as(c.token(t, "stranger", nil))
				await(t, func() error { return stranger.List(t.Context(), states()) })
				refused(t, "another account", report(t, stranger, "b", "1"), "names no node")
				// An account like the garbage collector of Kubernetes, with permission to delete but not to create.
				c.make(t, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "tidy"}, Rules: []rbacv1.PolicyRule{{
					APIGroups: []string{"xdp-operator.io"}, Resources: []string{"xdpnodestates"}, Verbs: []string{"delete", "patch"},
				}}})
				c.make(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "tidy", Namespace: installation.namespace}})
				c.bind(t, "tidy", "tidy")
				tidy := c.as(c.token(t, "tidy", nil))
				await(t, func() error {
					return tidy.Patch(t.Context(), state("b"), client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`)))
				})
				if err := tidy.Delete(t.Context(), state("b")); err != nil {
					t.Error(err)
				}
				// The controller creates and deletes node states. Administrators can do everything.
				controller := c.as(c.token(t, "xdp-operator-controller", nil))
				made := state("c")
				if err := controller.Create(t.Context(), made); err != nil {
					t.Error(err)
				}
				if err := report(t, c.Client, "c", "1"); err != nil {
					t.Error(err)
				}
				if err := controller.Delete(t.Context(), state("c")); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// installed is an API server with the objects applied.
type installed struct {
	client.Client // of an administrator
	config        *rest.Config
	namespace     string
}

func install(t *testing.T, all objects, namespace string) *installed {
	t.Helper()
	s := apiServer(t)
	admin, err := client.New(s.Config(), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := &installed{Client: admin, config: s.Config(), namespace: namespace}
	space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if err := admin.Create(t.Context(), space); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	for key, object := range all { // the CRDs exist already, and other tests need them
		if kind := object.GetKind(); kind == "CustomResourceDefinition" || kind == "Namespace" {
			delete(all, key)
		}
	}
	s.apply(t, all)
	t.Cleanup(func() {
		for key, object := range all {
			if err := admin.Delete(context.Background(), object); client.IgnoreNotFound(err) != nil {
				t.Errorf("%s: %v", key, err)
			}
		}
	})
	// A policy takes effect with a delay after its creation. Only the administrator has permission for this request.
	probe := state("probe")
	c.make(t, probe)
	c.make(t, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "probe"}, Rules: []rbacv1.PolicyRule{{
		APIGroups: []string{"xdp-operator.io"}, Resources: []string{"xdpnodestates", "xdpnodestates/status"}, Verbs: []string{"get", "update", "list"},
	}}})
	c.make(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "probe", Namespace: namespace}})
	c.bind(t, "probe", "probe")
	someone := c.as(c.token(t, "probe", nil))
	await(t, func() error {
		err := report(t, someone, "probe", "1")
		if err == nil || !strings.Contains(err.Error(), policyName) {
			return fmt.Errorf("the policy does not work yet: %w", err)
		}
		return nil
	})
	return c
}

// make creates an object for the duration of the test.
func (c *installed) make(t *testing.T, object client.Object) {
	t.Helper()
	if err := c.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Delete(context.Background(), object, client.GracePeriodSeconds(0)); client.IgnoreNotFound(err) != nil {
			t.Error(err)
		}
	})
}

func (c *installed) bind(t *testing.T, role, account string) {
	t.Helper()
	c.make(t, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "test-" + role + "-" + account},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: account, Namespace: c.namespace}},
	})
}

// agent returns a client with the token that a pod on the node gets.
func (c *installed) agent(t *testing.T, account, node string) client.Client {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "agent-" + node + "x", Namespace: c.namespace},
		Spec:       corev1.PodSpec{ServiceAccountName: account, NodeName: node, Containers: []corev1.Container{{Name: "agent", Image: "agent"}}},
	}
	c.make(t, pod)
	return c.as(c.token(t, account, pod))
}

// token returns a token of a service account, bound to the pod unless that is nil.
func (c *installed) token(t *testing.T, account string, pod *corev1.Pod) string {
	t.Helper()
	request := &authenticationv1.TokenRequest{}
	if pod != nil {
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}
	}
	holder := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account, Namespace: c.namespace}}
	if err := c.SubResource("token").Create(t.Context(), holder, request); err != nil {
		t.Fatal(err)
	}
	return request.Status.Token
}

func (c *installed) as(token string) client.Client {
	config := rest.AnonymousClientConfig(c.config)
	config.BearerToken = token
	made, err := client.New(config, client.Options{Mapper: c.RESTMapper()})
	if err != nil {
		panic(err) // it sends no request
	}
	return made
}

// otherWrites tries every kind of write to a node state except the update of its status, and returns the errors.
func (c *installed) otherWrites(t *testing.T, agent client.Client, node string) map[string]error {
	t.Helper()
	ctx := t.Context()
	present := func() *unstructured.Unstructured {
		o := state(node)
		if err := c.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
			t.Fatal(err)
		}
		return o
	}
	changed := func() *unstructured.Unstructured {
		o := present()
		o.Object["spec"] = map[string]any{"reportInterval": "1h"}
		return o
	}
	spec := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"reportInterval":"1h"}}`))
	status := client.RawPatch(types.MergePatchType, []byte(`{"status":{"observedGeneration":9}}`))
	applied := func(content map[string]any) *unstructured.Unstructured {
		o := state(node)
		maps.Copy(o.Object, content)
		return o
	}
	fresh := state("not-" + node)
	force := []client.PatchOption{client.ForceOwnership, client.FieldOwner("test")}
	results := map[string]error{
		"create":            agent.Create(ctx, fresh),
		"create apply":      agent.Patch(ctx, state("also-not-"+node), client.Apply, force...), //nolint:staticcheck // unstructured
		"update":            agent.Update(ctx, changed()),
		"merge patch":       agent.Patch(ctx, present(), spec),
		"json patch":        agent.Patch(ctx, present(), client.RawPatch(types.JSONPatchType, []byte(`[{"op":"replace","path":"/spec/reportInterval","value":"1h"}]`))),
		"apply":             agent.Patch(ctx, applied(map[string]any{"spec": map[string]any{"reportInterval": "1h"}}), client.Apply, force...), //nolint:staticcheck // unstructured
		"annotation":        agent.Patch(ctx, present(), client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"xdp-operator.io/retiring":"true"}}}`))),
		"delete":            agent.Delete(ctx, state(node)),
		"delete collection": agent.DeleteAllOf(ctx, state(node), client.MatchingFields{"metadata.name": node}),
	}
	if node != "a" { // an agent can patch its own if its role allows it
		results["status merge patch"] = agent.Status().Patch(ctx, present(), status)
		results["status apply"] = agent.Status().Patch(ctx, applied(map[string]any{"status": map[string]any{"observedGeneration": 9}}), client.Apply, //nolint:staticcheck // unstructured
			client.ForceOwnership, client.FieldOwner("test"))
	}
	return results
}

// report updates the status of a node's state.
func report(t *testing.T, who client.Client, node, version string) error {
	t.Helper()
	o := state(node)
	if err := who.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
		return err
	}
	o.Object["status"] = map[string]any{"agent": map[string]any{"version": version}}
	return who.Status().Update(t.Context(), o)
}

func state(node string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "xdp-operator.io/v1alpha1", "kind": "XDPNodeState",
		"metadata": map[string]any{"name": node},
		"spec":     map[string]any{"reportInterval": "10s"},
	}}
}

func states() *unstructured.UnstructuredList {
	list := &unstructured.UnstructuredList{}
	list.SetAPIVersion("xdp-operator.io/v1alpha1")
	list.SetKind("XDPNodeStateList")
	return list
}

func refused(t *testing.T, what string, err error, why string) {
	t.Helper()
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), why) {
		t.Errorf("%s: want it forbidden, %q, got: %v", what, why, err)
	}
}

// await calls check until it returns nil, because roles and policies take effect with a delay.
func await(t *testing.T, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
