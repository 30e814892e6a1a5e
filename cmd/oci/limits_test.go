package main

import "testing"

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "-1": -1, "67108864": 67108864, "50M": 50 << 20, "50m": 50 << 20, "1k": 1024, "2Gb": 2 << 30, "3GiB": 3 << 30, "1t": 1 << 40, "7b": 7,
	} {
		if got, err := parseSize(s); got != want || err != nil {
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "M", "1x", "-2", "-1M", "1MM", "5ib", "9223372036854775808", "8388608t", "1 M"} {
		if got, err := parseSize(s); err == nil {
			t.Errorf("%q: %d", s, got)
		}
	}
}
