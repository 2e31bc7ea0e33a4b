// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// modules are what the tests need of the kernel, beside what it has built in and what these need themselves.
var modules = []string{
	"veth", "virtio_pci", "virtio_net",
	// what can be stacked on an interface, and what has no Ethernet header
	"bonding", "bridge", "dummy", "8021q", "ipvlan", "macvlan", "macvtap", "team_mode_roundrobin", "tun", "vrf", "vxlan", "wireguard",
	// tunnels, SCTP, and what copies the frames of an interface to another one
	"geneve", "ip_gre", "ip6_gre", "ip6_tunnel", "ipip", "sctp", "sit", "sch_ingress", "cls_matchall", "act_mirred",
	// an IPsec tunnel without encryption
	"xfrm_user", "esp4", "authenc", "crypto_null", "ecb",
}

// copyModules copies the modules out of a kernel's tree into a folder, not compressed, and named in the order in which
// they can be loaded.
func copyModules(ctx context.Context, tree, folder string) error {
	files := map[string]string{}
	err := filepath.WalkDir(tree, func(file string, entry fs.DirEntry, err error) error {
		if name, isModule := moduleName(file); err == nil && isModule && !entry.IsDir() {
			files[name] = file
		}
		return err
	})
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("no modules in %s", tree)
	}
	done := map[string]bool{}
	var take func(name string) error
	take = func(name string) error {
		name = strings.ReplaceAll(name, "-", "_")
		file, ok := files[name]
		if done[name] || !ok { // what there is not is built in, or a test will say so
			return nil
		}
		done[name] = true
		contents, err := readModule(ctx, file)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		temporary := filepath.Join(folder, name)
		if err := os.WriteFile(temporary, contents, 0o600); err != nil {
			return err
		}
		needed, err := needs(temporary)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for _, n := range needed {
			if err := take(n); err != nil {
				return err
			}
		}
		written, err := filepath.Glob(filepath.Join(folder, "*.ko"))
		if err != nil {
			return err
		}
		return os.Rename(temporary, filepath.Join(folder, fmt.Sprintf("%02d-%s.ko", len(written), name)))
	}
	for _, name := range modules {
		if err := take(name); err != nil {
			return err
		}
	}
	return nil
}

// moduleName returns the name by which a module's file is needed by others.
func moduleName(file string) (string, bool) {
	name := strings.TrimSuffix(filepath.Base(file), ".xz")
	name, ok := strings.CutSuffix(name, ".ko")
	return strings.ReplaceAll(name, "-", "_"), ok
}

func readModule(ctx context.Context, file string) ([]byte, error) {
	if strings.HasSuffix(file, ".xz") {
		return exec.CommandContext(ctx, "xz", "--decompress", "--stdout", file).Output()
	}
	return os.ReadFile(file)
}

// needs returns the names of the modules that one needs, as it says itself: modules.dep is made when the package is
// installed, which it is not.
func needs(module string) ([]string, error) {
	file, err := elf.Open(module)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	section := file.Section(".modinfo")
	if section == nil {
		return nil, errors.New("not a module")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for field := range strings.SplitSeq(string(info), "\x00") {
		if list, ok := strings.CutPrefix(field, "depends="); ok && list != "" {
			return strings.Split(list, ","), nil
		}
	}
	return nil, nil
}
