// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"math"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xdp-operator/xdp-operator/cmd/internal/display"
)

// The schema of -o json, described in docs/kubectl-xdpcounter.md. Fields can be added. Existing fields do not change.
type (
	jsonReport struct {
		Time     time.Time     `json:"time"`
		By       string        `json:"by"`
		Note     string        `json:"note,omitempty"`
		Counters []jsonCounter `json:"counters"`
	}
	jsonCounter struct {
		Name     string                 `json:"name"`
		Ready    metav1.ConditionStatus `json:"ready"`
		Reason   string                 `json:"reason"`
		Reported *time.Time             `json:"lastReportTime,omitempty"`
		Totals   display.Numbers        `json:"totals"`
		Rows     []jsonRow              `json:"rows,omitempty"`
	}
	jsonRow struct {
		Protocol  string `json:"protocol,omitempty"`
		Number    *uint8 `json:"number,omitempty"` // 0 is a valid protocol
		Family    string `json:"family,omitempty"`
		Node      string `json:"node,omitempty"`
		Interface string `json:"interface,omitempty"`
		Mode      string `json:"mode,omitempty"`
		display.Numbers
	}
)

// writeJSON writes the report as one JSON object in one line.
func writeJSON(out io.Writer, r report) error {
	j := jsonReport{Time: r.time.UTC(), By: r.by, Note: r.note, Counters: []jsonCounter{}}
	for _, s := range r.sections {
		c := jsonCounter{Name: s.name, Ready: s.ready, Reason: s.reason, Totals: numbersOf(s.all)}
		if !s.reported.IsZero() {
			reported := s.reported.UTC()
			c.Reported = &reported
		}
		if r.by != byCounter {
			for _, x := range s.rows {
				c.Rows = append(c.Rows, jsonRowOf(r.by, x))
			}
		}
		j.Counters = append(j.Counters, c)
	}
	return display.WriteJSON(out, j)
}

func jsonRowOf(by string, x row) jsonRow {
	j := jsonRow{Numbers: numbersOf(x)}
	switch by {
	case byProtocol:
		j.Protocol, j.Number, j.Family = x.name, x.number, x.family
		if j.Family == "" {
			j.Family = x.name
		}
	case byFamily:
		j.Family = x.name
	case byNode:
		if x.name != retiredName { // that row is of no existing node
			j.Node = x.name
		}
	case byInterface:
		j.Node, j.Interface, j.Mode = x.node, x.name, x.mode
	}
	return j
}

// numbersOf rounds rates to tenths, because they are not more accurate.
func numbersOf(x row) display.Numbers {
	if x.rate == nil {
		return display.NumbersOf(x.counts, nil)
	}
	return display.NumbersOf(x.counts, &display.Rate{Packets: math.Round(10*x.rate.Packets) / 10, Bits: math.Round(10*x.rate.Bits) / 10})
}
