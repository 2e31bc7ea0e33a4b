package v1alpha1

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ClassCounts is what was counted in one class. It is written as one text, since what a report costs the API server goes by
// the number of its fields: the class, the packets and the bytes, and in accounts the rates if there was traffic. For example
// "IPv4/TCP 120 84000 12 67200".
//
// +kubebuilder:validation:Type=string
// +kubebuilder:validation:Pattern=`^(.* )?\S*[^0-9 ]\S*( [0-9]{1,19}){2}(( [0-9]{1,19}){2})?$`
// +kubebuilder:validation:MaxLength=128
// +kubebuilder:ac:generate=false
type ClassCounts struct {
	Class   string // family and protocol, for example IPv4/TCP, or the family alone for ARP, Other and Malformed
	Packets int64  // frames
	Bytes   int64  // their length from the Ethernet header on
	PPS     int64  // packets per second, the mean since the report before
	BPS     int64  // bits per second, 8 times the bytes, the mean since the report before
}

// String returns the text.
func (c ClassCounts) String() string {
	text := append(make([]byte, 0, 96), c.Class...)
	numbers := [...]int64{c.Packets, c.Bytes, c.PPS, c.BPS}
	last := len(numbers)
	if c.PPS == 0 && c.BPS == 0 {
		last = 2
	}
	for _, n := range numbers[:last] {
		text = strconv.AppendInt(append(text, ' '), max(n, 0), 10)
	}
	return string(text)
}

// MarshalJSON implements json.Marshaler.
func (c ClassCounts) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }

// UnmarshalJSON implements json.Unmarshaler. A number that is too large counts as the largest.
func (c *ClassCounts) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	// The class may have spaces in it, but does not end in a word that is a number.
	words := strings.Split(text, " ")
	last := len(words) - 1
	for last > 0 && isNumber(words[last]) {
		last--
	}
	if n := len(words) - 1 - last; words[last] == "" || n != 2 && n != 4 {
		return fmt.Errorf("counts %q: want a class, packets and bytes, and both rates or none", text)
	}
	var numbers [4]int64
	for i, word := range words[last+1:] {
		n, err := strconv.ParseUint(word, 10, 64)
		if err != nil {
			n = math.MaxUint64 // too large
		}
		numbers[i] = Int64(n)
	}
	class := strings.Join(words[:last+1], " ")
	*c = ClassCounts{Class: class, Packets: numbers[0], Bytes: numbers[1], PPS: numbers[2], BPS: numbers[3]}
	return nil
}

func isNumber(word string) bool {
	return word != "" && strings.Trim(word, "0123456789") == ""
}
