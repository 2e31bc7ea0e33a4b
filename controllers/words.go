package controllers

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// inWords returns the summary of a status, for people.
func inWords(s v1alpha1.XDPCounterStatus) *v1alpha1.Summary {
	return &v1alpha1.Summary{
		Nodes:      fmt.Sprintf("%d/%d", s.Nodes.Ready, s.Nodes.Selected),
		Interfaces: fmt.Sprintf("%d/%d", s.Interfaces.Attached, s.Interfaces.Attached+s.Interfaces.Failed),
		Packets:    scaled(s.Total.Packets, 1000, []string{"", "k", "M", "G", "T", "P", "E"}),
		Bytes:      scaled(s.Total.Bytes, 1024, []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}),
		Rate:       scaled(s.Total.PacketsPerSecond, 1000, []string{" pps", "k pps", "M pps", "G pps", "T pps", "P pps", "E pps"}),
		Mode:       modes(*s.Interfaces),
		Top:        top(s.Protocols),
	}
}

// scaled writes a number with at most one decimal in the largest unit that keeps it at or above 1.
func scaled(n, base int64, units []string) string {
	if n < base {
		return fmt.Sprintf("%d%s", n, units[0])
	}
	value, unit := float64(n), 0
	// 999.95 would be written as 1000.0 of the smaller unit
	for value >= float64(base)-0.05 && unit < len(units)-1 {
		value /= float64(base)
		unit++
	}
	return fmt.Sprintf("%.1f%s", value, units[unit])
}

func modes(i v1alpha1.InterfaceNumbers) string {
	switch {
	case i.Native > 0 && i.Generic > 0:
		return fmt.Sprintf("%s %d, %s %d", v1alpha1.AttachNative, i.Native, v1alpha1.AttachGeneric, i.Generic)
	case i.Native > 0:
		return string(v1alpha1.AttachNative)
	case i.Generic > 0:
		return string(v1alpha1.AttachGeneric)
	default:
		return ""
	}
}

// top names the three largest protocols by packets, families taken together, and their shares.
func top(protocols []v1alpha1.ProtocolCounts) string {
	packets := map[string]int64{}
	var names []string
	var sum int64
	for _, p := range protocols {
		if packets[p.Protocol] == 0 {
			names = append(names, p.Protocol)
		}
		packets[p.Protocol] += p.Packets
		sum += p.Packets
	}
	if sum <= 0 {
		return ""
	}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(packets[b], packets[a]) })
	var parts []string
	for _, name := range names[:min(3, len(names))] {
		share := fmt.Sprintf("%.0f%%", 100*float64(packets[name])/float64(sum))
		if share == "0%" {
			share = "<1%"
		}
		parts = append(parts, name+" "+share)
	}
	return strings.Join(parts, " ")
}

// several writes how many there are of what a noun names.
func several(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func isOrAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}
