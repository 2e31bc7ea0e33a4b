// SPDX-License-Identifier: Apache-2.0

package kubeletcluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// hierarchy is a mounted tree of control groups, see cgroups(7): on most machines there is one, of version 2; with
// version 1 there is one for each set of controllers.
type hierarchy struct {
	dir     string // where it is mounted, cgroupRoot or below
	kind    string // "cgroup" or "cgroup2"
	options string // of mount(2): "cpu,cpuacct", "none,name=systemd"
}

// hierarchies lists what is mounted.
func hierarchies() ([]hierarchy, error) {
	content, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list the control groups: %w", err)
	}
	found := parseHierarchies(string(content))
	if len(found) == 0 {
		return nil, fmt.Errorf("no control groups are mounted on %s", cgroupRoot)
	}
	return found, nil
}

// parseHierarchies reads proc_pid_mountinfo(5).
func parseHierarchies(mountinfo string) []hierarchy {
	var found []hierarchy
	for line := range strings.Lines(mountinfo) {
		// ID parent major:minor root MOUNTPOINT options optional... - KIND source SUPEROPTIONS
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 3 {
			continue
		}
		dir, kind := left[4], right[0]
		if kind != "cgroup" && kind != "cgroup2" || dir != cgroupRoot && !strings.HasPrefix(dir, cgroupRoot+"/") {
			continue
		}
		h := hierarchy{dir: dir, kind: kind}
		if kind == "cgroup" {
			h.options = version1Options(right[2])
		}
		// A later mount hides an earlier one.
		found = slices.DeleteFunc(found, func(o hierarchy) bool { return o.dir == dir })
		found = append(found, h)
	}
	return found
}

// version1Options returns those of the options shown that say which hierarchy it is.
func version1Options(shown string) string {
	var options []string
	for option := range strings.SplitSeq(shown, ",") {
		switch name, _, _ := strings.Cut(option, "="); name {
		case "rw", "ro", "xattr", "clone_children", "noprefix", "release_agent", "seclabel":
		case "name":
			options = append(options, "none", option)
		default:
			options = append(options, option)
		}
	}
	return strings.Join(options, ",")
}

// makeCgroup makes a control group, "cluster/node", in every hierarchy, and lets it hand on all controllers.
func makeCgroup(name string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		dir := h.dir
		for part := range strings.SplitSeq(name, "/") {
			if h.kind == "cgroup2" {
				delegate(dir)
			}
			parent := dir
			dir = filepath.Join(dir, part)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
				return fmt.Errorf("make a control group: %w", err)
			}
			// A new one of version 1 has no CPUs and no memory, and then takes no process.
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				value, err := os.ReadFile(filepath.Join(parent, file))
				if h.kind != "cgroup" || errors.Is(err, os.ErrNotExist) {
					continue
				}
				if err == nil {
					err = os.WriteFile(filepath.Join(dir, file), value, 0)
				}
				if err != nil {
					return fmt.Errorf("make a control group: %w", err)
				}
			}
		}
	}
	return nil
}

// delegate lets the children of a group of version 2 have every controller that it has. Some cannot be handed on,
// depending on the machine; the kubelet says which it misses.
func delegate(dir string) {
	controllers, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for controller := range strings.FieldsSeq(string(controllers)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0)
	}
}

// joinCgroup moves this process into the control group, and makes it the root of what the calling thread, and whatever
// that executes, sees.
func joinCgroup(name string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		if err := os.WriteFile(filepath.Join(h.dir, name, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("join the control group: %w", err)
		}
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("make a namespace of control groups: %w", err)
	}
	return nil
}

// mountCgroups replaces what is mounted on cgroupRoot by the same hierarchies as this process's namespace shows them.
// sysfs must be a fresh one.
func mountCgroups(all []hierarchy) error {
	if len(all) != 1 || all[0].dir != cgroupRoot {
		if err := unix.Mount("tmpfs", cgroupRoot, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("mount %s: %w", cgroupRoot, err)
		}
	}
	for _, h := range all {
		if err := os.MkdirAll(h.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(h.kind, h.dir, h.kind, 0, h.options); err != nil {
			return fmt.Errorf("mount %s: %w", h.dir, err)
		}
		// Where several controllers share a hierarchy ("cpu,cpuacct"), each is looked for by its own name.
		for controller := range strings.SplitSeq(filepath.Base(h.dir), ",") {
			alias := filepath.Join(cgroupRoot, controller)
			if _, err := os.Lstat(alias); errors.Is(err, os.ErrNotExist) && h.dir != cgroupRoot {
				if err := os.Symlink(filepath.Base(h.dir), alias); err != nil {
					return err
				}
			}
		}
		if h.kind != "cgroup2" || h.dir != cgroupRoot {
			continue
		}
		// In version 2 a group that hands on controllers has no processes itself.
		inner := filepath.Join(cgroupRoot, "init")
		if err := os.Mkdir(inner, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if err := os.WriteFile(filepath.Join(inner, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("move out of the node's control group: %w", err)
		}
		delegate(cgroupRoot)
	}
	return nil
}

// removeCgroup removes a control group from every hierarchy, with those below. Their processes must have been killed;
// they may take a moment to end.
func removeCgroup(name string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var errs []error
		for _, h := range all {
			errs = append(errs, removeTree(filepath.Join(h.dir, name)))
		}
		err := errors.Join(errs...)
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

func removeTree(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, d := range slices.Backward(dirs) {
		if err := unix.Rmdir(d); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove the control group %s: %w", d, err)
		}
	}
	return nil
}
