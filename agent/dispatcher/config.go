// Package dispatcher shares the XDP hook of an interface by the protocol of libxdp, version 2
// (https://github.com/xdp-project/xdp-tools/blob/main/lib/libxdp/protocol.org): what is attached is a dispatcher, which
// calls up to ten programs in turn. To add or to remove a program a new dispatcher is made with all the others, and put
// into the place of the present one at once, if that is still the one it was made from. All of them are found in pins:
//
//	<bpffs>/xdp/dispatch-<ifindex>-<ID of the dispatcher>/prog0-prog    the program that is called first
//	                                                     /prog0-link    what makes the dispatcher call it
//
// So xdp-loader and all that use libxdp see our program, can add theirs and remove theirs in any order, and so can we.
//
// Kernel 5.10 and later; to change anything takes CAP_SYS_ADMIN, since only with it a program is had by its ID.
package dispatcher

import (
	"encoding/binary"
	"fmt"
)

// Places is how many programs a dispatcher can call.
const Places = 10

// What is agreed on in the protocol.
const (
	magic   = 236
	version = 2
	program = "xdp_dispatcher" // the name of a dispatcher
	goOn    = 1 << 31          // in actions: what a place without a program returns
)

// config is what a dispatcher holds constant: struct xdp_dispatcher_config of the protocol, and conf of
// bpf/dispatcher.bpf.c.
type config struct {
	Magic, Version, Enabled, Frags uint8
	Actions, Priorities, Flags     [Places]uint32
}

// configOf returns that of a dispatcher for the members in this order. It can take frames of many buffers if all of
// them can.
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
	b, _ := binary.Append(nil, binary.NativeEndian, c) // an error is of a type without a size only
	return b
}

// parseConfig says what is wrong with a dispatcher that is not one of ours.
func parseConfig(b []byte) (c config, err error) {
	if len(b) < 2 || b[0] != magic {
		return c, fmt.Errorf("the dispatcher is of version 1, before xdp-tools 1.3")
	}
	if b[1] != version {
		return c, fmt.Errorf("the dispatcher is of version %d, and only %d is known", b[1], version)
	}
	if n, err := binary.Decode(b, binary.NativeEndian, &c); err != nil || n != len(b) {
		return c, fmt.Errorf("the dispatcher's configuration has %d bytes", len(b))
	}
	if c.Enabled == 0 || c.Enabled > Places {
		return c, fmt.Errorf("the dispatcher's configuration names %d programs", c.Enabled)
	}
	return c, nil
}
