package userland

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// parseSize reads a byte count with an optional suffix as coreutils and busybox have them: b=512,
// c=1, w=2, k or K=1024, kB=1000, M, MB, G, GB, T, TB.
func parseSize(s string) (int64, error) {
	digits := s
	for i, r := range s {
		if r < '0' || r > '9' {
			digits = s[:i]
			break
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no size (want digits and one of b c w k kB M MB G GB T TB)", s)
	}
	var unit int64
	switch s[len(digits):] {
	case "", "c":
		unit = 1
	case "w":
		unit = 2
	case "b":
		unit = 512
	case "k", "K", "KiB":
		unit = 1 << 10
	case "kB", "KB":
		unit = 1e3
	case "m", "M", "MiB":
		unit = 1 << 20
	case "MB":
		unit = 1e6
	case "g", "G", "GiB":
		unit = 1 << 30
	case "GB":
		unit = 1e9
	case "T", "TiB":
		unit = 1 << 40
	case "TB":
		unit = 1e12
	default:
		return 0, fmt.Errorf(
			"%q has an unknown unit %q (want one of b c w k kB M MB G GB T TB)", s, s[len(digits):],
		)
	}
	if n > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q is too large", s)
	}
	return n * unit, nil
}

// parseCount reads a number that is not negative.
func parseCount(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is no count (want a decimal number, 0 or more)", s)
	}
	return n, nil
}

// parseSeconds reads a time as sleep(1) takes it: a decimal number with an optional s, m, h or d.
func parseSeconds(s string) (time.Duration, error) {
	num, unit := s, time.Second
	if s != "" {
		switch s[len(s)-1] {
		case 's':
			num = s[:len(s)-1]
		case 'm':
			num, unit = s[:len(s)-1], time.Minute
		case 'h':
			num, unit = s[:len(s)-1], time.Hour
		case 'd':
			num, unit = s[:len(s)-1], 24*time.Hour
		}
	}
	f, err := strconv.ParseFloat(num, 64)
	if err != nil || f < 0 || math.IsNaN(f) || strings.ContainsAny(num, "xXpP_") {
		return 0, fmt.Errorf("%q is no time (want a number with an optional s, m, h or d)", s)
	}
	d := f * float64(unit)
	if d > math.MaxInt64/2 {
		return math.MaxInt64 / 2, nil
	}
	return time.Duration(d), nil
}

// humanSize prints bytes as ls -h does: three significant digits at most, powers of 1024, rounded
// up.
func humanSize(n uint64) string {
	if n < 1024 {
		return strconv.FormatUint(n, 10)
	}
	v, i := float64(n), -1
	for v >= 1024 && i < 5 {
		v /= 1024
		i++
	}
	if v < 10 {
		if r := math.Ceil(v*10) / 10; r < 10 {
			return fmt.Sprintf("%.1f%c", r, "KMGTPE"[i])
		}
	}
	if r := math.Ceil(v); r < 1024 || i == 5 {
		return fmt.Sprintf("%.0f%c", r, "KMGTPE"[i])
	}
	return fmt.Sprintf("1.0%c", "KMGTPE"[i+1])
}
