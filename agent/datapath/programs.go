// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"

	"github.com/xdp-operator/xdp-operator/agent/plan"
)

// Programs returns the program of each attachment that Read reads. It may be called concurrently with the other methods. Runs
// and RunTime belong to the program, not to the attachment: they start at zero when a new version replaces it.
func (d *Datapath) Programs() ([]plan.Program, error) {
	return listMounted(d, d.listPrograms)
}

func (d *Datapath) listPrograms() ([]plan.Program, error) {
	folders, err := d.folders()
	if err != nil {
		return nil, err
	}
	var programs []plan.Program
	for _, f := range folders {
		p, err := d.programOf(f)
		switch {
		case errors.Is(err, os.ErrNotExist), errors.Is(err, errForeign):
		case err != nil:
			return nil, err
		default:
			programs = append(programs, p)
		}
	}
	return programs, nil
}

func (d *Datapath) programOf(f folder) (plan.Program, error) {
	counts, id, err := d.counts(f)
	if err != nil {
		return plan.Program{}, err
	}
	if err := counts.Close(); err != nil {
		return plan.Program{}, err
	}
	l, err := d.state(f, id)
	if err != nil {
		return plan.Program{}, err
	}
	p := plan.Program{Map: id, ID: l.program, ViaDispatcher: l.viaDispatcher, Tag: l.tag}
	if p.ViaDispatcher {
		return p, nil
	}
	pinned, err := ebpf.LoadPinnedProgram(f.programPin(), nil)
	if err != nil {
		if err := pinError(f.programPin(), err); !errors.Is(err, os.ErrNotExist) && !errors.Is(err, errForeign) {
			return plan.Program{}, err
		}
		return p, nil
	}
	defer pinned.Close()
	info, err := pinned.Info()
	if err != nil {
		return plan.Program{}, fmt.Errorf("%s: %w", f.programPin(), err)
	}
	if pinnedID, _ := info.ID(); uint32(pinnedID) != p.ID {
		return p, nil // an update was killed before it was complete
	}
	p.Tag = info.Tag
	statistics, err := pinned.Stats()
	if err != nil {
		return plan.Program{}, fmt.Errorf("%s: %w", f.programPin(), err)
	}
	p.Runs, p.RunTime = statistics.RunCount, statistics.Runtime
	return p, nil
}
