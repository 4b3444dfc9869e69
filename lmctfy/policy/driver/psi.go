package driver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"strake/lmctfy/policy"
)

// ProcPressure is where the kernel shows the pressure on the whole machine.
const ProcPressure = "/proc/pressure"

// maxPSI bounds what is read of a file of PSI, which has two lines of about 60 bytes.
const maxPSI = 4096

// ParsePSI parses the text of a file of pressure stall information (kernel
// Documentation/accounting/psi.rst). Keys and lines that it does not know are skipped, since
// kernels add them; a text without a valid "some" line is an error.
func ParsePSI(text []byte) (policy.Stall, error) {
	var stall policy.Stall
	found := false
	for line := range bytes.Lines(text) {
		words := strings.Fields(string(line))
		if len(words) == 0 {
			continue
		}
		var a *policy.Averages
		switch words[0] {
		case "some":
			a, found = &stall.Some, true
		case "full":
			a = &stall.Full
		default:
			continue
		}
		if err := parseAverages(words[1:], a); err != nil {
			return policy.Stall{}, fmt.Errorf("pressure %q: %w", bytes.TrimSpace(line), err)
		}
	}
	if !found {
		return policy.Stall{}, errors.New(`pressure: no line "some"`)
	}
	return stall, nil
}

func parseAverages(words []string, a *policy.Averages) error {
	seen := 0
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		var average *float64
		switch key {
		case "avg10":
			average = &a.Avg10
		case "avg60":
			average = &a.Avg60
		case "avg300":
			average = &a.Avg300
		case "total":
			us, err := strconv.ParseInt(value, 10, 64)
			if err != nil || us < 0 || us > int64(1<<63-1)/1000 {
				return fmt.Errorf("%s %q: microseconds are allowed", key, value)
			}
			a.Total = time.Duration(us) * time.Microsecond
			seen++
			continue
		default:
			continue
		}
		f, err := strconv.ParseFloat(value, 64)
		if err != nil || !(f >= 0 && f <= 100) {
			return fmt.Errorf("%s %q: 0 to 100 is allowed", key, value)
		}
		*average = f
		seen++
	}
	if seen < 4 {
		return errors.New("avg10, avg60, avg300 and total are needed")
	}
	return nil
}

// files returns the paths of the files of PSI of a directory by resource: that of a version 2 group
// ("cpu.pressure"), or ProcPressure ("cpu").
func files(dir string) [3]string {
	suffix := ".pressure"
	if filepath.Base(dir) == filepath.Base(ProcPressure) {
		suffix = ""
	}
	return [3]string{
		policy.CPU:    filepath.Join(dir, "cpu"+suffix),
		policy.Memory: filepath.Join(dir, "memory"+suffix),
		policy.IO:     filepath.Join(dir, "io"+suffix),
	}
}

// ReadPSI reads the pressure of a version 2 group's directory, or of ProcPressure. It is
// errdefs.ErrNotFound if there is no such file or the kernel keeps no PSI for it.
func ReadPSI(dir string) (p policy.Pressure, err error) {
	for r, stall := range [3]*policy.Stall{
		policy.CPU: &p.CPU, policy.Memory: &p.Memory, policy.IO: &p.IO,
	} {
		if *stall, err = readStall(files(dir)[r]); err != nil {
			return policy.Pressure{}, err
		}
	}
	return p, nil
}

func readStall(name string) (policy.Stall, error) {
	f, err := os.Open(name)
	if err != nil {
		return policy.Stall{}, absent(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPSI))
	if err != nil {
		return policy.Stall{}, absent(err)
	}
	stall, err := ParsePSI(text)
	if err != nil {
		return policy.Stall{}, fmt.Errorf("%s: %w", name, err)
	}
	return stall, nil
}

// absent gives errors that mean that there is no PSI their class. A group that was removed while
// its file is open answers ENODEV, a kernel that was started with psi=0 EOPNOTSUPP.
func absent(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) ||
		errors.Is(err, syscall.EOPNOTSUPP) {
		return fmt.Errorf("%w: %w", errdefs.ErrNotFound, err)
	}
	return err
}
