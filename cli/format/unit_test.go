package format

import (
	"math"
	"testing"
	"time"
)

func TestSize(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		bytes  int64
		digits int
		want   string
	}{
		{0, 3, "0B"}, {999, 3, "999B"}, {1000, 3, "1kB"}, {1234, 3, "1.23kB"},
		{1234, 4, "1.234kB"}, {123_456, 3, "123kB"}, {999_999, 3, "1000kB"},
		{12_345_678, 3, "12.3MB"}, {1_500_000_000, 4, "1.5GB"}, {-2000, 3, "-2kB"},
		{math.MaxInt64, 3, "9.22EB"},
	} {
		if got := Size(c.bytes, c.digits); got != c.want {
			t.Errorf("Size(%d, %d): got %q, want %q", c.bytes, c.digits, got, c.want)
		}
	}
}

func TestBinarySize(t *testing.T) {
	t.Parallel()
	for bytes, want := range map[float64]string{
		0: "0B", 1023: "1023B", 1024: "1KiB", 2000: "1.953KiB", 64 << 20: "64MiB",
		1.5 * (1 << 30): "1.5GiB", 1 << 60: "1EiB", 1 << 70: "1024EiB",
	} {
		if got := BinarySize(bytes); got != want {
			t.Errorf("BinarySize(%v): got %q, want %q", bytes, got, want)
		}
	}
}

func TestDuration(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for d, want := range map[time.Duration]string{
		-time.Hour: "Less than a second", 999 * time.Millisecond: "Less than a second",
		time.Second: "1 second", 59 * time.Second: "59 seconds",
		time.Minute: "About a minute", 119 * time.Second: "About a minute",
		2 * time.Minute: "2 minutes", 59 * time.Minute: "59 minutes",
		time.Hour: "About an hour", 89 * time.Minute: "About an hour",
		90 * time.Minute: "2 hours", 47 * time.Hour: "47 hours", 2 * day: "2 days",
		13 * day: "13 days", 14 * day: "2 weeks", 59 * day: "8 weeks", 60 * day: "2 months",
		729 * day: "24 months", 730 * day: "2 years",
	} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%v): got %q, want %q", d, got, want)
		}
	}
}

func TestEllipsis(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"short", 5, "short"}, {"longer", 5, "long…"}, {"äöüäöü", 4, "äöü…"},
		{"x", 0, "x"}, {"xy", 1, "…"}, {"", 3, ""},
	} {
		if got := Ellipsis(c.text, c.width); got != c.want {
			t.Errorf("Ellipsis(%q, %d): got %q, want %q", c.text, c.width, got, c.want)
		}
	}
}

func TestShortID(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{
		"sha256:0123456789abcdef": "0123456789ab", "0123456789abcdef": "0123456789ab",
		"short": "short", "sha256:": "", "": "",
	} {
		if got := ShortID(id); got != want {
			t.Errorf("ShortID(%q): got %q, want %q", id, got, want)
		}
	}
}
