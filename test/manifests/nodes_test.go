// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"fmt"
	"slices"
	"testing"

	securityv1 "github.com/openshift/api/security/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestNodesWithoutAgents lists the labels of nodes on which DaemonSets cannot run. The controller leaves out the same nodes.
func TestNodesWithoutAgents(t *testing.T) {
	want := &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
			{Key: "eks.amazonaws.com/compute-type", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"fargate"}},
			{Key: "type", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"virtual-kubelet"}},
		}}},
	}}}
	installed := both(t)
	for name, pod := range map[string]corev1.PodSpec{
		"agent, kustomize": agent(t, installed["kustomize"]).Spec.Template.Spec,
		"agent, helm":      agent(t, installed["helm"]).Spec.Template.Spec,
		"sweep, kustomize": daemonSet(t, kustomize(t, "sweep"), "xdp-operator-sweep").Spec.Template.Spec,
		"sweep, helm":      daemonSet(t, helmHooks(t, "pre-delete", "agent: {affinity: {nodeAffinity: null}}"), "xdp-operator-sweep").Spec.Template.Spec,
	} {
		t.Run(name, func(t *testing.T) {
			expect(t, pod.Affinity, want)
			expect(t, pod.NodeSelector, map[string]string{"kubernetes.io/os": "linux"})
		})
	}
}

func TestPriorityClassQuota(t *testing.T) {
	for name, tc := range map[string]struct {
		values, namespace string
		want              []string // the priority classes of the quota
	}{
		"the agents' class by default":     {"", namespace, []string{"system-node-critical"}},
		"both classes":                     {"manager: {priorityClassName: system-cluster-critical}", namespace, []string{"system-node-critical", "system-cluster-critical"}},
		"a class that both use, once":      {"manager: {priorityClassName: system-node-critical}", namespace, []string{"system-node-critical"}},
		"no quota for a class of the user": {"agent: {priorityClassName: mine}", namespace, nil},
		"no quota without a class":         {"agent: {priorityClassName: ''}", namespace, nil},
		"no quota in kube-system":          {"", "kube-system", nil},
		"no quota if it is switched off":   {"resourceQuota: {enabled: false}", namespace, nil},
		"the controller's class alone":     {"{agent: {priorityClassName: ''}, manager: {priorityClassName: system-cluster-critical}}", namespace, []string{"system-cluster-critical"}},
	} {
		t.Run(name, func(t *testing.T) {
			const key = "ResourceQuota xdp-operator-critical-pods"
			all, _ := helm(t, tc.namespace, tc.values)
			if tc.want == nil {
				if all[key] != nil {
					t.Errorf("there is %s", key)
				}
				return
			}
			expect(t, as[corev1.ResourceQuota](t, all, key).Spec.ScopeSelector, &corev1.ScopeSelector{
				MatchExpressions: []corev1.ScopedResourceSelectorRequirement{
					{ScopeName: corev1.ResourceQuotaScopePriorityClass, Operator: corev1.ScopeSelectorOpIn, Values: tc.want},
				},
			})
		})
	}
}

func TestUninstallResources(t *testing.T) {
	all := helmHooks(t, "pre-delete", "uninstall: {resources: {requests: {cpu: 1m}, limits: {cpu: '1'}}}")
	for key, pod := range podsOf(t, all) {
		for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			if got := container.Resources; got.Requests.Cpu().String() != "1m" || got.Limits.Cpu().String() != "1" || got.Limits.Memory().String() != "512Mi" {
				t.Errorf("%s: container %s has the resources %v", key, container.Name, got)
			}
		}
	}
}

// TestSecurityContextConstraints compares with the types of OpenShift.
func TestSecurityContextConstraints(t *testing.T) {
	const key = "SecurityContextConstraints xdp-operator-agent"
	all, _ := helm(t, namespace, "openshift: {securityContextConstraints: true}")
	got := as[securityv1.SecurityContextConstraints](t, all, key)
	got.ObjectMeta = metav1.ObjectMeta{}
	expect(t, got, securityv1.SecurityContextConstraints{
		TypeMeta:                 metav1.TypeMeta{APIVersion: "security.openshift.io/v1", Kind: "SecurityContextConstraints"},
		AllowHostDirVolumePlugin: true,
		AllowHostNetwork:         true,
		AllowHostPorts:           true,
		AllowPrivilegeEscalation: new(false),
		DefaultAddCapabilities:   []corev1.Capability{},
		AllowedCapabilities:      []corev1.Capability{"BPF", "NET_ADMIN", "PERFMON"},
		RequiredDropCapabilities: []corev1.Capability{"ALL"},
		ReadOnlyRootFilesystem:   true,
		RunAsUser:                securityv1.RunAsUserStrategyOptions{Type: securityv1.RunAsUserStrategyRunAsAny},
		FSGroup:                  securityv1.FSGroupStrategyOptions{Type: securityv1.FSGroupStrategyRunAsAny},
		SupplementalGroups:       securityv1.SupplementalGroupsStrategyOptions{Type: securityv1.SupplementalGroupsStrategyRunAsAny},
		SELinuxContext: securityv1.SELinuxContextStrategyOptions{
			Type: securityv1.SELinuxStrategyMustRunAs, SELinuxOptions: &corev1.SELinuxOptions{Type: "spc_t"},
		},
		SeccompProfiles: []string{"runtime/default"},
		Volumes:         []securityv1.FSType{securityv1.FSTypeHostPath, securityv1.FSProjected},
		Users:           []string{}, Groups: []string{},
	})
	expect(t, as[rbacv1.Role](t, all, "Role xdp-operator-agent-scc").Rules, []rbacv1.PolicyRule{{
		APIGroups: []string{"security.openshift.io"}, Resources: []string{"securitycontextconstraints"},
		ResourceNames: []string{"xdp-operator-agent"}, Verbs: []string{"use"},
	}})

	t.Run("every pod has an account that may use constraints", func(t *testing.T) {
		may := map[string]string{}
		for _, name := range []string{"xdp-operator-agent-scc", "xdp-operator-nonroot-scc"} {
			binding := as[rbacv1.RoleBinding](t, all, "RoleBinding "+name)
			for _, subject := range binding.Subjects {
				may[subject.Namespace+"/"+subject.Name] = binding.RoleRef.Kind + " " + binding.RoleRef.Name
			}
		}
		everything, _ := helmWithHooks(t, namespace, "openshift: {securityContextConstraints: true}")
		got := map[string]string{}
		for key, pod := range podsOf(t, everything) {
			got[key] = may[namespace+"/"+pod.Spec.ServiceAccountName]
		}
		const agents, others = "Role xdp-operator-agent-scc", "ClusterRole system:openshift:scc:nonroot-v2"
		expect(t, got, map[string]string{
			"DaemonSet xdp-operator-agent": agents, "DaemonSet xdp-operator-sweep": agents, "Deployment xdp-operator-controller": others,
			"Job xdp-operator-uninstall": others, "Job xdp-operator-swept": others, "Pod xdp-operator-test": others,
		})
	})

	t.Run("pods on nodes ask for what the constraints allow", func(t *testing.T) {
		const options = `
openshift: {securityContextConstraints: true}
agent: {capabilities: {sysAdmin: true, sysResource: true}, seLinuxOptions: {type: spc_t}}
metrics: {certSecret: tls}
`
		all, _ := helmWithHooks(t, namespace, options)
		scc, pods := as[securityv1.SecurityContextConstraints](t, all, key), podsOf(t, all)
		for _, name := range []string{"DaemonSet xdp-operator-agent", "DaemonSet xdp-operator-sweep"} {
			for _, request := range beyond(pods[name].Spec, scc) {
				t.Errorf("%s asks for %s", name, request)
			}
		}
		scc = securityv1.SecurityContextConstraints{}
		if got := beyond(pods["DaemonSet xdp-operator-agent"].Spec, scc); len(got) != 12 {
			t.Errorf("of constraints that allow nothing, it asks for %q", got)
		}
	})

	t.Run("the constraints follow the agents' values", func(t *testing.T) {
		all, _ := helm(t, namespace, `
openshift: {securityContextConstraints: true}
agent: {capabilities: {sysAdmin: true, sysResource: true}, seLinuxOptions: {type: xdp_t}}
metrics: {certSecret: tls}
`)
		scc, container := as[securityv1.SecurityContextConstraints](t, all, key), only(t, agent(t, all).Spec.Template.Spec)
		expect(t, scc.AllowedCapabilities, container.SecurityContext.Capabilities.Add)
		expect(t, scc.SELinuxContext.SELinuxOptions, container.SecurityContext.SELinuxOptions)
		expect(t, scc.Volumes, []securityv1.FSType{securityv1.FSTypeHostPath, securityv1.FSProjected, securityv1.FSTypeSecret})
	})
}

// beyond returns what a pod asks for and the constraints do not allow. It decides as OpenShift does for the fields that the
// chart's pods use.
func beyond(pod corev1.PodSpec, scc securityv1.SecurityContextConstraints) (requests []string) {
	ask := func(allowed bool, format string, args ...any) {
		if !allowed {
			requests = append(requests, fmt.Sprintf(format, args...))
		}
	}
	ask(!pod.HostNetwork || scc.AllowHostNetwork, "the node's network")
	ask(!pod.HostPID && !pod.HostIPC, "other namespaces of the node")
	if pod.SecurityContext.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault {
		ask(slices.Contains(scc.SeccompProfiles, "runtime/default"), "the default seccomp profile")
	}
	kinds := map[securityv1.FSType]bool{securityv1.FSProjected: *pod.AutomountServiceAccountToken}
	for _, volume := range pod.Volumes {
		kinds[securityv1.FSTypeHostPath] = kinds[securityv1.FSTypeHostPath] || volume.HostPath != nil
		kinds[securityv1.FSTypeSecret] = kinds[securityv1.FSTypeSecret] || volume.Secret != nil
	}
	for kind, used := range kinds {
		ask(!used || slices.Contains(scc.Volumes, kind), "a volume of kind %s", kind)
	}
	for _, container := range slices.Concat(pod.InitContainers, pod.Containers) {
		context := container.SecurityContext
		for _, capability := range context.Capabilities.Add {
			ask(slices.Contains(scc.AllowedCapabilities, capability), "capability %s", capability)
		}
		for _, capability := range scc.RequiredDropCapabilities {
			ask(slices.Contains(context.Capabilities.Drop, capability), "no drop of %s", capability)
		}
		ask(*context.ReadOnlyRootFilesystem || !scc.ReadOnlyRootFilesystem, "a writable root file system")
		ask(!*context.Privileged && !*context.AllowPrivilegeEscalation, "more privileges")
		if options := context.SELinuxOptions; options != nil {
			allowed := scc.SELinuxContext.SELinuxOptions
			ask(allowed != nil && *options == *allowed, "the SELinux context %v", options)
		}
		for _, port := range container.Ports {
			ask(port.HostPort == 0 || scc.AllowHostPorts, "port %d of the node", port.HostPort)
		}
	}
	return requests
}
