// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"
	"testing"

	"github.com/xdp-operator/xdp-operator/test/util/golden"
)

// The page is as make metrics-docs writes it.
func TestThePageIsCurrent(t *testing.T) {
	const root = "../.."
	text, err := document(root)
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, filepath.Join(root, page), text)
}
