package program

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

type flagName struct {
	bits uint64
	name string
}

var nsFlags = []flagName{
	{unix.CLONE_NEWUSER, "user"}, {unix.CLONE_NEWPID, "pid"}, {unix.CLONE_NEWNET, "network"},
	{unix.CLONE_NEWNS, "mount"},
	{unix.CLONE_NEWIPC, "ipc"}, {unix.CLONE_NEWUTS, "uts"}, {unix.CLONE_NEWCGROUP, "cgroup"},
	{unix.CLONE_NEWTIME, "time"},
}

var attrFlags = []flagName{
	{unix.MOUNT_ATTR_RDONLY, "ro"}, {unix.MOUNT_ATTR_NOSUID, "nosuid"},
	{unix.MOUNT_ATTR_NODEV, "nodev"}, {unix.MOUNT_ATTR_NOEXEC, "noexec"},
	{unix.MOUNT_ATTR__ATIME, "atime"}, {unix.MOUNT_ATTR_NOATIME, "noatime"},
	{unix.MOUNT_ATTR_STRICTATIME, "strictatime"},
	{unix.MOUNT_ATTR_NODIRATIME, "nodiratime"}, {unix.MOUNT_ATTR_IDMAP, "idmap"},
	{unix.MOUNT_ATTR_NOSYMFOLLOW, "nosymfollow"},
}

var propagationFlags = []flagName{
	{unix.MS_PRIVATE, "private"}, {unix.MS_SLAVE, "slave"}, {unix.MS_SHARED, "shared"},
	{unix.MS_UNBINDABLE, "unbindable"},
}

var openFlags = []flagName{
	{unix.O_PATH, "O_PATH"}, {unix.O_DIRECTORY, "O_DIRECTORY"}, {unix.O_NOFOLLOW, "O_NOFOLLOW"},
	{unix.O_CLOEXEC, "O_CLOEXEC"},
	{unix.O_RDWR, "O_RDWR"}, {unix.O_WRONLY, "O_WRONLY"}, {unix.O_NOCTTY, "O_NOCTTY"},
	{unix.O_CREAT, "O_CREAT"}, {unix.O_EXCL, "O_EXCL"},
}

var resolveFlags = []flagName{
	{unix.RESOLVE_IN_ROOT, "in-root"}, {unix.RESOLVE_BENEATH, "beneath"},
	{unix.RESOLVE_NO_MAGICLINKS, "no-magiclinks"},
	{unix.RESOLVE_NO_SYMLINKS, "no-symlinks"}, {unix.RESOLVE_NO_XDEV, "no-xdev"},
}

func flagText(table []flagName, v uint64) string {
	var parts []string
	for _, f := range table {
		if v&f.bits == f.bits {
			parts = append(parts, f.name)
			v &^= f.bits
		}
	}
	if v != 0 || len(parts) == 0 {
		parts = append(parts, fmt.Sprintf("%#x", v))
	}
	return strings.Join(parts, "|")
}

// OpenHowText describes a struct open_how (openat2(2)).
func OpenHowText(flags, resolve uint64) string {
	return "{" + flagText(openFlags, flags) + " " + flagText(resolveFlags, resolve) + "}"
}

// MountAttrText describes a struct mount_attr (mount_setattr(2)).
func MountAttrText(set, clear, propagation uint64) string {
	var parts []string
	if set != 0 {
		parts = append(parts, "set "+flagText(attrFlags, set))
	}
	if clear != 0 {
		parts = append(parts, "clear "+flagText(attrFlags, clear))
	}
	if propagation != 0 {
		parts = append(parts, flagText(propagationFlags, propagation))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// fsconfigCommands are the values of enum fsconfig_command (linux/mount.h).
var fsconfigCommands = []string{
	"SET_FLAG", "SET_STRING", "SET_BINARY", "SET_PATH", "SET_PATH_EMPTY", "SET_FD", "CREATE",
	"RECONFIGURE", "CREATE_EXCL",
}

// argument prints argument k of a call, with the symbols that belong there.
func (p *printer) argument(call string, k int, a Arg) string {
	if a.Kind != Imm {
		return p.value(a)
	}
	v := a.Value
	switch call {
	case "fsconfig":
		if k == 1 && v < uint64(len(fsconfigCommands)) {
			return fsconfigCommands[v]
		}
	case "setns", "unshare":
		if flagAt := map[string]int{"setns": 1, "unshare": 0}[call]; k == flagAt {
			return flagText(nsFlags, v)
		}
	case "openat":
		if k == 2 {
			return flagText(openFlags, v)
		}
	case "fsmount":
		if k == 2 && v != 0 {
			return flagText(attrFlags, v)
		}
	case "mknodat":
		if k == 2 {
			return fmt.Sprintf("%#o", v)
		}
		if k == 3 {
			return fmt.Sprintf("%d:%d", unix.Major(v), unix.Minor(v))
		}
	case "mkdirat", "umask":
		if k == 2 || call == "umask" {
			return fmt.Sprintf("%#o", v)
		}
	}
	if v == ^uint64(99) && k == 0 {
		return "AT_FDCWD"
	}
	return p.value(a)
}
