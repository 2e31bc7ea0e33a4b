// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/xdp-operator/xdp-operator/test/env/kubeletcluster"
)

// attached returns the IDs of all XDP programs on the node by the names of their interfaces.
func attached(n *kubeletcluster.Node) (map[string]ebpf.ProgramID, error) {
	programs := map[string]ebpf.ProgramID{}
	err := n.Do(func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			if xdp := l.Attrs().Xdp; xdp != nil && xdp.Attached {
				programs[l.Attrs().Name] = ebpf.ProgramID(xdp.ProgId)
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the interfaces of %s: %w", n.Name, err)
	}
	return programs, nil
}

// pinned returns the paths of all folders and pins in the node's BPF file system.
func pinned(n *kubeletcluster.Node) (paths []string, err error) {
	err = filepath.WalkDir(n.BPFFS, func(path string, _ os.DirEntry, err error) error {
		// maps.debug and progs.debug are files of the kernel. Names of pins cannot contain a dot.
		if path != n.BPFFS && filepath.Ext(path) == "" && !errors.Is(err, fs.ErrNotExist) {
			paths = append(paths, path)
		}
		return err
	})
	return paths, err
}

// objects are the IDs of the project's kernel objects. The kernel does not reuse IDs.
type objects struct {
	Programs []ebpf.ProgramID
	Maps     []ebpf.MapID
	Links    []link.ID
}

// objectsOf returns the objects that are attached and pinned on the node.
func objectsOf(t *testing.T, n *kubeletcluster.Node) (o objects) {
	t.Helper()
	programs, err := attached(n)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range programs {
		o.Programs = append(o.Programs, id)
	}
	paths, err := pinned(n)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err != nil || info.IsDir() {
			continue
		}
		if m, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true}); err == nil {
			if info, err := m.Info(); err == nil {
				id, _ := info.ID()
				o.Maps = append(o.Maps, id)
			}
			_ = m.Close()
			continue
		}
		if p, err := ebpf.LoadPinnedProgram(path, nil); err == nil {
			if info, err := p.Info(); err == nil {
				id, _ := info.ID()
				o.Programs = append(o.Programs, id)
			}
			_ = p.Close()
			continue
		}
		l, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			t.Fatalf("%s is neither a map nor a program nor a link: %v", path, err)
		}
		if info, err := l.Info(); err == nil {
			o.Links = append(o.Links, info.ID)
		}
		_ = l.Close()
	}
	slices.Sort(o.Programs)
	o.Programs = slices.Compact(o.Programs) // attached programs are pinned too
	slices.Sort(o.Maps)
	slices.Sort(o.Links)
	if len(o.Programs) == 0 || len(o.Maps) == 0 || len(o.Links) == 0 {
		t.Fatalf("not everything is attached on %s: %+v, %v", n.Name, o, paths)
	}
	return o
}

// alive returns the objects that still exist.
func (o objects) alive() (left objects) {
	for _, id := range o.Programs {
		if p, err := ebpf.NewProgramFromID(id); err == nil {
			left.Programs = append(left.Programs, id)
			_ = p.Close()
		}
	}
	for _, id := range o.Maps {
		if m, err := ebpf.NewMapFromID(id); err == nil {
			left.Maps = append(left.Maps, id)
			_ = m.Close()
		}
	}
	for _, id := range o.Links {
		if l, err := link.NewFromID(id); err == nil {
			left.Links = append(left.Links, id)
			_ = l.Close()
		}
	}
	return left
}
