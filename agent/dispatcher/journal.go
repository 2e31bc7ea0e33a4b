// SPDX-License-Identifier: Apache-2.0

package dispatcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"

	"github.com/xdp-operator/xdp-operator/agent/plan"
)

// journal returns the pins of the dispatchers of a change in progress: the new one and the one that it replaces.
func (h Hook) journal() [2]string {
	return [2]string{filepath.Join(h.Journal, "dispatcher"), filepath.Join(h.Journal, "replaced")}
}

// writeJournal pins both dispatchers. from may be nil.
func (h Hook) writeJournal(to, from *ebpf.Program) error {
	for i, p := range []*ebpf.Program{to, from} {
		if p == nil {
			continue
		}
		noted, err := p.Clone()
		if err != nil {
			return err
		}
		h.between()
		err = noted.Pin(h.journal()[i])
		if err := errors.Join(err, noted.Close()); err != nil {
			return permission(fmt.Errorf("pin the journal of the change: %w", err))
		}
	}
	return nil
}

// cleanInterruptedChange removes the pins of the dispatchers in the journal that are not attached, and then the journal. The
// caller has the lock.
func (h Hook) cleanInterruptedChange() error {
	for _, pin := range h.journal() {
		p, err := ebpf.LoadPinnedProgram(pin, nil)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return permission(fmt.Errorf("open %s: %w", pin, err))
		}
		id, err := idOf(p)
		if err := errors.Join(err, p.Close()); err != nil {
			return err
		}
		on, err := attached(h.Index)
		if err != nil && !errors.Is(err, plan.ErrInterfaceGone) && !errors.Is(err, plan.ErrHookInUse) {
			return err
		}
		if id != on.Program {
			if err := h.unpin(id); err != nil {
				return err
			}
		}
		h.between()
		if err := os.Remove(pin); err != nil {
			return permission(fmt.Errorf("remove %s: %w", pin, err))
		}
	}
	return nil
}
