// SPDX-License-Identifier: Apache-2.0

//go:build !nextlayout

package datapath

// layouts returns the layouts that can be read, in the order of their versions. The last is that of the program (bpf.Layout).
func layouts() []*layout { return []*layout{layout1()} }
