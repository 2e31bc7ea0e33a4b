// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/xdp-operator/xdp-operator/agent/plan"
)

// best returns the first variant for the mode that this kernel loads.
func (h *host) best(t *testing.T, mode plan.Mode) variant {
	t.Helper()
	for _, v := range variantsFor[mode] {
		if tag, err := h.tags.of(v); err != nil {
			t.Fatal(err)
		} else if tag != "" {
			return v
		}
	}
	t.Fatalf("no variant for %s can be loaded", mode)
	return ""
}

// refuse makes the kernel refuse programs.
func refuse(spec *ebpf.CollectionSpec, names ...string) {
	for _, name := range names {
		spec.Programs[name].Instructions = asm.Instructions{asm.Return()} // of a result that was not set
	}
}

const byKfunc, byHelper = "count_frame_wire_kfunc", "count_frame_wire_helper"

// Where the kernel loads no program that counts the frames of an aggregate, the interface is counted all the same, and it is said.
func TestGenericModeWithTheProgramsThatTheKernelLoads(t *testing.T) {
	for name, test := range map[string]struct {
		refused []string
		want    []variant // one of them
	}{
		"all":                        {nil, []variant{wireByKfunc, wireByHelper}},
		"no kfuncs":                  {[]string{byKfunc}, []variant{wireByHelper}},
		"no kfuncs, locked down":     {[]string{byKfunc, byHelper}, []variant{genericMode}},
		"locked down, or no helpers": {[]string{byHelper}, []variant{wireByKfunc, genericMode}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			refuse(h.spec, test.refused...)
			best := h.best(t, plan.Generic)
			if !slices.Contains(test.want, best) {
				t.Fatalf("the kernel loads %s, want one of %v", best, test.want)
			}
			h.mustAttach(t, plan.Generic)
			if a := h.expectVariant(t, best); a.CountsAggregates != (best == genericMode) {
				t.Errorf("with the program for %s: %+v", best, a)
			}
			h.traffic(t, 5)
			h.expectCounted(t)
		})
	}
}

// The program of an earlier version counts aggregates as one packet. It is replaced over the same map.
func TestGenericProgramThatCountsAggregatesIsReplaced(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Generic)
	h.traffic(t, 5)
	before := h.onlyAttached(t)
	h.runVariant(t, genericMode)
	h.open(t)
	if a := h.onlyAttached(t); !a.Outdated || !a.CountsAggregates {
		t.Errorf("an earlier program: %+v", a)
	}
	h.mustAttach(t, plan.Generic)
	if a := h.expectVariant(t, h.best(t, plan.Generic)); a.CountsAggregates || a.Map != before.Map {
		t.Errorf("after the update: %+v, before: %+v", a, before)
	}
	h.traffic(t, 5)
	h.expectCounted(t)
}

func TestNativeModeCountsNoAggregates(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Native)
	if a := h.onlyAttached(t); a.CountsAggregates {
		t.Errorf("%+v", a)
	}
}

// Auto attaches in the mode that plan says to try first.
func TestAutoTriesTheFirstMode(t *testing.T) {
	for name, test := range map[string]struct{ first, want plan.Mode }{
		"native mode, if nothing else is said": {"", plan.Native},
		"generic mode":                         {plan.Generic, plan.Generic},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.net.Do(func() {
				if err := h.Attach(plan.Attachment{Index: h.index, Name: nasty, Mode: plan.Auto, First: test.first}); err != nil {
					t.Fatal(err)
				}
			})
			if a := h.onlyAttached(t); a.Refused != nil {
				t.Errorf("native mode was refused: %v", a.Refused)
			}
			h.expectVariant(t, h.best(t, test.want))
			h.traffic(t, 5)
			h.expectCounted(t)
		})
	}
}
