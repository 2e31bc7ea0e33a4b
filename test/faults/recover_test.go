// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"github.com/vishvananda/netlink"

	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
)

// recover repairs the environment after a failed test, and resets the accounting.
func (w *testEnv) recover(ctx context.Context) error {
	if err := w.resetAccounting(ctx); err == nil {
		return nil
	}
	// If that fails, restart the agents on clean nodes with new interfaces.
	var errs []error
	for _, x := range w.senders {
		n := x.node
		if err := w.stopAgent(n, syscall.SIGKILL); err != nil {
			errs = append(errs, err)
		}
		errs = append(errs, w.setClock(n.Name, 0), x.held(func() error { return renew(ctx, n) }))
		errs = append(errs, w.startAgent(n, netnscluster.Build{}))
	}
	for _, name := range controllerNames {
		errs = append(errs, w.setClock(name, 0))
	}
	return errors.Join(append(errs, w.resetAccounting(ctx))...)
}

// renew cleans a node and creates a new eth0.
func renew(ctx context.Context, n *netnscluster.Node) error {
	_ = n.Cleanup(ctx) // can fail because of the fault
	left, err := filepath.Glob(filepath.Join(n.BPFFS, "*"))
	if err != nil {
		return err
	}
	for _, path := range left {
		_ = os.RemoveAll(path)
	}
	err = n.Client.Do(func() error {
		wire, err := netlink.LinkByName("wire0")
		if err != nil {
			return nil //nolint:nilerr // it does not exist
		}
		return netlink.LinkDel(wire) // this deletes its peer eth0 too, in any namespace
	})
	if err != nil {
		return err
	}
	return n.AddData()
}
