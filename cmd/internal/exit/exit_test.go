// SPDX-License-Identifier: Apache-2.0

package exit

import (
	"errors"
	"fmt"
	"testing"
)

func TestStatusAndLine(t *testing.T) {
	hinted, bare := errors.New("hinted"), errors.New("bare")
	causes := Causes{{hinted, 2, "do this"}, {bare, 3, ""}}
	for name, c := range map[string]struct {
		err    error
		status int
		line   string
	}{
		"a cause with a hint":               {fmt.Errorf("open: %w", hinted), 2, "open: hinted (do this)"},
		"a cause without a hint":            {bare, 3, "bare"},
		"two causes: the first in the list": {errors.Join(bare, hinted), 2, "bare; hinted (do this)"},
		"an unknown error":                  {errors.New("a\nb"), 1, "a; b"},
		"a control character":               {errors.New("attach a\x1b[31m"), 1, `attach a\x1b[31m`},
	} {
		t.Run(name, func(t *testing.T) {
			if status, line := causes.Status(c.err), causes.Line(c.err); status != c.status || line != c.line {
				t.Errorf("%d, %q", status, line)
			}
		})
	}
	if status := causes.Status(nil); status != 0 {
		t.Errorf("status %d without an error", status)
	}
}
