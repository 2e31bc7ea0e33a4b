// SPDX-License-Identifier: Apache-2.0

package kubeletcluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// freezeTimeout is how long all processes of a control group may take to stand still.
const freezeTimeout = 10 * time.Second

// freezer is how a control group is frozen: by what is written to which file, and what a file has when it is.
type freezer struct {
	file, freeze, thaw string
	state, frozen      string
}

var (
	freezer1 = freezer{"freezer.state", "FROZEN", "THAWED", "freezer.state", "FROZEN"} // cgroup-v1/freezer-subsystem.rst
	freezer2 = freezer{"cgroup.freeze", "1", "0", "cgroup.events", "frozen 1"}         // cgroup-v2.rst
)

// freezerOf returns how the machine freezes, and the group's folder there.
func freezerOf(name string) (freezer, string, error) {
	all, err := hierarchies()
	if err != nil {
		return freezer{}, "", err
	}
	for _, h := range all {
		f := freezer2
		if h.kind == "cgroup" {
			if !slices.Contains(strings.Split(h.options, ","), "freezer") {
				continue
			}
			f = freezer1
		}
		dir := filepath.Join(h.dir, name)
		if _, err := os.Stat(filepath.Join(dir, f.file)); err == nil {
			return f, dir, nil
		}
	}
	return freezer{}, "", errors.New("this machine cannot freeze control groups")
}

// freezeCgroup returns when all processes of the group and of those below stand still.
func freezeCgroup(name string) error {
	f, dir, err := freezerOf(name)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, f.file), []byte(f.freeze), 0); err != nil {
		return fmt.Errorf("freeze %s: %w", name, err)
	}
	for deadline := time.Now().Add(freezeTimeout); ; time.Sleep(10 * time.Millisecond) {
		state, err := os.ReadFile(filepath.Join(dir, f.state))
		if err == nil && slices.Contains(strings.Split(strings.TrimSpace(string(state)), "\n"), f.frozen) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("freeze %s: it is still %q: %w", name, state, errors.Join(err, os.ErrDeadlineExceeded))
		}
	}
}

func thawCgroup(name string) error {
	f, dir, err := freezerOf(name)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, f.file), []byte(f.thaw), 0); err != nil {
		return fmt.Errorf("thaw %s: %w", name, err)
	}
	return nil
}
