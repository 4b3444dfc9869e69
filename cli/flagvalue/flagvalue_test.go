package flagvalue_test

import (
	"testing"

	"strake/cli/flagvalue"
)

func TestBytes(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{
		"0": 0, "32": 32, "32b": 32, "1k": 1 << 10, "1K": 1 << 10, "1kb": 1 << 10, "1KiB": 1 << 10,
		"1.5g": 3 << 29, "2 m": 2 << 20, "1t": 1 << 40, "1p": 1 << 50,
	} {
		if got, err := flagvalue.ParseBytes(in); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "k", "-1", "1x", "1kbb", "1e3", "0x10", "inf", "nan", "1 2", "99999p", "1bk",
	} {
		if got, err := flagvalue.ParseBytes(in); err == nil {
			t.Errorf("%q: got %d, want an error", in, got)
		}
	}
	var swap int64
	if v := flagvalue.BytesOrUnlimited(&swap); v.Set("-1") != nil || swap != -1 ||
		v.Set("-2") == nil {
		t.Errorf("unlimited: %d", swap)
	}
}

func TestCPUs(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{
		"1": 1e9, "1.5": 15e8, ".5": 5e8, "0.000000001": 1, "2.": 2e9,
	} {
		var got int64
		if err := flagvalue.CPUs(&got).Set(in); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", ".", "-1", "1,5", "0.0000000001", "99999999999999999999", "1e1",
	} {
		got := int64(7)
		if err := flagvalue.CPUs(&got).Set(in); err == nil || got != 7 {
			t.Errorf("%q: got %d, %v, want an error", in, got, err)
		}
	}
}
