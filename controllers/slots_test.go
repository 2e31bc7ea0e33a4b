package controllers

import (
	"testing"
	"time"
)

// The reports that follow a change of all specs, together with those that come anyhow, are within the budget, but for as many as
// may come in a second.
func TestReportsThatFollowAChangeStayWithinTheBudget(t *testing.T) {
	budget := Budget{WritesPerSecond: 50, BytesPerSecond: 200_000}
	for name, tc := range map[string]struct {
		nodes, size int
		within      time.Duration // all are told
	}{
		"5,000 nodes at once":                {5000, 2000, time.Second},
		"5,000 nodes one after another":      {5000, 2000, 30 * time.Second},
		"5,000 nodes with large reports":     {5000, 10_000, 30 * time.Second},
		"a node whose report fills a second": {300, 190_000, time.Second},
		"200 nodes":                          {200, 2000, 5 * time.Second},
	} {
		var s slots
		interval := budget.stretch(10*time.Second, tc.nodes, tc.size)
		var times []float64 // seconds
		for i := range tc.nodes {
			told := now.Add(tc.within * time.Duration(i) / time.Duration(tc.nodes))
			wait := s.take(budget, []int{tc.size}, tc.size, tc.nodes, interval, told)
			if wait > interval {
				t.Fatalf("%s: a report is to wait %v, longer than the interval of %v", name, wait, interval)
			}
			if wait < interval { // else its regular report tells of it
				times = append(times, told.Add(wait).Sub(now).Seconds())
			}
		}
		allowed := min(budget.WritesPerSecond, budget.BytesPerSecond/float64(tc.size))
		room := max(allowed/4, allowed-float64(tc.nodes)/interval.Seconds())
		if least := min(float64(tc.nodes), 0.9*room*interval.Seconds()); float64(len(times)) < least {
			t.Errorf("%s: %d reports have a slot within %v, want at least %.0f", name, len(times), interval, least)
		}
		for i, at := range times {
			if most := allowed + room*at + 1; float64(i+1) > most {
				t.Errorf("%s: %d reports in %.1f s, want at most %.1f", name, i+1, at, most)
				break
			}
		}
	}
}

func TestFewNodesReportAtOnce(t *testing.T) {
	var s slots
	for i := range 30 {
		if wait := s.take(Budget{WritesPerSecond: 50, BytesPerSecond: 200_000}, []int{2000}, 2000, 30, 10*time.Second, now); wait != 0 {
			t.Errorf("report %d of 30 waits %v", i, wait)
		}
	}
	for range 1000 {
		if wait := s.take(Budget{}, []int{1000, 2000}, 2000, 1000, 10*time.Second, now); wait != 0 {
			t.Fatalf("without a budget a report waits %v", wait)
		}
	}
}

func TestTheSlotsOfAChangeLongAgoAreNotWaitedFor(t *testing.T) {
	var s slots
	budget := Budget{WritesPerSecond: 50, BytesPerSecond: 200_000}
	for range 5000 {
		s.take(budget, []int{2000}, 2000, 5000, time.Minute, now)
	}
	later := now.Add(2 * time.Minute)
	if wait := s.take(budget, []int{1000, 2000}, 2000, 5000, time.Minute, later); wait != 0 {
		t.Errorf("a node that joins two intervals after a change of all waits %v", wait)
	}
}
