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

// fields are what tshark is asked for, in the order of its columns.
var fields = append([]string{"frame.number", "frame.encap_type", "frame.len", "frame.cap_len", "frame.protocols", "ip.version", "ip.proto", "ipv6.nxt"},
	nextHeaderFields()...)

// nextHeaders are, by the name of each extension header in frame.protocols, the field with what follows it. What is not
// here (ESP, Mobility, HIP, Shim6) is a protocol of its own, as the program has it.
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

// opinion is what tshark says of one frame.
type opinion struct {
	number, length, captured int
	class                    traffic.Class
	protocols                string // frame.protocols, for people
}

func isTag(protocol string) bool { return protocol == "vlan" || protocol == "ieee8021ad" }

func isExtension(protocol string) bool { return nextHeaders[protocol] != "" }

// count returns how many of the protocols are such.
func (o opinion) count(is func(protocol string) bool) (n int) {
	for name := range strings.SplitSeq(o.protocols, ":") {
		if is(name) {
			n++
		}
	}
	return n
}

// endsInHeaders reports that tshark has found nothing behind the headers that the class depends on.
func (o opinion) endsInHeaders() bool {
	names := slices.DeleteFunc(strings.Split(o.protocols, ":"), func(name string) bool { return strings.HasPrefix(name, "_ws.") })
	last := names[len(names)-1]
	return isTag(last) || isExtension(last) || slices.Contains([]string{"eth", "ethertype", "arp", "ip", "ipv6"}, last)
}

// errNoTshark says what to do.
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
	// The preferences of whoever runs this must not change what tshark says.
	config, err := os.MkdirTemp("", "oracle-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(config)
	args := []string{
		"-n", "-r", capture,
		// The program sees fragments one by one.
		"-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE",
		// Of an IPv4 header that another machine's NIC was to fill in, the length is 0.
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

// parseOpinions reads tshark's columns. Records that are no packets, such as the custom blocks of a pcapng file, are
// frames for tshark, without an encapsulation: they are left out.
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

// classOf returns the class of a frame that tshark has dissected into these protocols, outermost first, with these
// values of each field, in the order of the frame.
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
		// Of several values the first is the outermost. Without a sound header there is none of it.
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
				break // dissected in part
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

// ip returns the class of a protocol number in words of tshark, none of which makes the frame malformed.
func ip(family traffic.Family, number string) traffic.Class {
	n, err := strconv.ParseUint(number, 10, 8)
	if err != nil {
		return traffic.ClassMalformed
	}
	return traffic.IP(family, uint8(n))
}
