// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

func TestWhy(t *testing.T) {
	c := counter(t, "workers", traffic.Totals{}, isReady)
	s := nodeState(t, "n1", c)
	report(t, s, time.Now(), traffic.Totals{})
	run(t, kubectl(t.Context(), "why", "workers")).expect(t, 0, "workers  Ready=True  AllInterfacesAttached", "└─ 1 node is ready")

	bad := counter(t, "bad", traffic.Totals{}, metav1.Condition{Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonNothingAttached, Message: "1 of 1 node has failures: n2/eth0 (XDPHookInUse)"})
	held := nodeState(t, "n2", bad)
	report(t, held, time.Now(), traffic.Totals{})
	held.Status.Interfaces[0].State, held.Status.Interfaces[0].Mode = v1alpha1.InterfaceFailed, ""
	held.Status.Interfaces[0].Reason, held.Status.Interfaces[0].Message = v1alpha1.ReasonXDPHookInUse, "program id 7 is attached"
	if err := api.Status().Update(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	r := run(t, kubectl(t.Context(), "why", "bad"))
	r.expect(t, 4, `bad  Ready=False  NothingAttached
│  1 of 1 node has failures: n2/eth0 (XDPHookInUse)
└─ n2  1 of 1 interface is not counted
   └─ eth0  XDPHookInUse
         program id 7 is attached

What to do
└─ XDPHookInUse
`)
	if r.err != "" {
		t.Errorf("says more: %s", r.err)
	}
	run(t, kubectl(t.Context(), "why", "nobody")).expect(t, 3, "no such XDPCounter: nobody; existing: bad, workers")
	run(t, kubectl(t.Context(), "top", "nobody")).expect(t, 3, "no such XDPCounter: nobody; existing: bad, workers")
	run(t, kubectl(t.Context(), "top", "nobody", "--once")).expect(t, 3, "no such XDPCounter: nobody; existing: bad, workers")
}

// The command for the agents' logs has the namespace in which the agents run, whatever the release. If the user may not
// list pods, the command that shows the namespace is printed before it.
func TestWhyFindsTheNamespaceOfTheAgents(t *testing.T) {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "monitoring"}}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "xdp-operator-agent-1", Namespace: "monitoring", Labels: map[string]string{
			"app.kubernetes.io/name": "xdp-operator", "app.kubernetes.io/component": "agent",
		}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "agent", Image: "agent"}}},
	}
	bad := counter(t, "pending", traffic.Totals{}, metav1.Condition{Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonNothingAttached, Message: "x"})
	failed := nodeState(t, "n3", bad)
	report(t, failed, time.Now(), traffic.Totals{})
	failed.Status.Interfaces[0].State, failed.Status.Interfaces[0].Mode = v1alpha1.InterfaceFailed, ""
	failed.Status.Interfaces[0].Reason = v1alpha1.ReasonAttachFailed
	failed.Status.Interfaces[0].Message = v1alpha1.FailureMessage(v1alpha1.ReasonAttachFailed, "attach eth0: no space left", "eth0")
	if err := api.Status().Update(t.Context(), failed); err != nil {
		t.Fatal(err)
	}
	const logs = " -l app.kubernetes.io/name=xdp-operator,app.kubernetes.io/component=agent --prefix --tail=20\n"
	unknown := []string{"$ kubectl get daemonsets -A -l app.kubernetes.io/name=xdp-operator\n", "$ kubectl logs -n NAMESPACE" + logs}
	run(t, kubectl(t.Context(), "why", "pending")).expect(t, 4, unknown...) // there are no agents

	for _, o := range []client.Object{namespace, pod} {
		if err := api.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := api.Delete(context.WithoutCancel(t.Context()), pod, client.GracePeriodSeconds(0)); err != nil {
			t.Error(err)
		}
	})
	known := run(t, kubectl(t.Context(), "why", "pending"))
	known.expect(t, 4, "attach eth0: no space left\n", "$ kubectl logs -n monitoring"+logs)
	if strings.Contains(known.out, "NAMESPACE") {
		t.Errorf("prints a hint for the namespace too:\n%s", known.out)
	}
	reader := kubeconfigOf(t, "reader", rbacv1.PolicyRule{
		APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"xdpcounters", "xdpnodestates"}, Verbs: []string{"list"},
	})
	run(t, kubectlAs(t.Context(), reader, "xdpcounter", "why", "pending")).expect(t, 4, unknown...)
}

func TestWithoutCounters(t *testing.T) {
	run(t, kubectl(t.Context(), "why", "nobody")).expect(t, 3, "no such XDPCounter: nobody; there are no XDPCounters: create one with kubectl apply")
	run(t, kubectl(t.Context(), "top", "--once")).expect(t, 0, "no XDPCounters found")
}

func TestUsage(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no such command":     {[]string{"bottom"}, `unknown command "bottom"`},
		"no such flag":        {[]string{"top", "--nosuch"}, "unknown flag: --nosuch"},
		"no name":             {[]string{"why"}, "exactly one NAME is required"},
		"two names":           {[]string{"top", "a", "b"}, `unexpected argument "b"`},
		"no such row":         {[]string{"top", "--by=pod"}, `--by is "pod", must be protocol, family, node or interface`},
		"no such order":       {[]string{"top", "--sort=name"}, `--sort is "name"`},
		"no such output":      {[]string{"top", "-o", "yaml"}, `--output is "yaml"`},
		"too short intervals": {[]string{"top", "--interval=1ms"}, "--interval is 1ms, must be at least 100ms"},
	} {
		t.Run(name, func(t *testing.T) { run(t, kubectl(t.Context(), test.args...)).expect(t, 2, test.want) })
	}
	help := run(t, kubectl(t.Context(), "top", "--help"))
	help.expect(t, 0, "kubectl xdpcounter top [NAME] [flags]", "--context", "--request-timeout", "--kubeconfig")
	if strings.Contains(help.out, "--namespace") {
		t.Error("there is a flag for the namespace, and the kinds have none")
	}
}

// kubeconfigOf returns the kubeconfig of a service account that has the permissions.
func kubeconfigOf(t *testing.T, name string, rules ...rbacv1.PolicyRule) string {
	t.Helper()
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: name}},
	}
	for _, o := range []client.Object{role, binding} {
		if err := api.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	run(t, kubectlAs(t.Context(), plane.AdminKubeconfig(), "create", "serviceaccount", name)).expect(t, 0)
	token := run(t, kubectlAs(t.Context(), plane.AdminKubeconfig(), "create", "token", name))
	token.expect(t, 0)
	return kubeconfigWith(t, name, strings.TrimSpace(token.out))
}

// kubeconfigWith returns a kubeconfig with a token.
func kubeconfigWith(t *testing.T, name, token string) string {
	t.Helper()
	admin, err := os.ReadFile(plane.AdminKubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, admin, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, kubectlAs(t.Context(), kubeconfig, "config", "set-credentials", name, "--token="+token)).expect(t, 0)
	run(t, kubectlAs(t.Context(), kubeconfig, "config", "set-context", "--current", "--user="+name)).expect(t, 0)
	return kubeconfig
}

func TestMissingPermissions(t *testing.T) {
	counter(t, "workers", traffic.Totals{}, isReady)
	may := func(resource string, verbs ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{resource}, Verbs: verbs}
	}
	nobody := kubeconfigOf(t, "nobody")
	counters := kubeconfigOf(t, "counters", may("xdpcounters", "list", "watch"))
	lists := kubeconfigOf(t, "lists", may("xdpcounters", "list"), may("xdpnodestates", "list", "watch"))
	only := may("xdpcounters", "list")
	only.ResourceNames = []string{"workers"}
	one := kubeconfigOf(t, "one", only, may("xdpnodestates", "list"))

	plugin := func(kubeconfig string, args ...string) result {
		t.Helper()
		return run(t, kubectlAs(t.Context(), kubeconfig, append([]string{"xdpcounter"}, args...)...))
	}
	const hint = "the ClusterRole xdp-operator-xdpcounter-viewer has it"
	plugin(nobody, "top", "--once").expect(t, 5, "missing permission to list xdpcounters.xdp-operator.io", `User "system:serviceaccount:default:nobody"`, hint)
	plugin(nobody, "why", "workers").expect(t, 5, "missing permission to list xdpcounters.xdp-operator.io", hint)
	plugin(counters, "top", "workers", "--once").expect(t, 0, "workers  Ready")
	plugin(counters, "top", "workers").expect(t, 5, "missing permission to list xdpnodestates.xdp-operator.io", hint)
	plugin(counters, "why", "workers").expect(t, 5, "missing permission to list xdpnodestates.xdp-operator.io", hint)
	plugin(lists, "top", "workers").expect(t, 5, "missing permission to watch xdpcounters.xdp-operator.io", hint)
	plugin(one, "why", "workers").expect(t, 0, "workers  Ready=True", "1 node does not have the counter in the XDPNodeState yet")
	plugin(one, "why", "other").expect(t, 5, "missing permission to list xdpcounters.xdp-operator.io")
}

func TestRejectedCredentialsAndUnreachableServer(t *testing.T) {
	stranger := kubeconfigWith(t, "stranger", "nonsense")
	run(t, kubectlAs(t.Context(), stranger, "xdpcounter", "top", "--once")).expect(t, 5, "the API server rejects the credentials: Unauthorized", "kubectl auth whoami")
	run(t, kubectl(t.Context(), "top", "--once", "--context=nosuch")).expect(t, 1, "nosuch")
	run(t, kubectl(t.Context(), "top", "--once", "--server=https://127.0.0.1:1")).expect(t, 7, "the API server does not answer: https://127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused", "--context")
}

func TestCompletion(t *testing.T) {
	counter(t, "workers", traffic.Totals{}, isReady)
	counter(t, "edge", traffic.Totals{}, isReady)
	for want, args := range map[string][]string{
		"edge\nworkers\n:4\n": {"why", ""},
		"workers\n:4\n":       {"top", "w"},
		":4\n":                {"top", "workers", ""},
		"protocol\nfamily\nnode\ninterface\n:4\n": {"top", "--by", ""},
		"rate\ntotal\n:4\n":                       {"top", "--sort", ""},
	} {
		got := run(t, kubectlAs(t.Context(), plane.AdminKubeconfig(), append([]string{"__complete", "xdpcounter"}, args...)...))
		got.expect(t, 0)
		if got.out != want {
			t.Errorf("%q completes to %q, want %q: %s", args, got.out, want, got.err)
		}
	}
}

func TestNotInstalled(t *testing.T) {
	crds := root + "/config/crd/bases"
	admin := func(args ...string) {
		t.Helper()
		run(t, kubectlAs(t.Context(), plane.AdminKubeconfig(), args...)).expect(t, 0)
	}
	admin("delete", "-f", crds)
	defer func() {
		admin("apply", "--server-side", "-f", crds)
		admin("wait", "--for=condition=Established", "--timeout=60s", "-f", crds)
	}()
	for _, args := range [][]string{{"top"}, {"top", "--once"}, {"top", "workers", "--by=node"}, {"why", "workers"}} {
		run(t, kubectl(t.Context(), args...)).expect(t, 6, "xdp-operator is not installed in this cluster: https://127.0.0.1:",
			"does not serve xdp", "install it with helm install")
	}
}
