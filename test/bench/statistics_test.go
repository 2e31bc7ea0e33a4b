// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"slices"
	"testing"
)

func TestQuantile(t *testing.T) {
	for name, tc := range map[string]struct {
		q      float64
		values []float64
		want   float64
	}{
		"the median of an odd number is the middle one":          {0.5, []float64{9, 1, 5}, 5},
		"the median of an even number is between the middle two": {0.5, []float64{4, 1, 2, 9}, 3},
		"of one it is that one":                                  {0.2, []float64{7}, 7},
		"0 is the least":                                         {0, []float64{3, -1, 2}, -1},
		"1 is the most":                                          {1, []float64{3, -1, 2}, 3},
		"between two it is interpolated":                         {0.25, []float64{0, 10, 20}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			if got := quantile(tc.q, tc.values); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
	if got := quantile(0.5, nil); !math.IsNaN(got) {
		t.Errorf("of none it is %v", got)
	}
}

func TestQuantileDoesNotSortItsArgument(t *testing.T) {
	values := []float64{3, 1, 2}
	median(values)
	if values[0] != 3 || values[1] != 1 || values[2] != 2 {
		t.Errorf("got %v", values)
	}
}

func TestUndisturbed(t *testing.T) {
	values := slices.Concat(slices.Repeat([]float64{10}, 2), slices.Repeat([]float64{20}, 17), []float64{500})
	if got := undisturbed(values); got != 10 {
		t.Errorf("got %v", got)
	}
	if got := disturbed(values); got != 0.9 {
		t.Errorf("%v are disturbed", got)
	}
}

func TestEstimateMedian(t *testing.T) {
	for n, want := range map[int]estimate{ // the values are 1 to n
		1:  {1, 1, 1},
		5:  {3, 1, 5},
		8:  {4.5, 1, 8},
		9:  {5, 2, 8},
		15: {8, 4, 12},
		20: {10.5, 6, 15},
	} {
		var values []float64
		for i := range n {
			values = append(values, float64(n-i))
		}
		if got := estimateMedian(values); got != want {
			t.Errorf("of %d values: %+v, want %+v", n, got, want)
		}
	}
	if got := estimateMedian(nil); !math.IsNaN(got.median) {
		t.Errorf("of no values: %+v", got)
	}
}
