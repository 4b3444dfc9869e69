package seccomp

import (
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestAgreesWithLibseccomp compares filters with those that libseccomp made of the same profiles
// (testdata/libseccomp/export.py). What runc puts in front of them, ENOSYS for unknown numbers,
// comes from the naive reading.
func TestAgreesWithLibseccomp(t *testing.T) {
	t.Parallel()
	compareDir(t, "testdata/libseccomp", 450)
}

// compareDir compares all profiles of a directory, up to the highest number that the libseccomp
// which made the filters knew.
func compareDir(t *testing.T, dir string, newest uint32) {
	files, err := filepath.Glob(filepath.Join(dir, "*.bpf"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no filters in %s: %v", dir, err)
	}
	for _, file := range files {
		name, arch, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".bpf"), ".")
		t.Run(name+"-"+arch, func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(filepath.Join(dir, name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			var cfg specs.LinuxSeccomp
			if err := json.Unmarshal(raw, &cfg); err != nil {
				t.Fatal(err)
			}
			if raw, err = os.ReadFile(file); err != nil {
				t.Fatal(err)
			}
			var theirs []unix.SockFilter
			for ; len(raw) >= 8; raw = raw[8:] {
				theirs = append(theirs, unix.SockFilter{
					Code: binary.LittleEndian.Uint16(raw), Jt: raw[2], Jf: raw[3],
					K: binary.LittleEndian.Uint32(raw[4:]),
				})
			}
			compare(t, &cfg, arch, theirs, newest)
		})
	}
}

func compare(
	t *testing.T, cfg *specs.LinuxSeccomp, arch string, theirs []unix.SockFilter, newest uint32,
) {
	ours := mustCompile(t, cfg, arch).Insns
	t.Logf("%d instructions, libseccomp has %d", len(ours), len(theirs))
	ref := newReference(cfg, arch)
	rng := rand.New(rand.NewPCG(3, 4))
	bad := 0
	for _, c := range interesting(arch) {
		a, ok := ref.abi(c)
		rules := ref.byNumber[a.name][c.nr]
		if ok && c.nr-a.base > newest && c.nr-a.base < ordinarySlots {
			continue
		}
		sets := [][6]uint64{{}}
		if len(rules) > 0 {
			sets = samples(rules, rng)
		}
		for _, c.args = range sets {
			want, _, err := run(theirs, c)
			if err != nil {
				t.Fatal(err)
			}
			if ok && len(rules) == 0 && ref.unknown(a, c.nr) {
				want = refENOSYS
			}
			if got, _, err := run(ours, c); err != nil || got != want {
				t.Errorf(
					"%v: got %s (%v), libseccomp says %s", c, returned(got), err, returned(want),
				)
				if bad++; bad > 5 {
					t.FailNow()
				}
			}
		}
	}
}
