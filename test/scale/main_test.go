// SPDX-License-Identifier: Apache-2.0

// Package scale measures the cost of xdp-operator in a large cluster. The API server, etcd and the controller are real. Nodes
// are only objects. Their agents run in this process, with the real code and a datapath in memory.
package scale

import (
	"context"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
	"github.com/xdp-operator/xdp-operator/test/env/sandbox"
)

const root = "../.."

var (
	nodes    = flag.Int("nodes", 200, "number of nodes")
	counters = flag.Int("counters", 5, "number of XDPCounters, each of which selects all nodes")
	wish     = flag.Duration("interval", time.Second, "report interval in their specs")
	window   = flag.Duration("window", 0, "duration of the measurement in steady state; 0 means two report intervals, at most 30 s")
)

var c *netnscluster.Cluster

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard()) // logs about watches that end with their agents
	flag.Parse()
	prepare := func() error { return netnscluster.Prepare(context.Background(), root, false, os.Stderr) }
	netnscluster.Inside(root, "scale", prepare, func(box *sandbox.Sandbox, dir string) (status int, err error) {
		if c, err = netnscluster.Start(context.Background(), box, netnscluster.Options{Root: root, Dir: dir}); err != nil {
			return 1, err
		}
		status = m.Run()
		return status, c.Stop()
	})
}
