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

// recover puts everything right that a fault that was not borne may have left, and opens new books.
func (w *world) recover(ctx context.Context) error {
	if err := w.openBooks(ctx); err == nil {
		return nil
	}
	// By force: agents that are sound, nodes on which nothing is left, with the interfaces that they should have.
	var errs []error
	for _, x := range w.wires {
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
	return errors.Join(append(errs, w.openBooks(ctx))...)
}

// renew clears a node and gives it a new eth0.
func renew(ctx context.Context, n *netnscluster.Node) error {
	_ = n.Cleanup(ctx) // which stumbles where the fault lies
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
			return nil //nolint:nilerr // there is none
		}
		return netlink.LinkDel(wire) // and eth0 with it, wherever that is
	})
	if err != nil {
		return err
	}
	return n.AddData()
}
