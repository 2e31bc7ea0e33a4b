// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
)

// hook returns the ID of the XDP program on the node's eth0, or 0 if there is none, and the index of the interface.
func hook(n *netnscluster.Node) (program uint32, index int, err error) {
	err = n.Do(func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		index = eth0.Attrs().Index
		if xdp := eth0.Attrs().Xdp; xdp != nil && xdp.Attached {
			program = xdp.ProgId
		}
		return nil
	})
	return program, index, err
}

// counting returns nil if the program on the node's eth0 is that of the pinned link.
func counting(n *netnscluster.Node) error {
	program, index, err := hook(n)
	if err != nil {
		return err
	}
	folder, err := pinFolder(n, index)
	if err != nil {
		return err
	}
	pinned, err := linkedProgram(filepath.Join(folder, "link"))
	if err != nil {
		return err
	}
	if program == 0 || program != pinned {
		return fmt.Errorf("eth0 of %s carries program %d, pinned is the link of %d", n.Name, program, pinned)
	}
	return nil
}

// pinFolder returns the folder of pins for an interface, of any layout.
func pinFolder(n *netnscluster.Node, index int) (string, error) {
	folders, err := filepath.Glob(filepath.Join(n.BPFFS, "xdp-operator", "v*", "*", strconv.Itoa(index)))
	if err != nil {
		return "", err
	}
	if len(folders) != 1 {
		return "", fmt.Errorf("%s has %d folders of pins for interface %d, want one", n.Name, len(folders), index)
	}
	return folders[0], nil
}

// pins returns the folder of pins of the node's eth0.
func pins(n *netnscluster.Node) (string, error) {
	_, index, err := hook(n)
	if err != nil {
		return "", err
	}
	return pinFolder(n, index)
}

// linkedProgram returns the ID of the program of a pinned link.
func linkedProgram(path string) (uint32, error) {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	info, err := l.Info()
	if err != nil {
		return 0, err
	}
	return uint32(info.Program), nil
}

// detachLink detaches the link of the node's eth0.
func detachLink(n *netnscluster.Node) error {
	folder, err := pins(n)
	if err != nil {
		return err
	}
	l, err := link.LoadPinnedLink(filepath.Join(folder, "link"), nil)
	if err != nil {
		return err
	}
	return errors.Join(l.Detach(), l.Close())
}

// removePin removes one pin of the node's eth0.
func removePin(n *netnscluster.Node, name string) error {
	folder, err := pins(n)
	if err != nil {
		return err
	}
	return os.Remove(filepath.Join(folder, name))
}
