package layer

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// OpenDirs opens the directories of layers. The caller closes them, with CloseAll.
func OpenDirs(names []string) ([]*os.File, error) {
	var files []*os.File
	for _, n := range names {
		fd, err := unix.Open(n, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			CloseAll(files)
			return nil, fmt.Errorf("open layer directory %q: %w", n, err)
		}
		files = append(files, os.NewFile(uintptr(fd), n))
	}
	return files, nil
}

// CloseAll closes what OpenDirs opened.
func CloseAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
