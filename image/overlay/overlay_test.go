package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMount compares what both ways of naming layers give: one by one, and all at once for
// kernels before 6.7.
func TestMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	var lower []string
	for i := range 60 {
		// Names that say something else in a list of options.
		l := filepath.Join(dir, fmt.Sprintf("layer,upperdir=%d:", i), "fs")
		if err := os.MkdirAll(l, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(l, fmt.Sprintf("own%d", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(l, "top"), fmt.Append(nil, i), 0o644); err != nil {
			t.Fatal(err)
		}
		lower = append(lower, l)
	}
	upper, work := filepath.Join(dir, "a:b,c", "fs"), filepath.Join(dir, "a:b,c", "work")
	for _, d := range []string{upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Of all mounts those of this test: others come and go beside it.
	mounts := func() (list []string) {
		raw, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(raw)) {
			if strings.Contains(line, " - overlay ") &&
				strings.Contains(line, filepath.Base(filepath.Dir(dir))) ||
				strings.Contains(line, " /proc ") {
				list = append(list, line)
			}
		}
		return list
	}
	before := mounts()
	for name, mount := range map[string]func([]string, string, string, int) (*os.File, error){
		"one by one": oneByOne, "at once": atOnce,
	} {
		t.Run(name, func(t *testing.T) {
			for _, writable := range []bool{false, true} {
				u, w := "", ""
				if writable {
					u, w = upper, work
				}
				root, err := mount(lower, u, w, unix.MOUNT_ATTR_NOEXEC)
				if name == "one by one" && errors.Is(err, unix.EINVAL) {
					t.Skip("needs Linux 6.7")
				}
				if err != nil {
					t.Fatal(err)
				}
				defer root.Close()
				at := fmt.Sprintf("/proc/self/fd/%d", root.Fd())
				entries, err := os.ReadDir(at)
				if err != nil || len(entries) < 61 {
					t.Errorf("%d entries: %v", len(entries), err)
				}
				if b, err := os.ReadFile(at + "/top"); string(b) != "0" {
					t.Errorf("top says %q: %v", b, err)
				}
				var st unix.Statfs_t
				if err := unix.Fstatfs(int(root.Fd()), &st); err != nil ||
					st.Flags&unix.ST_NOEXEC == 0 || (st.Flags&unix.ST_RDONLY == 0) != writable {
					t.Errorf("flags %#x, writable %v: %v", st.Flags, writable, err)
				}
				file := at + "/new " + name
				if err := os.WriteFile(file, []byte("x"), 0o644); (err == nil) != writable {
					t.Errorf("writable %v: write: %v", writable, err)
				}
				if !writable {
					continue
				}
				if _, err := os.Stat(filepath.Join(upper, "new "+name)); err != nil {
					t.Error(err)
				}
				if err := os.Remove(file); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if after := mounts(); !slices.Equal(after, before) {
		t.Errorf("the mounts of this process changed:\n%s\nwere\n%s", after, before)
	}
	if _, err := Mount([]string{lower[0], dir + "/none"}, "", "", 0); !errors.Is(
		err, unix.ENOENT,
	) {
		t.Errorf("missing layer: %v", err)
	}
}
