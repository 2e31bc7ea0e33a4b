// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/bpf"
)

// mounted returns an error that wraps plan.ErrBPFFSNotMounted if no bpffs is visible at the path. It never wraps os.ErrNotExist,
// which is the error of a pin that is missing.
func (d *Datapath) mounted() error {
	var fs unix.Statfs_t
	err := unix.Statfs(d.bpffs, &fs)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w at %s: %v", plan.ErrBPFFSNotMounted, d.bpffs, err) //nolint:errorlint // not wrapped on purpose: see above
	case err != nil:
		return fmt.Errorf("%w at %s: %w", plan.ErrBPFFSNotMounted, d.bpffs, err)
	case fs.Type != unix.BPF_FS_MAGIC:
		return fmt.Errorf("%w at %s", plan.ErrBPFFSNotMounted, d.bpffs)
	}
	return nil
}

// whileMounted calls do if the bpffs is mounted, and returns its error. If the bpffs is not mounted any more when do returns, do
// may have seen a part of the pins only, and whileMounted returns the error of mounted.
func (d *Datapath) whileMounted(do func() error) error {
	if err := d.mounted(); err != nil {
		return err
	}
	err := do()
	return cmp.Or(d.mounted(), err)
}

// listMounted is whileMounted for a function that lists something.
func listMounted[T any](d *Datapath, list func() ([]T, error)) (found []T, err error) {
	err = d.whileMounted(func() (err error) {
		found, err = list()
		return err
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// removeIncomplete detaches and removes a folder in which no counts were found, which an Attach that was killed leaves. It does
// nothing if the bpffs is not mounted any more: then the counts were only not visible.
func (d *Datapath) removeIncomplete(f folder) error {
	if err := d.mounted(); err != nil {
		return err
	}
	return d.detach(f)
}

// NewestMap returns an ID that is larger than that of every map that exists in the kernel, of any owner: that of a map that it
// creates and removes. The kernel numbers maps in ascending order. It needs no bpffs. The error wraps plan.ErrPermission
// without CAP_BPF.
func (d *Datapath) NewestMap() (traffic.MapID, error) {
	counts, err := bpf.NewMap(d.spec)
	if err != nil {
		return traffic.MapID{}, permission(fmt.Errorf("make a map: %w", err))
	}
	defer counts.Close()
	id, err := mapID(counts)
	return traffic.MapID{Boot: d.bootID, ID: id}, err
}
