package driver

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Memory returns how many bytes can be had without swapping, and of how many.
type Memory func() (available, total int64, err error)

// MachineMemory is that of the machine, of which meminfo is "/proc/meminfo" (proc_meminfo(5),
// MemAvailable).
func MachineMemory(meminfo string) Memory {
	return func() (available, total int64, err error) {
		values, err := readFields(meminfo, 1024)
		if err != nil {
			return 0, 0, err
		}
		available, ok := values["MemAvailable:"]
		if total = values["MemTotal:"]; !ok || total <= 0 {
			return 0, 0, fmt.Errorf("%s: MemAvailable and MemTotal are needed", meminfo)
		}
		return available, total, nil
	}
}

// GroupMemory is that of a group with a limit, for a policy that is run for what is below it: the
// limit without what is used, plus cache that is not in use. The directory is that of a version 2
// group or of a version 1 memory group. While the group has no limit, the machine's is returned.
func GroupMemory(dir string, machine Memory) Memory {
	return func() (available, total int64, err error) {
		limitFile, usageFile, cache := "memory.max", "memory.current", "inactive_file"
		if _, err := os.Stat(filepath.Join(dir, limitFile)); err != nil {
			limitFile, usageFile = "memory.limit_in_bytes", "memory.usage_in_bytes"
			cache = "total_inactive_file"
		}
		available, total, err = machine()
		if err != nil {
			return 0, 0, err
		}
		limit, err := readNumber(filepath.Join(dir, limitFile))
		if err != nil || limit >= total {
			return available, total, err
		}
		usage, err := readNumber(filepath.Join(dir, usageFile))
		if err != nil {
			return 0, 0, err
		}
		stat, err := readFields(filepath.Join(dir, "memory.stat"), 1)
		if err != nil {
			return 0, 0, err
		}
		return max(0, min(available, limit-usage+stat[cache])), limit, nil
	}
}

// readFields reads lines of a name and a number, times a factor.
func readFields(name string, factor int64) (map[string]int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, absent(err)
	}
	defer f.Close()
	values := map[string]int64{}
	sc := bufio.NewScanner(io.LimitReader(f, 1<<20))
	for sc.Scan() {
		words := strings.Fields(sc.Text())
		if len(words) < 2 {
			continue
		}
		n, err := strconv.ParseInt(words[1], 10, 64)
		if err == nil && n >= 0 && n <= math.MaxInt64/factor {
			values[words[0]] = n * factor
		}
	}
	return values, sc.Err()
}

// readNumber reads a file of one number of bytes; "max" is the largest.
func readNumber(name string) (int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, absent(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return 0, absent(err)
	}
	text := strings.TrimSpace(string(b))
	if text == "max" {
		return math.MaxInt64, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		return math.MaxInt64, nil // no limit, in some kernels of version 1
	}
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s: %q is no number of bytes", name, text)
	}
	return n, nil
}
