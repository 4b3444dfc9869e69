package main

import "testing"

func TestSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"0": 0, "1048576": 1 << 20, "-1": -1, "50M": 50 << 20, "50m": 50 << 20, "2k": 2048,
		"2kb": 2048, "2KiB": 2048, "1.5g": 3 << 29, "3b": 3, "1 T": 1 << 40, "1p": 1 << 50,
		"9223372036854775807": 1<<63 - 1,
	} {
		var s size
		if err := s.Set(text); err != nil || int64(s) != want {
			t.Errorf("%q: got %d, %v; want %d", text, s, err, want)
		}
	}
	for _, text := range []string{
		"", "M", "b", "ib", "-2", "-1M", "1x", "1kk", "1e3", "0x10", "nan", "inf", "9000000p", "1ib",
		"1.2.3", "+1", "1_0",
	} {
		var s size
		if err := s.Set(text); err == nil {
			t.Errorf("%q: got %d, want an error", text, s)
		}
	}
}
