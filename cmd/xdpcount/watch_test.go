// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/internal/format"
)

// host simulates an interface that receives 10 packets per second, and a clock that advances to the end of each wait.
type host struct {
	watch
	time  time.Time
	late  time.Duration // additional duration of every wait
	slow  time.Duration // duration of every output
	acts  []string
	gone  bool
	after map[int]func() // called after that number of reports
	made  int
}

func newHost() *host {
	h := &host{time: noon, after: map[int]func(){}}
	h.watch = watch{
		source: h, interval: time.Second, untilGone: true,
		clock: clock{
			now: func() time.Time { return h.time },
			after: func(d time.Duration) <-chan time.Time {
				h.time = h.time.Add(max(d, 0) + h.late)
				c := make(chan time.Time, 1)
				c <- h.time
				return c
			},
		},
		list: func() ([]plan.Interface, error) {
			if h.gone {
				return nil, nil
			}
			return []plan.Interface{{Name: "eth0", Index: 2, Hook: plan.Hook{Program: 20, Mode: plan.Native}}}, nil
		},
		show: func(r report) error {
			kind := "interval"
			if r.summary {
				kind = "summary"
			}
			h.acts = append(h.acts, strings.Join([]string{
				kind, r.time.Sub(noon).String(), "of", r.elapsed.String(), format.PerSecond(r.sections[0].allRate.Packets),
			}, " "))
			if h.made++; h.made > 100 {
				return errors.New("too many reports")
			}
			h.time = h.time.Add(h.slow)
			if act := h.after[h.made]; act != nil {
				act()
			}
			return nil
		},
	}
	return h
}

func (h *host) Attached() ([]plan.Attachment, error) {
	if h.gone {
		return []plan.Attachment{{Map: 1}}, nil
	}
	return []plan.Attachment{{Index: 2, Program: 20, Map: 1}}, nil
}

func (h *host) Read() ([]traffic.Reading, error) {
	packets := uint64(h.time.Sub(noon) / (100 * time.Millisecond))
	return []traffic.Reading{{Map: id(1), Totals: totals(map[traffic.Class]uint64{tcp4: packets})}}, nil
}

func (h *host) Detach() error { h.acts = append(h.acts, "detach"); return nil }
func (h *host) Close() error  { return nil }

func TestRun(t *testing.T) {
	for name, test := range map[string]struct {
		set  func(h *host, cancel func())
		want []string
		err  error
	}{
		"count": {
			set:  func(h *host, _ func()) { h.count = 2 },
			want: []string{"interval 1s of 1s 10", "interval 2s of 1s 10", "detach", "summary 2s of 2s 10"},
		},
		"duration of two intervals": {
			set:  func(h *host, _ func()) { h.duration = 2 * time.Second },
			want: []string{"interval 1s of 1s 10", "interval 2s of 1s 10", "detach", "summary 2s of 2s 10"},
		},
		"duration ends within an interval": {
			set:  func(h *host, _ func()) { h.duration = 2500 * time.Millisecond },
			want: []string{"interval 1s of 1s 10", "interval 2s of 1s 10", "detach", "summary 2.5s of 2.5s 10"},
		},
		"duration shorter than an interval": {
			set:  func(h *host, _ func()) { h.duration = 500 * time.Millisecond },
			want: []string{"detach", "summary 500ms of 500ms 10"},
		},
		"count before duration": {
			set:  func(h *host, _ func()) { h.count, h.duration = 1, time.Minute },
			want: []string{"interval 1s of 1s 10", "detach", "summary 1s of 1s 10"},
		},
		"a signal": {
			set:  func(h *host, cancel func()) { h.after[1] = cancel },
			want: []string{"interval 1s of 1s 10", "detach", "summary 2s of 2s 10"},
		},
		"delays do not add up": {
			set:  func(h *host, _ func()) { h.late, h.count = 200*time.Millisecond, 3 },
			want: []string{"interval 1.2s of 1.2s 10", "interval 2.2s of 1s 10", "interval 3.2s of 1s 10", "detach", "summary 3.2s of 3.2s 10"},
		},
		"a slow reader: missed intervals are skipped": {
			set:  func(h *host, _ func()) { h.slow, h.count = 2300*time.Millisecond, 2 },
			want: []string{"interval 1s of 1s 10", "interval 4s of 3s 10", "detach", "summary 6.3s of 6.3s 10"},
		},
		"the last interface is deleted": {
			set:  func(h *host, _ func()) { h.after[1] = func() { h.gone = true } },
			want: []string{"interval 1s of 1s 10", "interval 2s of 1s 10", "detach", "summary 2s of 2s 10"},
			err:  plan.ErrInterfaceGone,
		},
		"an interface of an agent is gone for an interval": {
			set: func(h *host, _ func()) {
				h.untilGone, h.count = false, 3
				h.after[1] = func() { h.gone = true }
				h.after[2] = func() { h.gone = false }
			},
			want: []string{"interval 1s of 1s 10", "interval 2s of 1s 10", "interval 3s of 1s 10", "detach", "summary 3s of 3s 10"},
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		h := newHost()
		test.set(h, cancel)
		err := h.run(ctx)
		cancel()
		if !errors.Is(err, test.err) {
			t.Errorf("%s: error %v", name, err)
		}
		if diff := cmp.Diff(test.want, h.acts); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
