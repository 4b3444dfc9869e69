package lxc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/internal/early"
)

// namespace is a kind of namespaces: LXC's word, its name below /proc/PID/ns, and that of clone(2).
type namespace struct {
	word, file string
	kind       int
}

// joined are the namespaces that JoinOptions may name, by LXC's words, in the order in which they
// are joined: with the mount namespace the root changes.
var joined = []namespace{
	{"USER", "user", unix.CLONE_NEWUSER},
	{"NETWORK", "net", unix.CLONE_NEWNET},
	{"UTSNAME", "uts", unix.CLONE_NEWUTS},
	{"IPC", "ipc", unix.CLONE_NEWIPC},
	{"CGROUP", "cgroup", unix.CLONE_NEWCGROUP},
	{"PID", "pid", unix.CLONE_NEWPID},
	{"MOUNT", "mnt", unix.CLONE_NEWNS},
}

// JoinOptions say what runs in some of a container's namespaces.
type JoinOptions struct {
	// Namespaces are some of MOUNT, PID, UTSNAME, IPC, USER, NETWORK and CGROUP.
	Namespaces []string
	Command    []string // nil: /bin/sh
	Env        []string
	Cwd        string // where it does not exist: /
	UID, GID   *uint32
	// Files are the standard streams.
	Files [3]*os.File
}

// Join executes a command in some of the container's namespaces, with the caller's privileges, in
// the caller's control groups, and returns its exit status. An unknown namespace is
// errdefs.ErrInvalidArgument; so is a user namespace that is not the caller's, which a process with
// several threads cannot join (setns(2)). If ctx ends, the command is killed.
func (c *Container) Join(ctx context.Context, o *JoinOptions) (int, error) {
	for _, word := range o.Namespaces {
		if !slices.ContainsFunc(joined, func(n namespace) bool { return n.word == word }) {
			return 1, fmt.Errorf(
				"namespace %q: want some of MOUNT, PID, UTSNAME, IPC, USER, NETWORK, CGROUP: %w",
				word, errdefs.ErrInvalidArgument,
			)
		}
	}
	r, err := c.running()
	if err != nil {
		return 1, err
	}
	type result struct {
		cmd *exec.Cmd
		err error
	}
	started := make(chan result)
	go func() {
		// The thread ends with the goroutine: it is never that of another again.
		runtime.LockOSThread()
		cmd, err := join(ctx, r.Pid, o)
		started <- result{cmd, err}
	}()
	s := <-started
	if s.err != nil {
		return 1, s.err
	}
	err = s.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 1, err
	}
	status := s.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}

// join moves the calling thread into namespaces of a process and starts a command from there.
func join(ctx context.Context, pid int, o *JoinOptions) (*exec.Cmd, error) {
	// All are opened before one is joined: /proc may be another afterwards.
	var files []*os.File
	var kinds []int
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	for _, n := range joined {
		if !slices.Contains(o.Namespaces, n.word) {
			continue
		}
		name := fmt.Sprintf("/proc/%d/ns/%s", pid, n.file)
		theirs, err := os.Readlink(name)
		if err != nil {
			return nil, err
		}
		if own, err := os.Readlink("/proc/thread-self/ns/" + n.file); err != nil || own == theirs {
			if err != nil {
				return nil, err
			}
			continue
		}
		if n.kind == unix.CLONE_NEWUSER {
			return nil, fmt.Errorf(
				"namespace USER: the container's own is joined with all others only: %w",
				errdefs.ErrInvalidArgument,
			)
		}
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		files, kinds = append(files, f), append(kinds, n.kind)
	}
	// A mount namespace is joined by a thread that shares its root with no other.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return nil, fmt.Errorf("unshare: %w", err)
	}
	for i, f := range files {
		if err := unix.Setns(int(f.Fd()), kinds[i]); err != nil {
			return nil, fmt.Errorf("setns %s: %w", f.Name(), err)
		}
	}
	command := o.Command
	if len(command) == 0 {
		command = []string{"/bin/sh"}
	}
	// Programs and directories are looked for where the thread is now.
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env, cmd.Dir = o.Env, "/"
	if st, err := os.Stat(o.Cwd); err == nil && st.IsDir() {
		cmd.Dir = o.Cwd
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = o.Files[0], o.Files[1], o.Files[2]
	if o.UID != nil || o.GID != nil {
		cred := &syscall.Credential{}
		if o.UID != nil {
			cred.Uid = *o.UID
		}
		if o.GID != nil {
			cred.Gid = *o.GID
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	}
	defer early.Lock()()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("execute %s: %w", strings.Join(command, " "), err)
	}
	return cmd, nil
}
