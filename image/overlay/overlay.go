// Package overlay mounts layer directories on one another where no mount namespace shows it.
//
// Not for: the mounts of containers, which their own programs make.
//
// Tested on a real kernel, both ways of naming layers, as root.
package overlay

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount makes an overlay of directories that is attached nowhere (fsopen(2), fsmount(2)) and
// returns a handle (O_PATH) on its root: it goes with its last descriptor, so a crash leaves no
// mount behind. lower is topmost first; without upper it is read-only. attrs are of
// mount_setattr(2).
func Mount(lower []string, upper, work string, attrs int) (*os.File, error) {
	f, err := oneByOne(lower, upper, work, attrs)
	if errors.Is(err, unix.EINVAL) {
		return atOnce(lower, upper, work, attrs)
	}
	return f, err
}

// fixedOptions are options that make the upper directory hold whole files under their own names,
// whatever this host's defaults are, so that a layer can be read without the kernel's help.
var fixedOptions = [][2]string{{"index", "off"}, {"redirect_dir", "off"}, {"metacopy", "off"}}

// oneByOne names each layer in a call of its own, as Linux 6.7 and later let it.
func oneByOne(lower []string, upper, work string, attrs int) (*os.File, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsopen overlay: %w", err)
	}
	defer unix.Close(fs)
	var options [][2]string
	for _, l := range lower {
		options = append(options, [2]string{"lowerdir+", l})
	}
	if upper != "" {
		options = append(options, [2]string{"upperdir", upper}, [2]string{"workdir", work})
	} else {
		attrs |= unix.MOUNT_ATTR_RDONLY
	}
	for _, o := range append(options, fixedOptions...) {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return nil, fmt.Errorf("overlay option %s=%s: %w", o[0], o[1], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("create overlay: %w", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return nil, fmt.Errorf("fsmount overlay: %w", err)
	}
	return os.NewFile(uintptr(fd), "overlay"), nil
}

// atOnce names all layers in the one page that mount(2) takes: as descriptors, by their
// numbers, from the directory that has them. The mount is made in a mount namespace of a thread,
// and a copy of it taken from there; the thread, the namespace and the mount end together.
func atOnce(lower []string, upper, work string, attrs int) (*os.File, error) {
	fd, err := -1, error(nil)
	onLastThread(func() { fd, err = mountHere(lower, upper, work, attrs) })
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "overlay"), nil
}

// onLastThread runs fn on a thread that ends with it.
func onLastThread(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			fn()
			return // locked: that ends the thread
		}
		// The first thread cannot end, and all of /proc/self shows it. Held here, it is not the
		// next one again.
		defer runtime.UnlockOSThread()
		onLastThread(fn)
	}()
	<-done
}

func mountHere(lower []string, upper, work string, attrs int) (int, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return -1, fmt.Errorf("overlay: unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return -1, fmt.Errorf("overlay: %w", err)
	}
	// From here on: layers have to be of the mount namespace that the overlay is made in.
	names := make([]string, 0, len(lower)+2)
	for _, path := range append([]string{upper, work}, lower...) {
		if path == "" {
			names = append(names, "")
			continue
		}
		fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, fmt.Errorf("overlay on %s: %w", path, err)
		}
		defer unix.Close(fd)
		names = append(names, strconv.Itoa(fd))
	}
	options := "lowerdir=" + strings.Join(names[2:], ":")
	var flags uintptr = unix.MS_RDONLY
	if upper != "" {
		options, flags = options+",upperdir="+names[0]+",workdir="+names[1], 0
	}
	for _, o := range fixedOptions {
		options += "," + o[0] + "=" + o[1]
	}
	if err := unix.Chdir("/proc/thread-self/fd"); err != nil {
		return -1, fmt.Errorf("overlay: %w", err)
	}
	// Any directory will do to be mounted on, seen from this thread alone.
	const place = "/proc"
	if err := unix.Mount("overlay", place, "overlay", flags, options); err != nil {
		return -1, fmt.Errorf("overlay of %d layers: mount: %w", len(lower), err)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, place, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("overlay: open_tree: %w", err)
	}
	if err := unix.MountSetattr(
		fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: uint64(attrs)},
	); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("overlay: mount_setattr: %w", err)
	}
	return fd, nil
}
