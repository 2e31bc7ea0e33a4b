// SPDX-License-Identifier: Apache-2.0

package format

import (
	"fmt"
	"strings"
)

// FirstFew joins the first three items with commas. If there are more, it adds "and N more".
func FirstFew(items []string) string { return FirstFewOf(items, len(items)) }

// FirstFewOf is FirstFew for the first items of a list of n, of which the others are not known.
func FirstFewOf(items []string, n int) string {
	const few = 3
	first := items[:min(few, len(items))]
	if n <= len(first) {
		return strings.Join(first, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(first, ", "), n-len(first))
}

// Count returns the number and the text that agrees with it, for example "1 interface is" or "3 interfaces are".
func Count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
