package driver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"strake/lmctfy/policy"
)

const sample = `some avg10=1.50 avg60=0.20 avg300=100.00 total=123456
full avg10=0.00 avg60=0.00 avg300=0.00 total=99
`

func TestParsePSI(t *testing.T) {
	t.Parallel()
	some := policy.Averages{
		Avg10: 1.5, Avg60: 0.2, Avg300: 100, Total: 123456 * time.Microsecond,
	}
	for _, tt := range []struct {
		name, text string
		want       policy.Stall
		err        string
	}{
		{
			"both lines", sample,
			policy.Stall{Some: some, Full: policy.Averages{Total: 99 * time.Microsecond}}, "",
		},
		{
			"CPU of old kernels has no full", strings.SplitAfter(sample, "\n")[0],
			policy.Stall{Some: some}, "",
		},
		{
			"what later kernels add is skipped",
			strings.Replace(sample, " total", " avg900=1.00 total", 1) + "none avg10=x\n\n",
			policy.Stall{Some: some, Full: policy.Averages{Total: 99 * time.Microsecond}}, "",
		},
		{"empty", "", policy.Stall{}, `no line "some"`},
		{"no some", strings.SplitAfter(sample, "\n")[1], policy.Stall{}, `no line "some"`},
		{"a value is missing", "some avg10=1.00 total=1\n", policy.Stall{}, "are needed"},
		{
			"more than all the time", strings.Replace(sample, "100.00", "100.01", 1),
			policy.Stall{}, `avg300 "100.01": 0 to 100 is allowed`,
		},
		{"no number", strings.Replace(sample, "1.50", "NaN", 1), policy.Stall{}, `avg10 "NaN"`},
		{"negative", strings.Replace(sample, "123456", "-1", 1), policy.Stall{}, `total "-1"`},
		{
			"too large", strings.Replace(sample, "123456", "9223372036854775807", 1),
			policy.Stall{}, `total "9223372036854775807": microseconds`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParsePSI([]byte(tt.text))
			if got != tt.want || (err == nil) != (tt.err == "") ||
				err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %+v %v, want %+v %s", got, err, tt.want, tt.err)
			}
		})
	}
}

func FuzzParsePSI(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("some avg10=1e2 avg60=0x1p2 avg300=+0 total=9223372036854775"))
	f.Fuzz(func(t *testing.T, text []byte) {
		stall, err := ParsePSI(text)
		if err != nil {
			if stall != (policy.Stall{}) {
				t.Errorf("%+v beside %v", stall, err)
			}
			return
		}
		for _, a := range []policy.Averages{stall.Some, stall.Full} {
			for _, f := range []float64{a.Avg10, a.Avg60, a.Avg300} {
				if !(f >= 0 && f <= 100) {
					t.Errorf("average %v", f)
				}
			}
			if a.Total < 0 {
				t.Errorf("total %d", a.Total)
			}
		}
	})
}

func TestReadPSI(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"group", "pressure"} { // names of files differ as the kernel's do
		dir, suffix := filepath.Join(t.TempDir(), dir), ".pressure"
		if filepath.Base(dir) == "pressure" {
			suffix = ""
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPSI(dir); !errdefs.IsNotFound(err) {
			t.Errorf("no files: got %v", err)
		}
		for i, name := range []string{"cpu", "memory", "io"} {
			text := strings.Replace(sample, "1.50", []string{"1.00", "2.00", "3.00"}[i], 1)
			err := os.WriteFile(filepath.Join(dir, name+suffix), []byte(text), 0o600)
			if err != nil {
				t.Fatal(err)
			}
		}
		p, err := ReadPSI(dir)
		if err != nil || p.CPU.Some.Avg10 != 1 || p.Memory.Some.Avg10 != 2 || p.IO.Some.Avg10 != 3 {
			t.Errorf("got %+v %v", p, err)
		}
		err = os.WriteFile(filepath.Join(dir, "io"+suffix), []byte("x"), 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPSI(dir); err == nil || !strings.Contains(err.Error(), "io"+suffix) {
			t.Errorf("got %v", err)
		}
	}
}
