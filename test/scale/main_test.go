// Package scale measures what xdp-operator costs in a large cluster. The API server, etcd and the controller are real;
// nodes are objects, and their agents the real agent's passes and reports over a datapath in memory, all in this process.
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
	nodes    = flag.Int("nodes", 200, "how many nodes there are")
	counters = flag.Int("counters", 5, "how many XDPCounters select all of them")
	wish     = flag.Duration("interval", time.Second, "the report interval that they ask for")
	window   = flag.Duration("window", 0, "how long the steady state is looked at; 0: two report intervals, 30 s at most")
)

var c *netnscluster.Cluster

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard()) // of watches that end with their agents
	flag.Parse()
	prepare := func() error { return netnscluster.Prepare(context.Background(), root, os.Stderr) }
	netnscluster.Inside(root, "scale", prepare, func(box *sandbox.Sandbox, dir string) (status int, err error) {
		if c, err = netnscluster.Start(context.Background(), box, netnscluster.Options{Root: root, Dir: dir}); err != nil {
			return 1, err
		}
		status = m.Run()
		return status, c.Stop()
	})
}
