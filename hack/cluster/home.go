// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/xdp-operator/xdp-operator/test/env/image"
	"github.com/xdp-operator/xdp-operator/test/env/kubeletcluster"
	"github.com/xdp-operator/xdp-operator/test/env/sandbox"
)

// home is the folder with what people need to use the cluster, and the record of its sandbox.
type home string

func (h home) path(name ...string) string {
	return filepath.Join(append([]string{string(h)}, name...)...)
}

func (h home) pidFile() string { return h.path("pid") }
func (h home) image() string   { return h.path("image.tar") }

// clean removes what a cluster that was killed has left of itself here.
func (h home) clean() error {
	return errors.Join(os.RemoveAll(h.path("bin")), os.RemoveAll(h.path("nodes")), os.RemoveAll(h.path("kubeconfig")))
}

// down ends the cluster, if there is one, and removes all that is left of it and of any that was killed.
func (h home) down() error {
	if err := sandbox.Kill(h.pidFile()); err != nil {
		return err
	}
	// The record of the cluster's folder is absent if it was killed before it was up, and then Sweep has it.
	if dir, err := os.ReadFile(h.path("dir")); err == nil {
		if err := kubeletcluster.AwaitEnd(string(dir)); err != nil {
			return err
		}
	}
	return errors.Join(kubeletcluster.Sweep(), os.RemoveAll(string(h)))
}

// buildImage builds the operator's image from the clone.
func buildImage(ctx context.Context, root, version, path string) error {
	built, err := image.Operator(ctx, root, "xdp-operator:"+version, version, runtime.GOARCH, os.Stderr)
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	if err := built.Write(&archive); err != nil {
		return err
	}
	return os.WriteFile(path, archive.Bytes(), 0o644)
}

// again loads the image anew on the nodes of the cluster that is up, with the sandbox pid, and ends this process.
func (h home) again(pid, nodes int) error {
	names, err := h.nodeNames()
	if err != nil {
		return err
	}
	if len(names) != nodes {
		return fmt.Errorf("a cluster of %d nodes is up: end it with make cluster-down", len(names))
	}
	for _, name := range names {
		archive, err := os.Open(h.image())
		if err != nil {
			return err
		}
		cmd := exec.Command(h.path("bin/node"), append([]string{name}, kubeletcluster.ImportCommand("-")...)...) //nolint:noctx // it ends with the keyboard's interrupt
		cmd.Stdin = archive
		out, err := cmd.CombinedOutput()
		if err := errors.Join(err, archive.Close()); err != nil {
			return fmt.Errorf("load the image on %s: %w: %s", name, err, out)
		}
	}
	fmt.Fprintf(os.Stdout, "cluster: it is up already (process %d); the image is loaded anew\n%s", pid, h.explain())
	os.Exit(0)
	return nil
}

// nodeNames returns the names of the nodes of the cluster that is up. A file per node has its pid in the sandbox.
func (h home) nodeNames() (names []string, err error) {
	entries, err := os.ReadDir(h.path("nodes"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("a cluster is just being started")
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// furnish writes what people use: a kubeconfig, kubectl and helm, and a program that runs others on a node.
func (h home) furnish(c *kubeletcluster.Cluster, address string) error {
	config, err := clientcmd.LoadFromFile(c.AdminKubeconfig())
	if err != nil {
		return err
	}
	for _, cluster := range config.Clusters {
		cluster.Server = "https://" + address
	}
	for _, dir := range []string{"bin", "nodes"} {
		if err := os.MkdirAll(h.path(dir), 0o755); err != nil {
			return err
		}
	}
	errs := []error{clientcmd.WriteToFile(*config, h.path("kubeconfig"))}
	for name, path := range c.Tools() {
		errs = append(errs, os.Symlink(path, h.path("bin", name)))
	}
	for _, n := range c.Nodes() {
		errs = append(errs, os.WriteFile(h.path("nodes", n.Name), fmt.Appendln(nil, n.Pid()), 0o644))
	}
	for name, script := range map[string]string{"node": nodeScript, "client": clientScript} {
		script = strings.ReplaceAll(script, "HOME_DIR", string(h))
		errs = append(errs, os.WriteFile(h.path("bin", name), []byte(script), 0o755))
	}
	return errors.Join(append(errs, os.WriteFile(h.path("dir"), []byte(c.Dir()), 0o644))...)
}

// The first nsenter goes into the sandbox, the second, which sees the processes of that, on to the node.
const nodeScript = `#!/bin/sh
# node NAME COMMAND [ARGUMENT...]: run a command on a node of the cluster that is up
set -eu
[ $# -ge 2 ] || { echo "usage: node NAME COMMAND [ARGUMENT...]" >&2; exit 2; }
read -r sandbox rest < 'HOME_DIR/pid'
read -r node < "HOME_DIR/nodes/$1"
shift
exec nsenter --target "$sandbox" --mount --net --pid -- \
	nsenter --target "$node" --mount --uts --ipc --net --pid --cgroup -- \
	env PATH="/run/xdp-operator/containerd:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" "$@"
`

// What is sent on wire0 arrives at the node's eth0.
const clientScript = `#!/bin/sh
# client NAME COMMAND [ARGUMENT...]: run a command at the other end of the eth0 of a node: its interface is wire0
set -eu
[ $# -ge 2 ] || { echo "usage: client NAME COMMAND [ARGUMENT...]" >&2; exit 2; }
read -r sandbox rest < 'HOME_DIR/pid'
client=/run/netns/$1-client
shift
exec nsenter --target "$sandbox" --mount --net --pid -- nsenter --net="$client" -- "$@"
`

// explain says how to use the cluster.
func (h home) explain() string {
	return fmt.Sprintf(`
  export KUBECONFIG=%[1]s PATH=%[2]s:$PATH

  kubectl get nodes -o wide
  make deploy                      # or: helm install xdp-operator charts/xdp-operator -n xdp-operator-system --create-namespace
  kubectl apply -f config/samples/xdp-operator_v1alpha1_xdpcounter.yaml
  kubectl get xdpcounters --watch
  node n1 ip link                  # a command on a node: bpftool net, ls /sys/fs/bpf, ctr images ls, ...
  client n1 ip link                # a command where n1's eth0 leads to: what is sent on wire0 arrives there

The image of this clone is on the nodes; make cluster-up again loads it anew. End it with: make cluster-down
`, h.path("kubeconfig"), h.path("bin"))
}
