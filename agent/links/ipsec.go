// SPDX-License-Identifier: Apache-2.0

package links

import (
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// DecryptsTunnels reports whether IPsec decrypts packets of tunnels in the network namespace of the calling thread: whether
// there is a policy for received packets with a template in tunnel, BEET or IP-TFS mode. The kernel passes such a packet to the
// interface that received it a second time, without the tunnel's header (net/xfrm/xfrm_input.c, gro_cells_receive).
//
// Policies with an interface ID do not count, because their packets are passed to an XFRM interface instead. Policies say the
// same as states, but contain no keys. DecryptsTunnels needs CAP_NET_ADMIN. It returns false if the policies cannot be read.
func (Links) DecryptsTunnels() bool {
	// Without this, opening the socket would load the kernel's module for it on nodes that do not use IPsec.
	if !hasXfrmSocket() {
		return false
	}
	request := nl.NewNetlinkRequest(nl.XFRM_MSG_GETPOLICY, unix.NLM_F_DUMP)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	found := false
	// An error after a policy was found does not matter. Without one, it means that there is none, or that nobody can tell.
	_ = request.ExecuteIter(unix.NETLINK_XFRM, nl.XFRM_MSG_NEWPOLICY, func(policy []byte) bool {
		found = decryptsTunnel(policy)
		return !found
	})
	return found
}

// hasXfrmSocket reports whether the kernel has its end of NETLINK_XFRM in this network namespace, which it has as soon as
// xfrm_user is loaded or built in (net/netlink/af_netlink.c, netlink_native_seq_show: the second column is the protocol).
func hasXfrmSocket() bool {
	sockets, err := os.ReadFile("/proc/thread-self/net/netlink")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(sockets)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[1] == strconv.Itoa(unix.NETLINK_XFRM) {
			return true
		}
	}
	return false
}

// decryptsTunnel parses a policy (include/uapi/linux/xfrm.h, struct xfrm_userpolicy_info and its attributes).
func decryptsTunnel(policy []byte) bool {
	if len(policy) < nl.SizeofXfrmUserpolicyInfo || netlink.Dir(nl.DeserializeXfrmUserpolicyInfo(policy).Dir) == netlink.XFRM_DIR_OUT {
		return false
	}
	attributes, err := nl.ParseRouteAttr(policy[nl.SizeofXfrmUserpolicyInfo:])
	if err != nil {
		return false
	}
	tunnel := false
	for _, a := range attributes {
		switch a.Attr.Type {
		case nl.XFRMA_IF_ID:
			return false
		case nl.XFRMA_TMPL:
			for at := 0; at+nl.SizeofXfrmUserTmpl <= len(a.Value); at += nl.SizeofXfrmUserTmpl {
				tunnel = tunnel || hasInnerHeader(netlink.Mode(nl.DeserializeXfrmUserTmpl(a.Value[at:]).Mode))
			}
		}
	}
	return tunnel
}

// hasInnerHeader reports whether a packet in this mode has an IP packet, or its payload, below a header of its own. This is so in
// every mode but these, also in IP-TFS (5, Linux 6.14).
func hasInnerHeader(mode netlink.Mode) bool {
	switch mode {
	case netlink.XFRM_MODE_TRANSPORT, netlink.XFRM_MODE_ROUTEOPTIMIZATION, netlink.XFRM_MODE_IN_TRIGGER:
		return false
	default:
		return true
	}
}
