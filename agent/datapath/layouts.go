//go:build !nextlayout

package datapath

// layouts are those that can be read, in the order of their versions. The last is that of the program (bpf.Layout).
func layouts() []*layout { return []*layout{layout1()} }
