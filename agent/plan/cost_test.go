// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"strings"
	"testing"

	"github.com/xdp-operator/xdp-operator/test/util/golden"
)

func TestTheTableOfCosts(t *testing.T) {
	const document, begin, end = "../../docs/interfaces.md", "<!-- This table is written by go test ./agent/plan -update. -->\n\n", "\n<!-- The end of this table. -->"
	var table strings.Builder
	table.WriteString("| driver (`ethtool -i`), or kind | `Auto` tries first | native mode takes away | generic mode takes away | source |\n|---|---|---|---|---|\n")
	drivers := map[string]bool{}
	for _, c := range Costs {
		for _, driver := range c.Drivers {
			if drivers[driver] {
				t.Errorf("%s is in the table twice", driver)
			}
			drivers[driver] = true
			if first := CostOf(Interface{Driver: driver}).First; first != c.First {
				t.Errorf("Auto tries %s first on %s, want %s", first, driver, c.First)
			}
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s | %s |\n", strings.Join(c.Drivers, "`, `"), c.First, c.Native, c.Generic, c.Source)
	}
	golden.CheckPart(t, document, begin, end, table.String())
}

// While an interface is renamed, its driver cannot be read.
func TestTheKindOfAVirtualInterfaceDecides(t *testing.T) {
	for _, i := range []Interface{{Kind: "veth", Driver: "veth"}, {Kind: "veth"}} {
		if first := FirstOf(i); first != Generic {
			t.Errorf("Auto tries %q first on %+v", first, i)
		}
	}
}

func TestUnknownDriversAreNative(t *testing.T) {
	for _, driver := range []string{"", "a-driver-of-next-year"} {
		if first := FirstOf(Interface{Driver: driver}); first != "" {
			t.Errorf("Auto tries %s first on the driver %q", first, driver)
		}
	}
}
