// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/cmd/internal/display"
	"github.com/xdp-operator/xdp-operator/test/util/golden"
)

const longNode = "ip-10-0-113-207.eu-central-1.compute.internal"

// busy returns the report of a cluster of two nodes, with a history.
func busy(t *testing.T, by, sort string) report {
	t.Helper()
	first := some(map[traffic.Class]uint64{tcp4: 1_000_000, udp4: 12, traffic.ClassARP: 20})
	second := first.Plus(some(map[traffic.Class]uint64{tcp4: 246_912, tcp6: 1999, udp4: 1, traffic.IP(traffic.IPv6, 253): 3}))
	idle := some(map[traffic.Class]uint64{udp4: 5_000_000})
	c := aCounter("workers", second.Plus(idle).Plus(some(map[traffic.Class]uint64{tcp4: 77})))
	c.Status.Retired = &v1alpha1.Retired{Counts: v1alpha1.CountsOf(some(map[traffic.Class]uint64{tcp4: 77}))}
	w := cacheOf([]v1alpha1.XDPCounter{c}, aNode("n1", -12*time.Second, first, c), aNode("n1", -2*time.Second, second, c),
		aNode(longNode, -13*time.Second, idle, c), aNode(longNode, -3*time.Second, idle, c))
	rates := histories{}
	for i := range 50 { // a sine wave, followed by the real rates
		r := w.build(by, sort, true, noon)
		for j := range r.sections[0].rows {
			if rate := r.sections[0].rows[j].rate; rate != nil {
				rate.Packets *= 1 + math.Sin(float64(i+j)/3)
			}
		}
		rates.add(&r)
	}
	r := w.build(by, sort, true, noon)
	rates.add(&r)
	return r
}

// several returns the report of n counters in different states.
func several(n int, by string) report {
	var list []v1alpha1.XDPCounter
	for i := range n {
		c := aCounter(fmt.Sprintf("counter-%02d", i), some(map[traffic.Class]uint64{tcp4: uint64(1000 * i), udp4: 10 * uint64(i*i), tcp6: uint64(i)}))
		withRates(&c)
		switch i % 4 {
		case 1:
			withReady(&c, metav1.ConditionFalse, v1alpha1.ReasonPartiallyAttached, "")
		case 2:
			withReady(&c, metav1.ConditionTrue, v1alpha1.ReasonSuspended, "")
		case 3:
			c.Status = v1alpha1.XDPCounterStatus{}
			withReady(&c, metav1.ConditionUnknown, v1alpha1.ReasonPending, "Waiting for the controller")
		}
		list = append(list, c)
	}
	return cacheOf(list).build(by, sortRate, false, noon)
}

// huge returns the report of a counter with the largest numbers of the API.
func huge() report {
	c := aCounter("huge", some(map[traffic.Class]uint64{tcp4: math.MaxInt64, traffic.IP(traffic.IPv6, 134): math.MaxInt64 / 2, udp4: 1}))
	most := int64(math.MaxInt64)
	for i := range c.Status.Protocols {
		c.Status.Protocols[i].PacketsPerSecond, c.Status.Protocols[i].BitsPerSecond = most, most
	}
	return cacheOf([]v1alpha1.XDPCounter{c}).build(byProtocol, sortTotal, false, noon)
}

// once returns the report of top --once.
func once(by string) report {
	totals := some(map[traffic.Class]uint64{tcp4: 123_456, udp4: 12_000, tcp6: 900, traffic.ClassARP: 41})
	c := aCounter("workers", totals)
	withRates(&c)
	return cacheOf([]v1alpha1.XDPCounter{c}, aNode("n1", -4*time.Second, totals, c), aNode("n2", -time.Hour, totals, c)).build(by, sortRate, false, noon)
}

func outdated() report {
	r := once(byProtocol)
	r.note = explain(&url.Error{Op: "Get", URL: "https://10.0.0.1:6443/apis", Err: errors.New("connection refused")}, "list", counterResource, "https://10.0.0.1:6443").Error()
	return r
}

func TestTop(t *testing.T) {
	quiet := aCounter("quiet", some(map[traffic.Class]uint64{tcp4: 7, udp4: 5}))
	for name, r := range map[string]report{
		"protocols":                    busy(t, byProtocol, sortRate),
		"protocols by total":           busy(t, byProtocol, sortTotal),
		"families":                     busy(t, byFamily, sortRate),
		"nodes":                        busy(t, byNode, sortRate),
		"interfaces":                   busy(t, byInterface, sortRate),
		"one row":                      cacheOf([]v1alpha1.XDPCounter{aCounter("one", some(map[traffic.Class]uint64{tcp4: 7}))}).build(byProtocol, sortRate, true, noon),
		"zero rate":                    cacheOf([]v1alpha1.XDPCounter{quiet}, aNode("n1", -11*time.Second, some(map[traffic.Class]uint64{tcp4: 7}), quiet), aNode("n1", -time.Second, some(map[traffic.Class]uint64{tcp4: 7}), quiet)).build(byProtocol, sortRate, true, noon),
		"nothing counted":              cacheOf([]v1alpha1.XDPCounter{aCounter("none", traffic.Totals{})}).build(byNode, sortRate, true, noon),
		"no counter":                   cacheOf(nil).build(byCounter, sortRate, true, noon),
		"counters":                     several(5, byCounter),
		"counters with their families": several(5, byFamily),
		"huge numbers":                 huge(),
		"once":                         once(byProtocol),
		"once by node":                 once(byNode),
		"once by interface":            once(byInterface),
		"API server unreachable":       outdated(),
	} {
		t.Run(name, func(t *testing.T) {
			var text strings.Builder
			for _, columns := range []int{0, 60, 80, 120} {
				fmt.Fprintf(&text, "== %d columns\n", columns)
				for _, line := range render(r, display.Size{Columns: columns}) {
					if columns > 0 && width(line) > columns {
						t.Errorf("%d columns: %q", width(line), line)
					}
					text.WriteString(line + "\n")
				}
			}
			golden.Check(t, "testdata/top "+name+".txt", text.String())

			var out bytes.Buffer
			if err := writeJSON(&out, r); err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(out.String(), "\n"); n != 1 {
				t.Errorf("%d lines of JSON", n)
			}
			golden.Check(t, "testdata/top "+name+".json", out.String())
		})
	}
}

func TestTopEscapesNames(t *testing.T) {
	r := once(byInterface)
	r.sections[0].rows[0].name = "a\x1b[31m"
	r.note = "lost\a"
	text := strings.Join(render(r, display.Size{Columns: 120}), "\n")
	if strings.ContainsAny(text, "\x1b\a") || !strings.Contains(text, `/a\x1b[31m `) || !strings.Contains(text, `lost\a`) {
		t.Errorf("%q", text)
	}
}

func TestRenderOnLowTerminals(t *testing.T) {
	for name, test := range map[string]struct {
		report report
		lines  int
	}{
		"smaller rows are summed up":        {busy(t, byProtocol, sortRate), 8},
		"all rows are summed up":            {busy(t, byProtocol, sortRate), 5},
		"one line per counter":              {several(9, byProtocol), 24},
		"more counters than lines":          {several(40, byProtocol), 10},
		"top with more counters than lines": {several(40, byCounter), 10},
	} {
		t.Run(name, func(t *testing.T) {
			lines := render(test.report, display.Size{Columns: 80, Lines: test.lines})
			golden.Check(t, "testdata/low "+strings.ReplaceAll(name, ",", "")+".txt", strings.Join(lines, "\n")+"\n")
		})
	}
}

func TestRenderFitsEveryTerminal(t *testing.T) {
	reports := []report{busy(t, byProtocol, sortRate), busy(t, byInterface, sortTotal), huge(), outdated(), cacheOf(nil).build(byCounter, sortRate, true, noon)}
	for n := range 12 {
		reports = append(reports, several(n, byProtocol), several(n, byCounter))
	}
	for i, r := range reports {
		for _, columns := range []int{1, 20, 37, 60, 80, 132} {
			for height := 2; height < 40; height++ {
				lines := render(r, display.Size{Columns: columns, Lines: height})
				if len(lines) >= height || len(lines) == 0 {
					t.Errorf("report %d on %d lines takes %d", i, height, len(lines))
				}
				if slices.ContainsFunc(lines, func(line string) bool { return width(line) > columns }) {
					t.Errorf("report %d is wider than %d:\n%s", i, columns, strings.Join(lines, "\n"))
				}
			}
		}
	}
}

func TestSumOfRowsIsTotal(t *testing.T) {
	for _, by := range []string{byProtocol, byFamily, byNode} {
		s := busy(t, by, sortRate).sections[0]
		if want := (traffic.Counts{Packets: 6_249_024, Bytes: 624_902_400}); s.all.counts != want {
			t.Errorf("by %s: %+v, want %+v", by, s.all.counts, want)
		}
		if got := s.all.packetRate(); math.Abs(got-24891.5) > 1e-6 {
			t.Errorf("by %s: %f packets per second", by, got)
		}
	}
}

func TestSparkline(t *testing.T) {
	for want, values := range map[string][]float64{
		"     ": nil,
		"    ▁": {0},
		"    █": {5},
		" ▁▂▅█": {0, 0.0001, 50, 100},
		"▁▁▁▁▁": {9, 0, 0, 0, 0, 0},
		"▃▄▆▇█": {100, 1, 2, 3, 4, 5},
	} {
		if got := sparkline(values, 5); got != want {
			t.Errorf("%v: %q, want %q", values, got, want)
		}
	}
}
