// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"maps"
	"sync"
	"time"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/internal/metric"
)

// passMetrics holds what the metrics say about passes and reports. Passes write it while scrapes read it.
type passMetrics struct {
	mu sync.Mutex
	passResults
}

// passResults is one version of what passMetrics holds.
type passResults struct {
	passed           bool // at least once
	lastPass         time.Duration
	lastSucceeded    bool
	interfaceMetrics []interfaceMetric // of the last pass
	writes           map[string]uint64 // of reports, by result
}

// interfaceMetric is the series of xdpcounter_interface_attached for an interface and a requested mode, and the number of
// xdpcounter_interface_features_switched_off if the interface is attached.
type interfaceMetric struct {
	name, reason    string
	mode, requested v1alpha1.AttachMode
	attached        bool
	switchedOff     int // how many features
}

// interfaceMetricsOf returns the series for the interfaces of a report, each once: two counters may request the same mode
// for an interface. Skipped interfaces have none, because their frames are counted on another interface.
func interfaceMetricsOf(interfaces []v1alpha1.NodeInterface) []interfaceMetric {
	var list []interfaceMetric
	known := map[interfaceMetric]bool{}
	for _, i := range interfaces {
		if i.State == v1alpha1.InterfaceDetaching || i.State == v1alpha1.InterfaceSkipped {
			continue
		}
		m := interfaceMetric{i.Name, i.Reason, i.Mode, i.RequestedMode, i.State == v1alpha1.InterfaceAttached, 0}
		for _, s := range i.SwitchedOff {
			m.switchedOff += len(s.Features)
		}
		if !known[m] {
			known[m] = true
			list = append(list, m)
		}
	}
	return list
}

func (p *passMetrics) pass(took time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.passed, p.lastPass, p.lastSucceeded = true, took, err == nil
}

func (p *passMetrics) interfaces(list []v1alpha1.NodeInterface) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.interfaceMetrics = interfaceMetricsOf(list)
}

func (p *passMetrics) write(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.writes == nil {
		p.writes = map[string]uint64{}
	}
	p.writes[metric.Result(err)]++
}

func (p *passMetrics) get() passResults {
	p.mu.Lock()
	defer p.mu.Unlock()
	results := p.passResults
	results.writes = maps.Clone(p.writes)
	return results
}
