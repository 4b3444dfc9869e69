package docker

import (
	"fmt"

	units "github.com/docker/go-units"
	"golang.org/x/sys/unix"
)

// parseSize reads 10m, 1GiB or 4096.
func parseSize(s string) (int64, error) {
	n, err := units.RAMInBytes(s)
	if err != nil {
		return 0, err
	}
	if n < 0 {
		return 0, fmt.Errorf("want 0 or more")
	}
	return n, nil
}

// deviceNumber finds the numbers of a block device by its path.
func deviceNumber(path string) (major, minor int64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, invalid("device %q: %v", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, 0, invalid("device %q is not a block device", path)
	}
	return int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev)), nil
}
