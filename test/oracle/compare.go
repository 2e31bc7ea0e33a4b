// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/util/classify"
)

// known lists the differences of definition between the program and tshark (docs/architecture.md, The datapath). Each matches
// frames by their content and by tshark's result, so that it does not match errors of the program.
var known = []struct {
	sentence string
	applies  func(d classify.Dissection, tshark opinion) bool
}{
	{
		"a frame that ends inside a header is malformed; tshark shows what there is of it",
		func(d classify.Dissection, tshark opinion) bool {
			return d.Defect == classify.Truncated && tshark.endsInHeaders()
		},
	},
	{
		"IPv6 with another version is malformed; tshark takes it for data",
		func(d classify.Dissection, tshark opinion) bool {
			return d.Type == 0x86DD && d.Defect == classify.WrongVersion && tshark.class == traffic.ClassOther
		},
	},
	{
		"the total length of IPv4 is not judged; tshark stops where it is below the header's",
		func(d classify.Dissection, tshark opinion) bool {
			return d.Class.Family() == traffic.IPv4 && tshark.class == traffic.ClassMalformed &&
				int(binary.BigEndian.Uint16(d.Network[2:])) < 4*int(d.Network[0]&0xF)
		},
	},
	{
		"the payload length of IPv6 is not judged; tshark stops where it ends amid the extension headers",
		func(d classify.Dissection, tshark opinion) bool {
			return d.Class.Family() == traffic.IPv6 && len(d.Extensions) > 0 && payloadEndsEarly(d) &&
				tshark.class.Family() == traffic.IPv6
		},
	},
	{
		"more than 8 extension headers are malformed; tshark goes on",
		func(d classify.Dissection, tshark opinion) bool {
			return d.Defect == classify.TooManyExtensions && tshark.count(isExtension) > classify.MaxExtensions
		},
	},
	{
		"a fifth tag is an ethertype like any other; tshark goes on",
		func(d classify.Dissection, tshark opinion) bool {
			return d.Class == traffic.ClassOther && tshark.count(isTag) > classify.MaxTags
		},
	},
	{
		"RARP is not ARP; tshark has one dissector for both",
		func(d classify.Dissection, tshark opinion) bool {
			return d.Type == 0x8035 && tshark.class == traffic.ClassARP
		},
	},
}

// payloadEndsEarly reports whether the payload length of an IPv6 header is shorter than its extension headers.
func payloadEndsEarly(d classify.Dissection) bool {
	const header = 40
	end := header + int(binary.BigEndian.Uint16(d.Network[4:]))
	at := header
	for _, kind := range d.Extensions {
		length := int(d.Network[at+1])
		switch kind {
		case 44:
			at += 8
		case 51:
			at += 8 + 4*length
		default:
			at += 8 + 8*length
		}
	}
	return end < at
}

// explain returns the description of the known difference, or "" if there is none.
func explain(data []byte, tshark opinion) string {
	d := classify.Dissect(data)
	for _, k := range known {
		if k.applies(d, tshark) {
			return k.sentence
		}
	}
	return ""
}

// difference is a frame for which tshark's class is not that of package classify.
type difference struct {
	frame        frame
	ours, tshark traffic.Class
	protocols    string
	sentence     string // "" if it is unexplained
}

// comparison compares the program, package classify and tshark on one capture.
type comparison struct {
	frames      int
	skipped     map[string][]int // the numbers of the frames by reason
	counted     traffic.Totals   // by the program, on the veth
	classified  traffic.Totals   // by package classify
	tshark      traffic.Totals
	differences []difference
}

// compare returns the comparison. It returns an error if tshark has read the capture differently.
func compare(frames []frame, opinions []opinion, counted traffic.Totals) (*comparison, error) {
	if len(frames) != len(opinions) {
		return nil, fmt.Errorf("the capture has %d frames, for tshark %d", len(frames), len(opinions))
	}
	c := &comparison{frames: len(frames), skipped: map[string][]int{}, counted: counted}
	for i, f := range frames {
		o := opinions[i]
		if o.length != f.length || o.captured != len(f.data) {
			return nil, fmt.Errorf("frame %d has %d of %d bytes, for tshark frame %d has %d of %d",
				f.number, len(f.data), f.length, o.number, o.captured, o.length)
		}
		f.number = o.number // tshark's number also counts records that are not packets
		if f.skip != "" {
			c.skipped[f.skip] = append(c.skipped[f.skip], f.number)
			continue
		}
		one := traffic.Counts{Packets: 1, Bytes: uint64(f.length)}
		ours := classify.Frame(f.data)
		c.classified[ours] = c.classified[ours].Plus(one)
		c.tshark[o.class] = c.tshark[o.class].Plus(one)
		if ours != o.class {
			c.differences = append(c.differences, difference{f, ours, o.class, o.protocols, explain(f.data, o)})
		}
	}
	return c, nil
}

// equal reports whether there are no unexplained differences.
func (c *comparison) equal() bool {
	return c.counted == c.classified && !slices.ContainsFunc(c.differences, func(d difference) bool { return d.sentence == "" })
}

// write writes the table of classes, followed by the differences.
func (c *comparison) write(out io.Writer) {
	sum := c.counted.Sum()
	fmt.Fprintf(out, "%d frames, %d replayed and counted\n", c.frames, sum.Packets)
	for _, why := range slices.Sorted(maps.Keys(c.skipped)) {
		numbers := c.skipped[why]
		fmt.Fprintf(out, "%d skipped: %s: frames %s\n", len(numbers), why, firstNumbers(numbers))
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "CLASS\tPACKETS\tTSHARK\tBYTES\tTSHARK\t\t")
	row := func(name string, ours, tshark traffic.Counts, verdict string) {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%s\t\n", name, ours.Packets, tshark.Packets, ours.Bytes, tshark.Bytes, verdict)
	}
	all := c.counted.Plus(c.tshark).Plus(c.classified)
	for class := range all.NonZero() {
		row(class.String(), c.counted[class], c.tshark[class], c.verdict(class))
	}
	row("all", sum, c.tshark.Sum(), "")
	w.Flush()

	for class := range all.NonZero() {
		if c.counted[class] != c.classified[class] {
			fmt.Fprintf(out, "THE PROGRAM counted %v as %s, by the standards there are %v\n", c.counted[class], class, c.classified[class])
		}
	}
	sentences := map[string][]difference{}
	for _, d := range c.differences {
		sentences[d.sentence] = append(sentences[d.sentence], d)
	}
	for _, k := range known {
		if ds := sentences[k.sentence]; len(ds) > 0 {
			fmt.Fprintf(out, "%d known: %s\n", len(ds), k.sentence)
			writeFrames(out, ds)
		}
	}
	if ds := sentences[""]; len(ds) > 0 {
		fmt.Fprintf(out, "%d UNEXPLAINED\n", len(ds))
		writeFrames(out, ds)
		for _, d := range ds[:min(len(ds), 3)] {
			fmt.Fprintf(out, "frame %d\n%s", d.frame.number, hex.Dump(d.frame.data[:min(len(d.frame.data), 128)]))
		}
	}
}

// mostFrames is how many frames are listed for one reason. The rest is a number.
const mostFrames = 20

// writeFrames lists the first frames.
func writeFrames(out io.Writer, ds []difference) {
	for _, d := range ds[:min(len(ds), mostFrames)] {
		fmt.Fprintf(out, "  frame %d: %s, for tshark %s (%s)\n", d.frame.number, d.ours, d.tshark, d.protocols)
	}
	if len(ds) > mostFrames {
		fmt.Fprintf(out, "  and %d more\n", len(ds)-mostFrames)
	}
}

// firstNumbers lists the numbers of frames, of many the first.
func firstNumbers(numbers []int) string {
	var words []string
	for _, n := range numbers[:min(len(numbers), mostFrames)] {
		words = append(words, strconv.Itoa(n))
	}
	list := strings.Join(words, ", ")
	if len(numbers) > mostFrames {
		list += fmt.Sprintf(" and %d more", len(numbers)-mostFrames)
	}
	return list
}

// verdict returns equal, known with the number of frames that differ, or DIFFERENT.
func (c *comparison) verdict(class traffic.Class) string {
	if c.counted[class] != c.classified[class] {
		return "DIFFERENT"
	}
	var came, went int
	for _, d := range c.differences {
		if d.ours != class && d.tshark != class {
			continue
		}
		if d.sentence == "" {
			return "DIFFERENT"
		}
		if d.ours == class {
			came++
		} else {
			went++
		}
	}
	var words []string
	if came > 0 {
		words = append(words, fmt.Sprintf("+%d", came))
	}
	if went > 0 {
		words = append(words, fmt.Sprintf("-%d", went))
	}
	if len(words) == 0 {
		return "equal"
	}
	return strings.Join(words, " ") + " known"
}
