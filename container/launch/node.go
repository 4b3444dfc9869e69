package launch

import (
	"strconv"

	"golang.org/x/sys/unix"

	"strake/container/plan"
)

// nodeMaker makes device nodes on a filesystem of its own that is attached nowhere. The kernel
// refuses it to callers without CAP_MKNOD, and mounts of single nodes of it before Linux 6.15.
type nodeMaker struct {
	fs    int // if count is not 0
	count int
	err   error
}

// make makes a node and returns a mount of it.
func (n *nodeMaker) make(node *plan.Node) (int, error) {
	if n.err == nil && n.count == 0 {
		n.fs, n.err = mountNodes()
	}
	if n.err != nil {
		return -1, n.err
	}
	name := strconv.Itoa(n.count)
	n.count++
	if err := unix.Mknodat(n.fs, name, node.Mode, int(node.Dev)); err != nil {
		return -1, err
	}
	if err := unix.Fchownat(n.fs, name, int(node.UID), int(node.GID), 0); err != nil {
		return -1, err
	}
	// mknod(2) has obeyed the caller's umask.
	if err := unix.Fchmodat(n.fs, name, node.Mode&0o7777, 0); err != nil {
		return -1, err
	}
	return unix.OpenTree(n.fs, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
}

// mountNodes makes the filesystem (fsmount(2)).
func mountNodes() (int, error) {
	ctx, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(ctx)
	if err := unix.FsconfigSetString(ctx, "mode", "0755"); err != nil {
		return -1, err
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, err
	}
	return unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, 0)
}

func (n *nodeMaker) close() {
	if n.count > 0 {
		unix.Close(n.fs)
	}
}
