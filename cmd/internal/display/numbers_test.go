package display

import (
	"math"
	"testing"
)

func TestFormatNumbers(t *testing.T) {
	for want, got := range map[string]string{
		"0": PerSecond(0), "0.5": PerSecond(0.5), "9.9": PerSecond(9.94),
		"10": PerSecond(9.96), "999": PerSecond(999.4), "1.0k": PerSecond(999.6),
		"1.5k": PerSecond(1500), "1000.0E": PerSecond(1e21), "1.0M": PerSecond(999_950),
		"1023B": Bytes(1023), "1.0KiB": Bytes(1024), "16.0EiB": Bytes(math.MaxUint64),
		"7": Packets(7), "998": Packets(998),
		"-": Percent[uint64](0, 0), "0%": Percent[uint64](0, 5), "<1%": Percent[uint64](1, 1000), "33%": Percent[uint64](1, 3), ">99%": Percent[uint64](999, 1000), "100%": Percent[uint64](4, 4),
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
