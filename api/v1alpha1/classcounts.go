// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ClassCounts holds the counts and rates of one class.
type ClassCounts struct {
	Class   string // family and protocol, for example IPv4/TCP, or the family alone for ARP, Other and Malformed
	Packets int64  // frames
	Bytes   int64  // length of the frames, including the Ethernet header
	PPS     int64  // packets per second, the mean since the previous report
	BPS     int64  // bits per second, 8 times the bytes, the mean since the previous report
}

// Counts is what was counted in each class that was seen. In JSON it is one text, because the cost of a report for the API
// server grows with the number of its fields. For each class the text has the name, the packets and the bytes; in accounts
// it also has the rates if there was traffic. For example "IPv4/TCP 120 84000 12 67200, ARP 3 126".
//
// The markers of this type are the schema of all fields of the type. Each field needs one more marker, Type=string: without
// it controller-gen takes the field for a list.
//
// +kubebuilder:ac:generate=false
//
// +kubebuilder:validation:Type=string
// +kubebuilder:validation:Pattern=`^([^,]* )?[^ ,]*[^0-9 ,][^ ,]*( [0-9]{1,19}){2}(( [0-9]{1,19}){2})?(, ([^,]* )?[^ ,]*[^0-9 ,][^ ,]*( [0-9]{1,19}){2}(( [0-9]{1,19}){2})?)*$`
// +kubebuilder:validation:MaxLength=66000
type Counts []ClassCounts

const separator = ", "

// String returns the counts as one string.
func (c Counts) String() string {
	var text []byte
	for i, class := range c {
		if i > 0 {
			text = append(text, separator...)
		}
		text = class.append(text)
	}
	return string(text)
}

func (c ClassCounts) append(text []byte) []byte {
	text = append(text, c.Class...)
	numbers := [...]int64{c.Packets, c.Bytes, c.PPS, c.BPS}
	last := len(numbers)
	if c.PPS == 0 && c.BPS == 0 {
		last = 2
	}
	for _, n := range numbers[:last] {
		text = strconv.AppendInt(append(text, ' '), max(n, 0), 10)
	}
	return text
}

// MarshalJSON implements json.Marshaler.
func (c Counts) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }

// UnmarshalJSON implements json.Unmarshaler. A number that is too large becomes the largest integer.
func (c *Counts) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	counts := make(Counts, 0, 1+strings.Count(text, separator))
	for part := range strings.SplitSeq(text, separator) {
		class, err := parseClassCounts(part)
		if err != nil {
			return err
		}
		counts = append(counts, class)
	}
	*c = counts
	return nil
}

func parseClassCounts(text string) (ClassCounts, error) {
	// The name of a class can contain spaces, but no comma, and its last word is not a number.
	words := strings.Split(text, " ")
	last := len(words) - 1
	for last > 0 && isNumber(words[last]) {
		last--
	}
	class := strings.Join(words[:last+1], " ")
	if n := len(words) - 1 - last; isNumber(words[last]) || strings.Contains(class, ",") || words[last] == "" || n != 2 && n != 4 {
		return ClassCounts{}, fmt.Errorf("counts %q: want a class, packets and bytes, and both rates or none", text)
	}
	var numbers [4]int64
	for i, word := range words[last+1:] {
		n, err := strconv.ParseUint(word, 10, 64)
		if err != nil {
			n = math.MaxUint64 // too large
		}
		numbers[i] = Int64(n)
	}
	return ClassCounts{Class: class, Packets: numbers[0], Bytes: numbers[1], PPS: numbers[2], BPS: numbers[3]}, nil
}

func isNumber(word string) bool {
	return word != "" && strings.Trim(word, "0123456789") == ""
}
