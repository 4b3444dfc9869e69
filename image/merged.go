package image

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// mountDetached makes an overlay mount that is attached nowhere (fsopen(2), fsmount(2)) and returns its root. It disappears with the last descriptor,
// so a crash leaves no mount behind. Since Linux 6.5 layers are given one by one ("lowerdir+"); before, all their names have to fit into the 255
// bytes that fsconfig(2) takes, which descriptors under /proc make short enough for about fourteen layers.
func mountDetached(upper *os.File, work string, lower []*os.File) (*os.File, error) {
	fsfd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsopen overlay: %w", err)
	}
	defer unix.Close(fsfd)
	set := func(key, value string) error {
		if err := unix.FsconfigSetString(fsfd, key, value); err != nil {
			return fmt.Errorf("overlay option %s=%s: %w", key, value, err)
		}
		return nil
	}
	for _, l := range lower {
		if err = set("lowerdir+", fdPath(l)); err != nil {
			break
		}
	}
	if errors.Is(err, unix.EINVAL) {
		var names []string
		for _, l := range lower {
			names = append(names, fdPath(l))
		}
		all := strings.Join(names, ":")
		if len(all) > 255 {
			return nil, fmt.Errorf("a layer that refers to its %d parents needs Linux 6.5: %w", len(lower), errdefs.ErrFailedPrecondition)
		}
		err = set("lowerdir", all)
	}
	if err != nil {
		return nil, err
	}
	for _, o := range [][2]string{{"upperdir", fdPath(upper)}, {"workdir", work}, {"index", "off"}, {"redirect_dir", "off"}, {"metacopy", "off"}} {
		if err := set(o[0], o[1]); err != nil {
			return nil, err
		}
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return nil, fmt.Errorf("create overlay: %w", err)
	}
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("fsmount overlay: %w", err)
	}
	// fsmount returns an O_PATH descriptor; directories are read through a real one.
	defer unix.Close(fd)
	dir, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open overlay: %w", err)
	}
	return os.NewFile(uintptr(dir), "merged"), nil
}

func fdPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }
