// SPDX-License-Identifier: Apache-2.0

package format

import (
	"fmt"
	"strings"
)

// FirstFew joins the first three items with commas. If there are more, it adds "and N more".
func FirstFew(items []string) string {
	const few = 3
	if len(items) <= few {
		return strings.Join(items, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(items[:few], ", "), len(items)-few)
}

// Count returns the number and the text that agrees with it, for example "1 interface is" or "3 interfaces are".
func Count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
