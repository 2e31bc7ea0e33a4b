// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/internal/format"
)

// summaryText returns the summary of a status as text, for the columns of kubectl get.
func summaryText(s v1alpha1.XDPCounterStatus) *v1alpha1.Summary {
	return &v1alpha1.Summary{
		Nodes:      fmt.Sprintf("%d/%d", s.Nodes.Ready, s.Nodes.Selected),
		Interfaces: fmt.Sprintf("%d/%d", s.Interfaces.Attached, s.Interfaces.Attached+s.Interfaces.Failed),
		Packets:    format.Packets(s.Total.Packets),
		Bytes:      format.Bytes(s.Total.Bytes),
		Rate:       format.Packets(s.Total.PacketsPerSecond) + " pps",
		Mode:       modesText(*s.Interfaces),
		Top:        topProtocols(s.Protocols),
	}
}

// modesText names the attach modes in use. If there are several, it adds the number of interfaces of each.
func modesText(i v1alpha1.InterfaceNumbers) string {
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

// topProtocols names the three protocols with the most packets, and their shares. A protocol is the sum of its families.
func topProtocols(protocols []v1alpha1.ProtocolCounts) string {
	packets := map[string]int64{}
	var names []string
	var sum int64
	for _, p := range protocols {
		if _, known := packets[p.Protocol]; !known {
			names = append(names, p.Protocol)
		}
		packets[p.Protocol] += p.Packets
		sum += p.Packets
	}
	if sum <= 0 {
		return ""
	}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(packets[b], packets[a]) })
	var shares []string
	for _, name := range names[:min(3, len(names))] {
		shares = append(shares, name+" "+format.Share(packets[name], sum))
	}
	return strings.Join(shares, " ")
}
