// SPDX-License-Identifier: Apache-2.0

package display

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/xdp-operator/xdp-operator/api/traffic"
)

// Numbers are counts, and their rate if it is known, in the JSON output of the programs. Fields can be added. Existing
// fields do not change.
type Numbers struct {
	Packets          uint64   `json:"packets"`
	Bytes            uint64   `json:"bytes"`
	PacketsPerSecond *float64 `json:"packetsPerSecond,omitempty"` // 0 is a rate
	BitsPerSecond    *float64 `json:"bitsPerSecond,omitempty"`
}

// NumbersOf returns the numbers. rate is nil if it is not known.
func NumbersOf(counts traffic.Counts, rate *Rate) Numbers {
	n := Numbers{Packets: counts.Packets, Bytes: counts.Bytes}
	if rate != nil {
		n.PacketsPerSecond, n.BitsPerSecond = new(rate.Packets), new(rate.Bits)
	}
	return n
}

// WriteJSON writes the value in one line.
func WriteJSON(out io.Writer, value any) error {
	if err := json.NewEncoder(out).Encode(value); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
