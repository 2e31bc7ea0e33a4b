// SPDX-License-Identifier: Apache-2.0

// Package dispatcher shares the XDP hook of an interface by the protocol of libxdp, version 2
// (https://github.com/xdp-project/xdp-tools/blob/main/lib/libxdp/protocol.org). The attached program is a dispatcher, which
// calls up to ten programs one after another. To add or remove a program, a new dispatcher is created with all other programs,
// and it replaces the present one atomically, if that has not changed meanwhile. The programs are in pins:
//
//	<bpffs>/xdp/dispatch-<ifindex>-<ID of the dispatcher>/prog0-prog    the program that is called first
//	                                                     /prog0-link    what makes the dispatcher call it
//
// So xdp-loader and other users of libxdp see our program, and all can add and remove their programs in any order.
//
// Kernel 5.10 and later. Changes need CAP_SYS_ADMIN, without which a program cannot be opened by its ID.
package dispatcher

import (
	"encoding/binary"
	"fmt"
)

// Places is the maximum of programs that a dispatcher calls.
const Places = 10

// Constants of the protocol.
const (
	magic   = 236
	version = 2
	program = "xdp_dispatcher" // the name of a dispatcher
	goOn    = 1 << 31          // in actions: what a place without a program returns
)

// config has the constants of a dispatcher: struct xdp_dispatcher_config of the protocol, and conf of bpf/dispatcher.bpf.c.
type config struct {
	Magic, Version, Enabled, Frags uint8
	Actions, Priorities, Flags     [Places]uint32
}

// configOf returns the config of a dispatcher that calls the members in this order. It accepts frames in several buffers if
// all members do.
func configOf(members []member) config {
	c := config{Magic: magic, Version: version, Enabled: uint8(len(members)), Frags: 1}
	for i, m := range members {
		c.Actions[i], c.Priorities[i], c.Flags[i] = m.actions|goOn, m.priority, m.flags
		if m.flags&flagFrags == 0 {
			c.Frags = 0
		}
	}
	return c
}

func (c config) bytes() []byte {
	b, _ := binary.Append(nil, binary.NativeEndian, c) // there is an error only for types without a fixed size
	return b
}

// parseConfig returns the config of a dispatcher. Its errors say why the dispatcher cannot be used.
func parseConfig(b []byte) (c config, err error) {
	if len(b) < 2 || b[0] != magic {
		return c, fmt.Errorf("the dispatcher is of version 1, before xdp-tools 1.3")
	}
	if b[1] != version {
		return c, fmt.Errorf("the dispatcher is of version %d, only version %d is supported", b[1], version)
	}
	if n, err := binary.Decode(b, binary.NativeEndian, &c); err != nil || n != len(b) {
		return c, fmt.Errorf("the dispatcher's configuration has %d bytes", len(b))
	}
	if c.Enabled == 0 || c.Enabled > Places {
		return c, fmt.Errorf("the dispatcher's configuration names %d programs", c.Enabled)
	}
	return c, nil
}
