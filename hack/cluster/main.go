// SPDX-License-Identifier: Apache-2.0

// Command cluster runs a Kubernetes cluster of real nodes on this machine for people: make cluster-up, cluster-down.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/xdp-operator/xdp-operator/test/env/controlplane"
	"github.com/xdp-operator/xdp-operator/test/env/kubeletcluster"
	"github.com/xdp-operator/xdp-operator/test/env/sandbox"
)

func main() {
	nodes := flag.Int("nodes", 2, "How many nodes the cluster has.")
	version := flag.String("version", "0.1.0", "The version of the operator's image, which is built and loaded on the nodes.")
	down := flag.Bool("down", false, "End the cluster, and do nothing else.")
	prepare := flag.Bool("prepare", false, "Get the programs that clusters are made of, and do nothing else.")
	flag.Parse()
	if *prepare {
		_, err := kubeletcluster.Prepare(context.Background(), ".", os.Stderr)
		fail(err)
		return
	}
	fail(run(*nodes, *version, *down))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(nodes int, version string, down bool) error {
	home, err := newHome()
	if err != nil {
		return err
	}
	if down {
		return home.down()
	}
	if nodes < 1 {
		return errors.New("a cluster has at least one node")
	}
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(root, "test/env/kubeletcluster")); err != nil {
		return fmt.Errorf("run it from the top folder of the clone: %w", err)
	}
	began := time.Now()
	box, err := kubeletcluster.Enter(root, sandbox.Options{
		PIDFile: home.pidFile(), LogFile: home.path("log"),
		Outside: func() error {
			if err := buildImage(context.Background(), root, version, home.image()); err != nil {
				return err
			}
			pid, err := sandbox.Running(home.pidFile())
			if err != nil {
				return err
			}
			if pid != 0 {
				return home.again(pid, nodes)
			}
			return errors.Join(home.clean(), listenOutside())
		},
	}, os.Stderr)
	if err != nil {
		return err
	}
	ctrl.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	p, err := inheritProxy()
	if err != nil {
		return err
	}
	c, err := start(ctx, box, nodes)
	if err != nil {
		return err
	}
	server, err := url.Parse(c.Config().Host)
	if err != nil {
		return errors.Join(err, c.Stop())
	}
	if err := errors.Join(c.Load(ctx, home.image()), home.furnish(c, p.address())); err != nil {
		return errors.Join(err, c.Stop())
	}
	fmt.Fprintf(os.Stdout, "cluster: up after %.1f s\n%s", time.Since(began).Seconds(), home.explain())
	if err := box.Ready(); err != nil {
		return errors.Join(err, c.Stop())
	}
	go p.serve(server.Host)
	<-ctx.Done()
	return c.Stop()
}

// start runs a cluster with nodes n1, n2, and so on. If it fails, nothing runs.
func start(ctx context.Context, box *sandbox.Sandbox, nodes int) (*kubeletcluster.Cluster, error) {
	c, err := kubeletcluster.Start(ctx, box, kubeletcluster.Options{Log: os.Stdout})
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range nodes {
		names = append(names, fmt.Sprintf("n%d", i+1))
	}
	if err := c.AddNodes(ctx, names...); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// newHome returns the folder of the one cluster that is for people.
func newHome() (home, error) {
	cache, err := controlplane.CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "cluster")
	return home(dir), os.MkdirAll(dir, 0o755)
}
