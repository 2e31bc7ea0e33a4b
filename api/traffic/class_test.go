// SPDX-License-Identifier: Apache-2.0

package traffic

import "testing"

func TestClassNamesAreUniqueAndParse(t *testing.T) {
	seen := map[string]Class{}
	for c := range Class(NumClasses) {
		name := c.String()
		if other, ok := seen[name]; ok {
			t.Errorf("classes %d and %d both have the name %q", other, c, name)
		}
		seen[name] = c
		if back, ok := ParseClass(name); !ok || back != c {
			t.Errorf("ParseClass(%q) = %d, %v, want %d", name, back, ok, c)
		}
		number, _ := c.Number()
		if back := IP(c.Family(), number); back != c {
			t.Errorf("IP(%v, %d) = %d, want %d", c.Family(), number, back, c)
		}
	}
	for _, name := range []string{"", "TCP", "IPv4", "IPv4/", "IPv4/NoSuch", "ipv4/TCP", "IPv6/TCP "} {
		if c, ok := ParseClass(name); ok {
			t.Errorf("ParseClass(%q) = %v, want none", name, c)
		}
	}
}

func TestClassString(t *testing.T) {
	for c, want := range map[Class]string{
		IP(IPv4, 0):    "IPv4/HOPOPT",
		IP(IPv4, 6):    "IPv4/TCP",
		IP(IPv4, 17):   "IPv4/UDP",
		IP(IPv6, 58):   "IPv6/IPv6-ICMP",
		IP(IPv6, 200):  "IPv6/Unassigned-200",
		IP(IPv4, 255):  "IPv4/Reserved",
		ClassARP:       "ARP",
		ClassOther:     "Other",
		ClassMalformed: "Malformed",
	} {
		if got := c.String(); got != want {
			t.Errorf("class %d has the name %q, want %q", c, got, want)
		}
	}
	if got := Family(9).String(); got != "Family(9)" {
		t.Errorf("an unknown family has the name %q", got)
	}
}
