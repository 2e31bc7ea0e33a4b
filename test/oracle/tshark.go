// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/xdp-operator/xdp-operator/api/traffic"
)

// fields lists the fields that tshark prints, in the order of the columns.
var fields = append([]string{"frame.number", "frame.encap_type", "frame.len", "frame.cap_len", "frame.protocols", "ip.version", "ip.proto", "ipv6.nxt"},
	nextHeaderFields()...)

// nextHeaders maps each extension header in frame.protocols to the field of its next header. Headers that are not in the map
// (ESP, Mobility, HIP, Shim6) count as protocols, as in the program.
var nextHeaders = map[string]string{
	"ipv6.hopopts": "ipv6.hopopts.nxt",
	"ipv6.dstopts": "ipv6.dstopts.nxt",
	"ipv6.routing": "ipv6.routing.nxt",
	"ipv6.fraghdr": "ipv6.fraghdr.nxt",
	"ah":           "ah.next_header",
}

func nextHeaderFields() []string {
	var names []string
	for _, name := range nextHeaders {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// opinion is tshark's result for one frame.
type opinion struct {
	number, length, captured int
	class                    traffic.Class
	protocols                string // frame.protocols, for people
}

func isTag(protocol string) bool { return protocol == "vlan" || protocol == "ieee8021ad" }

func isExtension(protocol string) bool { return nextHeaders[protocol] != "" }

// count returns the number of protocols that match.
func (o opinion) count(is func(protocol string) bool) (n int) {
	for name := range strings.SplitSeq(o.protocols, ":") {
		if is(name) {
			n++
		}
	}
	return n
}

// endsInHeaders reports whether tshark has found nothing after the headers that determine the class.
func (o opinion) endsInHeaders() bool {
	names := slices.DeleteFunc(strings.Split(o.protocols, ":"), func(name string) bool { return strings.HasPrefix(name, "_ws.") })
	last := names[len(names)-1]
	return isTag(last) || isExtension(last) || slices.Contains([]string{"eth", "ethertype", "arp", "ip", "ipv6"}, last)
}

// errNoTshark means that tshark is not installed.
var errNoTshark = errors.New("tshark is not installed: it is in the Debian package tshark (apt-get install tshark)")

func findTshark() (string, error) {
	path, err := exec.LookPath("tshark")
	if err != nil {
		return "", errNoTshark
	}
	return path, nil
}

// askTshark returns tshark's columns for each frame of the capture.
func askTshark(ctx context.Context, capture string) ([]byte, error) {
	path, err := findTshark()
	if err != nil {
		return nil, err
	}
	// The preferences of the user must not change tshark's result.
	config, err := os.MkdirTemp("", "oracle-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(config)
	args := []string{
		"-n", "-r", capture,
		// The program does not reassemble fragments.
		"-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE",
		// The length in an IPv4 header is 0 if the NIC of the capturing machine was to set it.
		"-o", "ip.tso_support:TRUE",
		"-T", "fields", "-E", "separator=/t", "-E", "occurrence=a", "-E", "aggregator=,",
	}
	for _, field := range fields {
		args = append(args, "-e", field)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "WIRESHARK_CONFIG_DIR="+config, "HOME="+config)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("tshark: %w\n%s", err, stderr.Bytes())
	}
	return out, nil
}

// parseOpinions reads tshark's columns. For records that are not packets, such as custom blocks of a pcapng file, tshark prints
// frames without an encapsulation. They are left out.
func parseOpinions(columns []byte) ([]opinion, error) {
	var opinions []opinion
	for line := range strings.Lines(string(columns)) {
		cells := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(cells) != len(fields) {
			return nil, fmt.Errorf("tshark has %d columns instead of %d: %q", len(cells), len(fields), line)
		}
		says := map[string][]string{}
		for i, field := range fields {
			if cells[i] != "" {
				says[field] = strings.Split(cells[i], ",")
			}
		}
		if len(says["frame.encap_type"]) == 0 {
			continue
		}
		var o opinion
		for field, to := range map[string]*int{"frame.number": &o.number, "frame.len": &o.length, "frame.cap_len": &o.captured} {
			n, err := strconv.Atoi(strings.Join(says[field], ","))
			if err != nil {
				return nil, fmt.Errorf("tshark's %s: %w", field, err)
			}
			*to = n
		}
		o.protocols = strings.Join(says["frame.protocols"], ",")
		o.class = classOf(o.protocols, says)
		opinions = append(opinions, o)
	}
	return opinions, nil
}

// classOf returns the class of a frame from tshark's protocols, outermost first, and from the values of each field, in the
// order of the frame.
func classOf(protocols string, says map[string][]string) traffic.Class {
	names := strings.Split(protocols, ":")
	if names[0] != "eth" || len(names) < 2 {
		return traffic.ClassOther
	}
	// Tags: eth:ethertype:vlan:ethertype:ieee8021ad:ethertype:ip
	rest := names[1:]
	for len(rest) > 2 && rest[0] == "ethertype" && isTag(rest[1]) {
		rest = rest[2:]
	}
	if rest[0] != "ethertype" || len(rest) < 2 { // LLC
		return traffic.ClassOther
	}
	switch network := rest[1]; network {
	case "arp":
		return traffic.ClassARP
	case "ip":
		// The first of several values is the outermost. Without a valid header there is none.
		if version := first(says["ip.version"]); version != "4" {
			return traffic.ClassMalformed
		}
		return ip(traffic.IPv4, first(says["ip.proto"]))
	case "ipv6":
		next := first(says["ipv6.nxt"])
		seen := map[string]int{}
		for _, name := range rest[2:] {
			field, ok := nextHeaders[name]
			if !ok {
				break
			}
			values := says[field]
			if seen[field] == len(values) {
				break // partially dissected
			}
			next = values[seen[field]]
			seen[field]++
		}
		return ip(traffic.IPv6, next)
	default:
		return traffic.ClassOther
	}
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// ip returns the class of a protocol number as printed by tshark. Without a number the frame is malformed.
func ip(family traffic.Family, number string) traffic.Class {
	n, err := strconv.ParseUint(number, 10, 8)
	if err != nil {
		return traffic.ClassMalformed
	}
	return traffic.IP(family, uint8(n))
}
