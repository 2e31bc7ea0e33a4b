// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseBenchmark(t *testing.T) {
	times, allocations, err := parseBenchmark([]byte(`goos: linux
pkg: github.com/xdp-operator/xdp-operator/agent/datapath
BenchmarkSnapshot-2   	  774146	      1546 ns/op	       0 B/op	       0 allocs/op
BenchmarkSnapshot     	  774146	      15.46 ns/op	      48 B/op	       2 allocs/op
PASS
`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]float64{1546, 15.46}, times); diff != "" {
		t.Errorf("times (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]float64{0, 2}, allocations); diff != "" {
		t.Errorf("allocations (-want +got):\n%s", diff)
	}
	if _, _, err := parseBenchmark([]byte("PASS\n")); err == nil {
		t.Error("a run without a benchmark is no error")
	}
}
