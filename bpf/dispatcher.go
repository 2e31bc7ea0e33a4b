package bpf

import (
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// NewDispatcher loads the dispatcher with this configuration (dispatcher.bpf.c), for frames of many buffers if all its
// programs can take them (Linux 5.18, EINVAL).
func NewDispatcher(configuration []byte, frags bool) (*ebpf.Program, error) {
	spec, err := loadDispatcher()
	if err != nil {
		return nil, fmt.Errorf("read the dispatcher's object: %w", err)
	}
	constants := spec.Maps[".rodata"]
	if constants == nil || len(configuration) != int(constants.ValueSize) {
		return nil, fmt.Errorf("a configuration of %d bytes is not the dispatcher's", len(configuration))
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
