// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// NewDispatcher loads the dispatcher with the configuration (dispatcher.bpf.c). frags enables frames of many buffers, which
// all its programs must support, and requires Linux 5.18 (EINVAL otherwise).
func NewDispatcher(configuration []byte, frags bool) (*ebpf.Program, error) {
	spec, err := loadDispatcher()
	if err != nil {
		return nil, fmt.Errorf("read the dispatcher's object: %w", err)
	}
	constants := spec.Maps[".rodata"]
	if constants == nil || len(configuration) != int(constants.ValueSize) {
		return nil, fmt.Errorf("the configuration has %d bytes, which is not the size of the dispatcher's", len(configuration))
	}
	constants.Contents = []ebpf.MapKV{{Key: uint32(0), Value: configuration}}
	spec.Variables = nil
	if frags {
		spec.Programs[dispatcherProgXdpDispatcher].Flags |= unix.BPF_F_XDP_HAS_FRAGS
	}
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, err
	}
	defer collection.Close()
	return collection.DetachProgram(dispatcherProgXdpDispatcher), nil
}
