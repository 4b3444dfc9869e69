package config

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

var update = flag.Bool("update", false, "rewrite testdata/wrong.txt")

// TestWrongLines reads testdata/wrong.txt: lines of a configuration, then its error after "> ".
func TestWrongLines(t *testing.T) {
	t.Parallel()
	const file = "testdata/wrong.txt"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	n := 0
	for record := range strings.SplitSeq(strings.TrimRight(string(data), "\n"), "\n\n") {
		text, want, _ := strings.Cut(record, "\n> ")
		got := "no error"
		if _, err := Parse("config", strings.NewReader(text+"\n")); err != nil {
			got = err.Error()
			if !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%s\nis not an invalid argument: %v", text, err)
			}
		}
		if got != want && !*update {
			t.Errorf("%s\n got %s\nwant %s", text, got, want)
		}
		if n++; n > 1 {
			all.WriteString("\n")
		}
		all.WriteString(text + "\n> " + got + "\n")
	}
	if n < 100 {
		t.Errorf("%s has %d records only", file, n)
	}
	if *update {
		if err := os.WriteFile(file, []byte(all.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAllErrorsOfAFileAreReportedTogether(t *testing.T) {
	t.Parallel()
	const text = "lxc.a = 1\nlxc.tty.max = 4\n\n# lxc.b\nlxc.tty.max = x\n"
	_, err := Parse("f", strings.NewReader(text))
	var all Errors
	if !errors.As(err, &all) || len(all) != 2 {
		t.Fatalf("got %v", err)
	}
	equal(t, "first", *all[0],
		Error{File: "f", Line: 1, Key: "lxc.a", Value: "1", Problem: all[0].Problem})
	equal(t, "second", *all[1], Error{File: "f", Line: 5, Key: "lxc.tty.max", Value: "x",
		Problem: "want a number from 0 to 4096"})

	_, err = Parse("f", strings.NewReader(strings.Repeat("lxc.tty.max = x\n", 50)))
	if !errors.As(err, &all) || len(all) != 20 {
		t.Fatalf("got %d errors", len(all))
	}
	if text := err.Error(); !strings.HasSuffix(text, "further errors are not shown") {
		t.Errorf("the last line is not that there are more: %s", text)
	}
}

func TestWhatIsReadIsBounded(t *testing.T) {
	t.Parallel()
	cases := []struct{ text, want string }{
		{"# " + strings.Repeat("x", maxLine), "f:1: want lines of less than 65536 bytes"},
		{strings.Repeat("# comment\n", maxFile/10+1),
			fmt.Sprintf("f:%d: want a file of at most 1048576 bytes", maxFile/10+2)},
		{"lxc.uts.name = a\x00b", `f:1: lxc.uts.name = "a\x00b": want no NUL byte`},
		{"lxc.autodev = " + strings.Repeat("x", 200),
			`f:1: lxc.autodev = "` + strings.Repeat("x", 120) + `"…: want 0 or 1`},
	}
	for _, tc := range cases {
		_, err := Parse("f", strings.NewReader(tc.text))
		if err == nil || err.Error() != tc.want {
			t.Errorf("%.40q: got %v, want %s", tc.text, err, tc.want)
		}
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	cases := []struct {
		value string
		want  int
	}{
		{"SIGPWR", 30}, {"PWR", 30}, {"sigpwr", 30}, {"30", 30}, {"0", 0}, {"64", 64},
		{"SIGRTMIN+3", 37}, {"RTMIN+3", 37}, {"sigrtmin", 34}, {"SIGRTMIN+30", 64},
		{"SIGRTMAX", 64}, {"SIGRTMAX-2", 62}, {"SIGRTMAX-30", 34},
		{"SIGKILL", 9}, {"SIGCLD", 17}, {"SIGIOT", 6}, {"SIGPOLL", 29}, {"SIGSTKFLT", 16},
		{"SIGUNUSED", 31},
		{"", -1}, {"SIG", -1}, {"SIGRTMIN+", -1}, {"SIGRTMIN-1", -1}, {"SIGRTMAX+1", -1},
		{"SIGRTMIN+31", -1}, {"SIGRTMIN+-1", -1}, {"SIGRTMINX", -1}, {"HUPP", -1}, {"65", -1},
	}
	for _, tc := range cases {
		got, err := signalNumber(tc.value)
		if err != nil {
			got = -1
		}
		if got != tc.want {
			t.Errorf("%q: got %d, want %d", tc.value, got, tc.want)
		}
	}
}

func TestNumbersAndSizes(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]int64{
		"0": 0, "-5": -5, "10": 10, "0x1F": 31, "010": 8, "-0x1": -1,
		"": -99, "1_0": -99, "+1": -99, "0b1": -99, "0o7": -99, "08": -99, "0x": -99, "--1": -99,
		"101": -99, "-6": -99, "9223372036854775808": -99, "1 ": -99,
	} {
		got, err := number(value, -5, 100)
		if err != nil {
			got = -99
		}
		if got != want {
			t.Errorf("number %q: got %d, want %d", value, got, want)
		}
	}
	for value, want := range map[string]int64{
		"0": 0, "7": 7, "7B": 7, "2kb": 2048, "2 KB": 2048, "1MB": 1 << 20, "1024GB": 1 << 40,
		"": -1, "KB": -1, "1K": -1, "1TB": -1, "-1": -1, "1.5MB": -1, "1KBB": -1,
		"1048577GB": -1, "18446744073709551615": -1,
	} {
		got, err := byteSize(value)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("size %q: got %d, want %d", value, got, want)
		}
	}
}
