// SPDX-License-Identifier: Apache-2.0

package links

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestWhetherTheKernelHasSCTP(t *testing.T) {
	const head = "protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re bi br ha uh gp em\n"
	const tcp = "TCP       2432      0       1   no     320   yes  kernel      y  y  y  y  y  y  y  y  y  y  y  y  y  y  y  y  y  y\n"
	const sctp = "SCTPv6    1848      0       0   no       0   yes  sctp        y  y  y  y  y  n  y  y  y  y  y  y  y  n  y  y  y  y\n"
	for name, tc := range map[string]struct {
		protocols string
		want      bool
	}{
		"it is loaded":              {head + tcp + sctp, true},
		"it is not loaded":          {head + tcp, false},
		"the list cannot be parsed": {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := hasSCTP(tc.protocols); got != tc.want {
				t.Errorf("got %t, want %t", got, tc.want)
			}
		})
	}
	t.Run("after a socket was opened", func(t *testing.T) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP) // loads the module, if there is one
		if err == nil {
			_ = unix.Close(fd)
		}
		if got := (Links{}).HasSCTP(); got != (err == nil) {
			t.Errorf("got %t, and opening a socket: %v", got, err)
		}
	})
}
