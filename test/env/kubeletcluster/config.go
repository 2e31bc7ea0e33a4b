// SPDX-License-Identifier: Apache-2.0

package kubeletcluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Addresses of the cluster. Nodes have theirs from sandbox.Fabric; what is here is routed among them only.
const (
	serviceCIDR    = "10.96.0.0/16"
	serviceAddress = "10.96.0.1"
	clusterDNS     = "10.96.0.10" // nobody serves it
	podCIDR        = "10.244.0.0/16"
)

// podSubnet returns the addresses of the pods of the node with an index, from 1.
func podSubnet(index int) string { return fmt.Sprintf("10.244.%d.0/24", index) }

// pauseImage is what holds a pod's namespaces.
const pauseImage = "localhost/xdp-operator/pause:1"

// base is where a node finds what the machine gives it: the programs, its configuration, images.
const base = "/run/xdp-operator"

// writeConfig writes the files that are base/etc on a node.
func writeConfig(etc string, m machine) error {
	replace := strings.NewReplacer("BASE", base, "NODE", m.Name, "RUNC", m.Runc, "SNAPSHOTTER", m.Snapshotter, "PAUSE", pauseImage,
		"SUBNET", podSubnet(m.Index), "PODS", podCIDR, "DNS", clusterDNS)
	for name, content := range map[string]string{
		"containerd.toml":      containerdConfig,
		"kubelet.yaml":         kubeletConfig,
		"kube-proxy.yaml":      proxyConfig,
		"cni/10-pods.conflist": networkConfig,
	} {
		path := filepath.Join(etc, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("configure %s: %w", m.Name, err)
		}
		if err := os.WriteFile(path, []byte(replace.Replace(content)), 0o644); err != nil {
			return fmt.Errorf("configure %s: %w", m.Name, err)
		}
	}
	return nil
}

// restrict_oom_score_adj: not every root may lower it (CAP_SYS_RESOURCE), and without it no pod starts then.
const containerdConfig = `version = 3
root = '/var/lib/containerd'
state = '/run/containerd'
disabled_plugins = ['io.containerd.snapshotter.v1.blockfile', 'io.containerd.snapshotter.v1.erofs', 'io.containerd.differ.v1.erofs', 'io.containerd.snapshotter.v1.devmapper', 'io.containerd.snapshotter.v1.zfs', 'io.containerd.snapshotter.v1.btrfs', 'io.containerd.nri.v1.nri', 'io.containerd.internal.v1.opt']
[grpc]
  address = '/run/containerd/containerd.sock'
[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'SNAPSHOTTER'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = 'PAUSE'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
    BinaryName = 'RUNC'
    SystemdCgroup = false
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['BASE/cni']
  conf_dir = 'BASE/etc/cni'
`

// failCgroupV1: Kubernetes would refuse machines that do not have version 2 yet. Images are not collected: no registry
// has them.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
failCgroupV1: false
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: BASE/etc/ca.crt}
authorization: {mode: Webhook}
clusterDomain: cluster.local
clusterDNS: [DNS]
resolvConf: ""
failSwapOn: false
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%, imagefs.inodesFree: 1%}
nodeStatusUpdateFrequency: 5s
# One after the other, a node takes seconds longer to be ready for all its pods.
serializeImagePulls: false
`

// The zeros leave the machine's conntrack settings, which are not the node's own, as they are.
const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: BASE/etc/kube-proxy.kubeconfig}
hostnameOverride: NODE
clusterCIDR: PODS
detectLocalMode: BridgeInterface
detectLocal: {bridgeInterface: cni0}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`

const networkConfig = `{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
      "ipam": {"type": "host-local", "ranges": [[{"subnet": "SUBNET"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    },
    {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}}
  ]
}
`
