package seccomp

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "rewrite the files of testdata/golden")

// TestGolden compares the text of filters: testdata/golden/NAME.json is a profile, NAME.ARCH.txt
// its filter.
func TestGolden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/golden/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no profiles: %v", err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var cfg specs.LinuxSeccomp
		if err := json.Unmarshal(raw, &cfg); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, arch := range []string{"amd64", "arm64"} {
			text := strings.TrimSuffix(file, ".json") + "." + arch + ".txt"
			t.Run(filepath.Base(text), func(t *testing.T) {
				t.Parallel()
				got := Disassemble(mustCompile(t, &cfg, arch).Insns)
				if *update {
					if err := os.WriteFile(text, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(text)
				if err != nil {
					t.Fatal(err)
				}
				if got != string(want) {
					t.Errorf("got\n%s\nwant\n%s", got, want)
				}
			})
		}
	}
}

// Every action, and what no filter of this package has, is readable.
func TestDisassembleAll(t *testing.T) {
	t.Parallel()
	got := Disassemble([]unix.SockFilter{
		{Code: opLoad, K: offsetArch}, {Code: opJEQ, Jf: 1, K: unix.AUDIT_ARCH_ARM},
		{Code: opRet, K: unix.SECCOMP_RET_TRACE | 9},
		{Code: opJSET, Jt: 1, K: 0x10}, {Code: opJA, K: 2},
		{Code: opRet, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: opRet, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: opLoad, K: 20}, {Code: opAnd, K: 0xff}, {Code: opLoad, K: 8},
		{Code: opRet, K: unix.SECCOMP_RET_TRAP}, {Code: opRet, K: unix.SECCOMP_RET_LOG},
		{Code: opRet, K: 0x12340000}, {Code: unix.BPF_MISC | unix.BPF_TAX},
	})
	want := `   0  ld arch
   1  jeq arm, 2, 3
   2  ret trace 9
   3  jset 0x10, 5, 4
   4  ja 7
   5  ret notify
   6  ret kill_process
   7  ld args[0].high
   8  and 0xff
   9  ld [8]
  10  ret trap
  11  ret log
  12  ret 0x12340000
  13  code 0x7, 0, 0, 0x0
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
