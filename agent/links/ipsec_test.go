// SPDX-License-Identifier: Apache-2.0

package links

import (
	"net"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/xdp-operator/xdp-operator/test/util/netns"
)

func TestDecryptsTunnels(t *testing.T) {
	policy := func(dir netlink.Dir, ifID int, modes ...netlink.Mode) netlink.XfrmPolicy {
		_, inner, _ := net.ParseCIDR("10.1.0.0/16")
		_, here, _ := net.ParseCIDR("10.2.0.0/16")
		p := netlink.XfrmPolicy{Src: inner, Dst: here, Dir: dir, Ifid: ifID, Priority: 100}
		for _, mode := range modes {
			p.Tmpls = append(p.Tmpls, netlink.XfrmPolicyTmpl{
				Src: net.IPv4(192, 0, 2, 1), Dst: net.IPv4(192, 0, 2, 2), Proto: netlink.XFRM_PROTO_ESP, Mode: mode,
			})
		}
		return p
	}
	const in, forward, out = netlink.XFRM_DIR_IN, netlink.XFRM_DIR_FWD, netlink.XFRM_DIR_OUT
	for name, tc := range map[string]struct {
		policies []netlink.XfrmPolicy
		want     bool
	}{
		"a node without IPsec":                          {},
		"a tunnel to the node":                          {[]netlink.XfrmPolicy{policy(in, 0, netlink.XFRM_MODE_TUNNEL)}, true},
		"a tunnel to a network behind the node":         {[]netlink.XfrmPolicy{policy(forward, 0, netlink.XFRM_MODE_TUNNEL)}, true},
		"a tunnel into which the node only sends":       {[]netlink.XfrmPolicy{policy(out, 0, netlink.XFRM_MODE_TUNNEL)}, false},
		"a tunnel in BEET mode":                         {[]netlink.XfrmPolicy{policy(in, 0, netlink.XFRM_MODE_BEET)}, true},
		"transport mode, which has no second header":    {[]netlink.XfrmPolicy{policy(in, 0, netlink.XFRM_MODE_TRANSPORT)}, false},
		"a tunnel of an XFRM interface":                 {[]netlink.XfrmPolicy{policy(in, 7, netlink.XFRM_MODE_TUNNEL)}, false},
		"a policy without a template":                   {[]netlink.XfrmPolicy{policy(in, 0)}, false},
		"compression in transport mode before a tunnel": {[]netlink.XfrmPolicy{policy(in, 0, netlink.XFRM_MODE_TRANSPORT, netlink.XFRM_MODE_TUNNEL)}, true},
		"the last of several policies": {[]netlink.XfrmPolicy{
			policy(out, 0, netlink.XFRM_MODE_TUNNEL), policy(in, 7, netlink.XFRM_MODE_TUNNEL), policy(forward, 0, netlink.XFRM_MODE_TUNNEL),
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			netns.New(t).Do(func() {
				for _, p := range tc.policies {
					if err := netlink.XfrmPolicyAdd(&p); err != nil {
						t.Fatalf("add a policy: %v", err)
					}
				}
				if got := (Links{}).DecryptsTunnels(); got != tc.want {
					t.Errorf("got %t, want %t", got, tc.want)
				}
			})
		})
	}
}

// What the kernel could send in the future, or another program.
func TestDecryptsTunnelOfAnythingElse(t *testing.T) {
	for _, policy := range [][]byte{nil, make([]byte, 100), make([]byte, 168), append(make([]byte, 168), 4, 0), append(make([]byte, 168), 255, 255, 5, 0)} {
		if decryptsTunnel(policy) {
			t.Errorf("%d bytes are taken for the policy of a tunnel", len(policy))
		}
	}
}
