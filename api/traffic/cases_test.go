// SPDX-License-Identifier: Apache-2.0

package traffic

import "testing"

func TestNumberIsThatOfTheProtocolInIPOnly(t *testing.T) {
	for c := range Class(NumClasses) {
		number, ok := c.Number()
		if inIP := c != ClassARP && c != ClassOther && c != ClassMalformed; ok != inIP {
			t.Errorf("%s has a number: %t", c, ok)
		} else if ok && IP(c.Family(), number) != c || !ok && number != 0 {
			t.Errorf("the number of %s is %d", c, number)
		}
	}
}

func TestStringOfAFamilyThatDoesNotExist(t *testing.T) {
	for f, want := range map[Family]string{Malformed: "Malformed", numFamilies: "Family(5)", 200: "Family(200)"} {
		if got := f.String(); got != want {
			t.Errorf("Family(%d) is %q, want %q", uint8(f), got, want)
		}
	}
}
