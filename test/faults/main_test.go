// SPDX-License-Identifier: Apache-2.0

// Package faults injects the faults that happen in clusters, one after the other and in random sequences, while frames
// arrive at a constant rate. It checks the accounting: what arrived at an interface is reported in the node's account and in
// the XDPCounters, packets and bytes per class, except for the losses that a fault allows.
//
// The controllers, the agents, the API server, the programs and the frames are real. Nodes are network namespaces.
package faults

import (
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
	"github.com/xdp-operator/xdp-operator/test/env/sandbox"
)

const root = "../.."

var (
	large = flag.Bool("large", false, "outages of a minute, and at least 100 random faults")
	seed  = flag.Uint64("seed", rand.Uint64(), "of the random sequence")
	count = flag.Int("random", 0, "how many random faults; 0: 15, or 100 with -large")
	only  = flag.String("only", "", "a regular expression: only the faults whose names match")
	table = flag.String("table", "", "the file that the table is written to as well; it is Markdown")
)

// size holds the parameters of the small and the large run.
type size struct {
	faults   int           // random ones
	outage   time.Duration // of the API server and of etcd
	patience time.Duration // how long recovery may take
}

func theSize() size {
	s := size{faults: 15, outage: 2 * time.Second, patience: 75 * time.Second}
	if *large {
		// An agent that has not reached the API server for a minute tries again every 30 s, a watch every 30 s to 60 s.
		s = size{faults: 100, outage: time.Minute, patience: 2 * time.Minute}
	}
	if *count > 0 {
		s.faults = *count
	}
	return s
}

// w is the environment of the tests.
var w *testEnv

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	flag.Parse()
	prepare := func() error {
		if err := netnscluster.Prepare(context.Background(), root, false, os.Stderr); err != nil {
			return err
		}
		return prepareBuilds(context.Background(), os.Stderr)
	}
	netnscluster.Inside(root, "faults", prepare, func(box *sandbox.Sandbox, dir string) (status int, err error) {
		if w, err = newEnv(context.Background(), box, dir); err == nil {
			status = m.Run()
		}
		if w != nil {
			err = errors.Join(err, w.end())
		}
		return status, err
	})
}
