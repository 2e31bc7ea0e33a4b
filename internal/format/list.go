// Package format writes numbers, plurals and lists for people. All programs use it, so that the same fact reads the same in
// conditions, events, kubectl columns and terminals.
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
