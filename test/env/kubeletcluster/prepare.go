// SPDX-License-Identifier: Apache-2.0

// Package kubeletcluster runs a Kubernetes cluster of real nodes on one Linux machine, without a container engine and
// without a registry: a control plane, and for each node kubelet, containerd, runc, kube-proxy and a bridge network, in
// namespaces and a control group of its own. All of it lives in a sandbox (test/env/sandbox) and ends with it.
package kubeletcluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/xdp-operator/xdp-operator/test/env/controlplane"
	"github.com/xdp-operator/xdp-operator/test/env/image"
	"github.com/xdp-operator/xdp-operator/test/env/sandbox"
)

// programsVariable carries Programs into the sandbox.
const programsVariable = "XDP_OPERATOR_CLUSTER_PROGRAMS"

// Programs says where what a cluster is made of is. All are folders but the last two.
type Programs struct {
	Assets     string // of the control plane, as controlplane.Assets returns it
	Kubernetes string // kubelet, kube-proxy, kube-scheduler, kubectl
	Containerd string // containerd, containerd-shim-runc-v2, ctr
	CNI        string // bridge, host-local, loopback, portmap
	Helm       string // helm
	Runc       string // the executable
	Pause      string // the archive of pauseImage
}

// Enter is sandbox.Enter for a program that runs clusters: it has to be the first thing that main or TestMain does.
// Before the sandbox it prepares what clusters need: on a machine that has never done so it builds for ten minutes or
// more, and installs Debian packages. root is the top folder of the clone. o.Outside is called after that.
func Enter(root string, o sandbox.Options, progress io.Writer) (*sandbox.Sandbox, error) {
	runMachine()
	then := o.Outside
	o.Outside = func() error {
		programs, err := Prepare(context.Background(), root, progress)
		if err != nil {
			return err
		}
		content, err := json.Marshal(programs)
		if err != nil {
			return err
		}
		if err := errors.Join(os.Setenv(programsVariable, string(content)), Sweep()); err != nil || then == nil {
			return err
		}
		return then()
	}
	return sandbox.Enter(o)
}

// Prepare gets everything that clusters need from the machine's network, or from the cache.
func Prepare(ctx context.Context, root string, progress io.Writer) (p Programs, err error) {
	if p.Runc, err = packages(ctx, progress); err != nil {
		return p, err
	}
	if p.Assets, err = controlplane.Assets(ctx, progress); err != nil {
		return p, err
	}
	p.Kubernetes, err = controlplane.Programs(ctx, progress, "kubelet", "kube-proxy", "kube-scheduler", "kubectl")
	if err != nil {
		return p, err
	}
	for _, tool := range []struct {
		name string
		dir  *string
	}{{"containerd", &p.Containerd}, {"cni", &p.CNI}, {"helm", &p.Helm}} {
		*tool.dir, err = controlplane.Tools(ctx, filepath.Join(root, "test/env/kubeletcluster", tool.name), progress)
		if err != nil {
			return p, err
		}
	}
	p.Pause, err = pause(ctx, root)
	return p, err
}

// pause makes the archive of pauseImage.
func pause(ctx context.Context, root string) (string, error) {
	program, err := image.Compile(ctx, root, "./test/env/kubeletcluster/pause", runtime.GOARCH, "", nil)
	if err != nil {
		return "", err
	}
	var archive bytes.Buffer
	err = image.Image{
		Name: pauseImage, Architecture: runtime.GOARCH, User: "65535:65535", Entrypoint: []string{"/pause"},
		Files: []image.File{{Path: "pause", Mode: 0o755, Content: program}},
	}.Write(&archive)
	if err != nil {
		return "", err
	}
	cache, err := controlplane.CacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "tools", "pause.tar")
	temporary := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.WriteFile(temporary, archive.Bytes(), 0o644); err != nil {
		return "", fmt.Errorf("write the pause image: %w", err)
	}
	return path, os.Rename(temporary, path)
}

// programs returns what Enter has prepared.
func programs() (p Programs, err error) {
	content := os.Getenv(programsVariable)
	if content == "" {
		return p, errors.New("call kubeletcluster.Enter first")
	}
	return p, json.Unmarshal([]byte(content), &p)
}

// packages makes sure that runc and nft are there, with apt-get if need be, and returns the path of runc: it needs a C
// library for system call filters, so it is not built.
func packages(ctx context.Context, progress io.Writer) (runc string, err error) {
	var absent []string
	for program, pkg := range map[string]string{"runc": "runc", "nft": "nftables", "nsenter": "util-linux"} {
		if lookPath(program) == "" {
			absent = append(absent, pkg)
		}
	}
	if len(absent) == 0 {
		return lookPath("runc"), nil
	}
	apt := lookPath("apt-get")
	if apt == "" {
		return "", fmt.Errorf("install the packages that have runc, nft and nsenter: apt-get is not here to install %v", absent)
	}
	for _, args := range [][]string{{"update"}, append([]string{"install", "--yes", "--no-install-recommends"}, absent...)} {
		fmt.Fprintf(progress, "cluster: apt-get %v\n", args)
		cmd := exec.CommandContext(ctx, apt, args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = progress, progress
		// An update that reaches only some of its sources may be enough.
		if err := cmd.Run(); err != nil && args[0] != "update" {
			return "", fmt.Errorf("install %v (install them by hand, then run this again): %w", absent, err)
		}
	}
	if runc = lookPath("runc"); runc == "" {
		return "", errors.New("runc is not there although its package is installed")
	}
	return runc, nil
}

// lookPath returns the path of an executable, "" if there is none. Unlike exec.LookPath it also looks where programs
// for root are, which need not be in the PATH of this process.
func lookPath(program string) string {
	if path, err := exec.LookPath(program); err == nil {
		if path, err = filepath.Abs(path); err == nil {
			return path
		}
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if info, err := os.Stat(filepath.Join(dir, program)); err == nil && info.Mode()&0o111 != 0 {
			return filepath.Join(dir, program)
		}
	}
	return ""
}
