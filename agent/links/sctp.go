// SPDX-License-Identifier: Apache-2.0

package links

import (
	"os"
	"strings"
)

// HasSCTP reports whether the kernel's SCTP is loaded, so that processes of this machine can send by it. It is false also if that
// cannot be read. The list has the protocols of the whole machine (net/core/sock.c, proto_list).
func (Links) HasSCTP() bool {
	protocols, err := os.ReadFile("/proc/thread-self/net/protocols")
	return err == nil && hasSCTP(string(protocols))
}

// hasSCTP reads the contents of /proc/net/protocols: a line of names, and a line for each protocol that begins with its name.
func hasSCTP(protocols string) bool {
	for line := range strings.Lines(protocols) {
		if strings.HasPrefix(line, "SCTP") {
			return true
		}
	}
	return false
}
