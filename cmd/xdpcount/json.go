// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"time"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/cmd/internal/display"
)

// The schema of --output json, described in docs/xdpcount.md. Fields can be added. Existing fields do not change.
type (
	jsonReport struct {
		Time            time.Time       `json:"time"`
		Type            string          `json:"type"`
		IntervalSeconds float64         `json:"intervalSeconds"`
		Interfaces      []jsonInterface `json:"interfaces"`
	}
	jsonInterface struct {
		Name       string          `json:"name"`
		Mode       plan.Mode       `json:"mode"`
		Gone       bool            `json:"gone,omitempty"`
		Aggregated bool            `json:"aggregatedFrames,omitempty"`
		Totals     display.Numbers `json:"totals"`
		Classes    []jsonClass     `json:"classes"`
	}
	jsonClass struct {
		Family   string `json:"family"`
		Protocol string `json:"protocol"`
		Number   *uint8 `json:"number,omitempty"` // 0 is a valid protocol
		display.Numbers
	}
)

const (
	typeInterval = "interval"
	typeSummary  = "summary"
)

// writeJSON writes the report as one JSON object in one line.
func writeJSON(out io.Writer, r report) error {
	j := jsonReport{
		Time:            r.time.UTC(),
		Type:            typeInterval,
		IntervalSeconds: r.elapsed.Seconds(),
		Interfaces:      []jsonInterface{},
	}
	if r.summary {
		j.Type = typeSummary
	}
	for _, s := range r.sections {
		i := jsonInterface{
			Name: s.name, Mode: s.mode, Gone: s.gone, Aggregated: s.aggregates,
			Totals:  display.NumbersOf(s.all, &s.allRate),
			Classes: []jsonClass{},
		}
		for _, c := range s.classes {
			entry := jsonClass{
				Family:   c.class.Family().String(),
				Protocol: c.class.Protocol(),
				Numbers:  display.NumbersOf(c.counts, &c.rate),
			}
			if number, ok := c.class.Number(); ok {
				entry.Number = &number
			}
			i.Classes = append(i.Classes, entry)
		}
		j.Interfaces = append(j.Interfaces, i)
	}
	return display.WriteJSON(out, j)
}
