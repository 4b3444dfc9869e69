package format

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// Size writes bytes in powers of 1000 with so many significant digits: "1.23MB". Docker shows
// images with 3 and memory with 4.
func Size(bytes int64, digits int) string {
	return scaled(float64(bytes), 1000, []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}, digits)
}

// BinarySize writes bytes in powers of 1024: "1.953MiB".
func BinarySize(bytes float64) string {
	return scaled(bytes, 1024, []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}, 4)
}

func scaled(n, base float64, units []string, digits int) string {
	i := 0
	for (n >= base || n <= -base) && i < len(units)-1 {
		n /= base
		i++
	}
	return strconv.FormatFloat(n, 'g', max(digits, integerDigits(n)), 64) + units[i]
}

// integerDigits returns how many digits a number has before the point. With fewer significant ones
// it would be written with an exponent.
func integerDigits(n float64) int {
	return len(strconv.FormatInt(int64(math.Round(max(n, -n))), 10))
}

// Duration writes roughly how long something took, in words: "About a minute", "3 hours".
func Duration(d time.Duration) string {
	seconds, minutes, hours := int(d.Seconds()), int(d.Minutes()), int(d.Hours()+0.5)
	switch {
	case seconds < 1:
		return "Less than a second"
	case seconds == 1:
		return "1 second"
	case seconds < 60:
		return fmt.Sprintf("%d seconds", seconds)
	case minutes == 1:
		return "About a minute"
	case minutes < 60:
		return fmt.Sprintf("%d minutes", minutes)
	case hours == 1:
		return "About an hour"
	case hours < 48:
		return fmt.Sprintf("%d hours", hours)
	case hours < 24*7*2:
		return fmt.Sprintf("%d days", hours/24)
	case hours < 24*30*2:
		return fmt.Sprintf("%d weeks", hours/24/7)
	case hours < 24*365*2:
		return fmt.Sprintf("%d months", hours/24/30)
	}
	return fmt.Sprintf("%d years", hours/24/365)
}

// Ellipsis shortens a text to so many characters, the last of which then is "…".
func Ellipsis(s string, width int) string {
	r := []rune(s)
	if len(r) <= width || width < 1 {
		return s
	}
	return string(r[:width-1]) + "…"
}

// ShortID is the first twelve digits of an ID, without the name of its digest.
func ShortID(id string) string {
	for i := range len(id) {
		if id[i] == ':' {
			id = id[i+1:]
			break
		}
	}
	if len(id) > 12 {
		return id[:12]
	}
	return id
}
