package inroot

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMake makes files through the links of a tree, and looks at where they are.
func TestMake(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		// links are made in a root that has a directory etc; path is what is asked for.
		links map[string]string
		path  string
		made  string // below the root
		err   error
	}{
		{"plain", nil, "etc/hosts", "etc/hosts", nil},
		{"absolute", map[string]string{"etc/r": "/run/a/b"}, "/etc/r", "run/a/b", nil},
		{"relative", map[string]string{"etc/r": "../run/a"}, "etc/r", "run/a", nil},
		{"out", map[string]string{"etc/r": "../../../../run/a"}, "etc/r", "run/a", nil},
		{
			"chain", map[string]string{"etc/r": "/x/r", "x": "var/x", "var/x/r": "../y"},
			"etc/r", "var/y", nil,
		},
		{
			"a directory that leads nowhere", map[string]string{"etc/d": "/gone"}, "etc/d/f",
			"gone/f", nil,
		},
		{"around", map[string]string{"etc/a": "b", "etc/b": "a"}, "etc/a", "", unix.ELOOP},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			outside := t.TempDir()
			root := filepath.Join(outside, "root")
			if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
				t.Fatal(err)
			}
			for name, to := range tc.links {
				path := filepath.Join(root, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(to, path); err != nil {
					t.Fatal(err)
				}
			}
			fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			for range 2 { // what is there is left
				if err := Make(fd, tc.path, false, nil); !errors.Is(err, tc.err) {
					t.Fatalf("error %v, want %v", err, tc.err)
				}
			}
			if tc.made != "" {
				st, err := os.Lstat(filepath.Join(root, tc.made))
				if err != nil || !st.Mode().IsRegular() {
					t.Errorf("%s: %v, %v", tc.made, st, err)
				}
			}
			if list, err := os.ReadDir(outside); err != nil || len(list) != 1 {
				t.Errorf("outside of the root: %v, %v", list, err)
			}
		})
	}
}
