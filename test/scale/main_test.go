// Package scale measures what xdp-operator costs in a large cluster. The API server, etcd and the controller are real;
// nodes are objects, and their agents the real agent's passes and reports over a datapath in memory, all in this process.
package scale

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/xdp-operator/xdp-operator/hack/cluster"
	"github.com/xdp-operator/xdp-operator/hack/sandbox"
)

const root = "../.."

var (
	nodes    = flag.Int("nodes", 200, "how many nodes there are")
	counters = flag.Int("counters", 5, "how many XDPCounters select all of them")
	wish     = flag.Duration("interval", time.Second, "the report interval that they ask for")
	window   = flag.Duration("window", 0, "how long the steady state is looked at; 0: two report intervals")
)

var c *cluster.Cluster

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard()) // of watches that end with their agents
	flag.Parse()
	box, err := sandbox.Enter(sandbox.Options{Outside: func() error {
		return cluster.Prepare(context.Background(), root, os.Stderr)
	}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "xdp-operator-scale-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		status := 1
		if c, err = cluster.Start(context.Background(), box, cluster.Options{Root: root, Dir: dir}); err != nil {
			fmt.Fprintln(os.Stderr, err)
		} else {
			status = m.Run()
			if err := c.Stop(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				status = 1
			}
		}
		_ = os.RemoveAll(dir)
		return status
	}())
}
