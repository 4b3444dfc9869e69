package cli

import (
	"bytes"
	"strings"
	"testing"
)

func TestScreen(t *testing.T) {
	t.Parallel()
	list := []usage{
		{name: "a-name-longer-than-its-column", cpu: 1_500_000_000, memory: 3 << 20, io: 2048},
		{name: "b", memory: 100},
	}
	total := usage{}
	for i := range list {
		total.add(&list[i])
	}
	var b bytes.Buffer
	screen(&b, list, &total, 5)
	lines := strings.Split(b.String(), "\r\n")
	want := []string{
		"\x1b[H\x1b[J\x1b[7m\x1b[1mContainer                   CPU          CPU          CPU" +
			"                                BlkIO        Mem",
		"Name                       Used          Sys         User" +
			"                    Total(Read/Write)       Used",
		"\x1b[0ma-name-longer-than         1.50         0.00         0.00" +
			"        2.00 KiB(  0.00   /  0.00   )   3.00 MiB",
		"b                          0.00         0.00         0.00" +
			"         0.00   (  0.00   /  0.00   )  100.00   ",
		"TOTAL 2 of 5               1.50         0.00         0.00" +
			"        2.00 KiB(  0.00   /  0.00   )   3.00 MiB",
	}
	for i := range want {
		if i >= len(lines) || lines[i] != want[i] {
			t.Errorf("line %d:\n%q, want\n%q", i, lines[i], want[i])
		}
	}
}
