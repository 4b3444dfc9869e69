package layer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Size is what a tree takes. Hard links are counted once.
type Size struct {
	// Allocated are bytes on disk, of everything.
	Allocated int64
	// Files is the sum of the sizes of the regular files in bytes, as Result.Bytes.
	Files int64
	// Inodes counts files of every kind.
	Inodes int64
}

// Measure walks the tree below dir, which may change meanwhile.
func Measure(ctx context.Context, dir string) (Size, error) {
	var size Size
	seen := map[uint64]bool{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(p, &st)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil {
			return err
		}
		if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if seen[st.Ino] {
				return nil
			}
			seen[st.Ino] = true
		}
		size.Inodes++
		size.Allocated += st.Blocks * 512
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			size.Files += st.Size
		}
		return nil
	})
	if err != nil {
		return Size{}, fmt.Errorf("measure %q: %w", dir, err)
	}
	return size, nil
}
