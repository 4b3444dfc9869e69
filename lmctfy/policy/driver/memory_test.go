package driver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMemory(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	meminfo := "MemTotal:  1024 kB\nMemFree: 1 kB\nMemAvailable:   512 kB\nHugePages_Total:  0\n"
	for _, tt := range []struct {
		name             string
		files            map[string]string // without: the machine's
		available, total int64
		err              string
	}{
		{"the machine's", nil, mib / 2, mib, ""},
		{
			"version 2: what is not used, and cache", map[string]string{
				"memory.max": "524288\n", "memory.current": "262144\n",
				"memory.stat": "anon 5\ninactive_file 100\n",
			},
			262144 + 100, 524288, "",
		},
		{
			"version 1", map[string]string{
				"memory.limit_in_bytes": "524288\n", "memory.usage_in_bytes": "524000\n",
				"memory.stat": "inactive_file 7\ntotal_inactive_file 100\n",
			},
			388, 524288, "",
		},
		{"no limit", map[string]string{"memory.max": "max\n"}, mib / 2, mib, ""},
		{
			"no limit of version 1",
			map[string]string{"memory.limit_in_bytes": "9223372036854771712"}, mib / 2, mib, "",
		},
		{
			"over the limit, which was lowered", map[string]string{
				"memory.max": "1000", "memory.current": "2000", "memory.stat": "",
			},
			0, 1000, "",
		},
		{
			"no more than the machine has", map[string]string{
				"memory.max": "1000000", "memory.current": "0", "memory.stat": "",
			},
			mib / 2, 1000000, "",
		},
		{"no group", map[string]string{}, 0, 0, "memory.limit_in_bytes"},
		{
			"no number", map[string]string{"memory.max": "x"}, 0, 0, `memory.max: "x" is no number`,
		},
		{"no usage", map[string]string{"memory.max": "1"}, 0, 0, "memory.current"},
		{
			"no statistics", map[string]string{"memory.max": "1", "memory.current": "1"}, 0, 0,
			"memory.stat",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write := func(name, text string) {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("meminfo", meminfo)
			memory := MachineMemory(filepath.Join(dir, "meminfo"))
			for name, text := range tt.files {
				write(name, text)
			}
			if tt.files != nil {
				memory = GroupMemory(dir, memory)
			}
			available, total, err := memory()
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %s", err, tt.err)
				}
				return
			}
			if available != tt.available || total != tt.total || err != nil {
				t.Errorf(
					"got %d of %d %v, want %d of %d", available, total, err, tt.available, tt.total,
				)
			}
		})
	}
	for _, text := range []string{"", "MemTotal: 5 kB\n", "MemAvailable: 5 kB\n"} {
		name := filepath.Join(t.TempDir(), "meminfo")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := MachineMemory(name)(); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
	if _, total, err := MachineMemory("/proc/meminfo")(); err != nil || total < 1<<20 {
		t.Errorf("of this machine: %d %v", total, err)
	}
}
