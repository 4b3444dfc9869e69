package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"strake/internal/early"
)

// unshareWords are the namespaces of lxc-unshare -s, by the manual page's and by the usual names.
var unshareWords = map[string]uintptr{
	"MOUNT": unix.CLONE_NEWNS, "MNT": unix.CLONE_NEWNS, "PID": unix.CLONE_NEWPID,
	"UTSNAME": unix.CLONE_NEWUTS, "UTS": unix.CLONE_NEWUTS, "IPC": unix.CLONE_NEWIPC,
	"USER": unix.CLONE_NEWUSER, "NETWORK": unix.CLONE_NEWNET, "NET": unix.CLONE_NEWNET,
	"CGROUP": unix.CLONE_NEWCGROUP,
}

// unsharer is one run of lxc-unshare.
type unsharer struct {
	*call
	flags      uintptr
	uid        int // -1: none was given
	hostname   string
	interfaces []string
	daemon     bool
	remount    bool
}

func unshare(f *pflag.FlagSet) action {
	u := &unsharer{}
	words := f.StringP(
		"namespaces", "s", "",
		"namespaces, separated by |: MOUNT, PID, UTSNAME, IPC, USER, NETWORK, CGROUP",
	)
	id := f.StringP("user", "u", "", "user ID or name to become")
	f.StringVarP(&u.hostname, "hostname", "H", "", "set the host name, with UTSNAME")
	f.StringArrayVarP(&u.interfaces, "ifname", "i", nil, "move an interface there, with NETWORK")
	f.BoolVarP(&u.daemon, "daemon", "d", false, "do not wait until it has ended")
	f.BoolVarP(
		&u.remount, "remount", "M", false, "mount /proc, /dev/shm and /dev/mqueue, with MOUNT",
	)
	inside := f.Bool("inside", false, "used by lxc-unshare itself")
	f.MarkHidden("inside")
	return func(_ context.Context, c *call) (int, error) {
		u.call, u.uid = c, -1
		if len(c.args) == 0 {
			return 1, errors.New("no command to execute\nTry lxc-unshare --help")
		}
		for word := range strings.SplitSeq(*words, "|") {
			flag, ok := unshareWords[strings.ToUpper(strings.TrimSpace(word))]
			if !ok {
				return 1, fmt.Errorf(
					"namespace %q: want MOUNT, PID, UTSNAME, IPC, USER, NETWORK or CGROUP", word,
				)
			}
			u.flags |= flag
		}
		if *id != "" {
			var err error
			if u.uid, err = userID(*id); err != nil {
				return 1, err
			}
		}
		switch {
		case len(u.interfaces) > 0 && u.flags&unix.CLONE_NEWNET == 0:
			return 1, errors.New("-i needs -s NETWORK")
		case u.hostname != "" && u.flags&unix.CLONE_NEWUTS == 0:
			return 1, errors.New("-H needs -s UTSNAME")
		case u.remount && u.flags&unix.CLONE_NEWNS == 0:
			return 1, errors.New("-M needs -s MOUNT")
		case *inside:
			return 1, u.inside()
		}
		return u.outside()
	}
}

// userID is the number of a user that is given by number or name.
func userID(s string) (int, error) {
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		return int(n), nil
	}
	known, err := user.Lookup(s)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(known.Uid)
}

// outside starts this program in the new namespaces, where inside goes on.
func (u *unsharer) outside() (int, error) {
	args := []string{u.verb.name, "--inside"}
	u.set.Visit(func(f *pflag.Flag) {
		if f.Name != "ifname" && f.Name != "daemon" {
			args = append(args, "--"+f.Name+"="+f.Value.String())
		}
	})
	args = append(append(args, "--"), u.args...)
	args = append(u.Program[1:len(u.Program):len(u.Program)], args...)
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = u.In, u.Out, u.Err
	// A mount namespace is made after the maps of a user namespace, and its mounts private.
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   u.flags &^ unix.CLONE_NEWNS,
		Unshareflags: u.flags & unix.CLONE_NEWNS,
	}
	if u.flags&unix.CLONE_NEWUSER != 0 && u.uid >= 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{
			{ContainerID: u.uid, HostID: os.Getuid(), Size: 1},
		}
	}
	ready, done, err := os.Pipe()
	if err != nil {
		return 1, err
	}
	defer done.Close()
	cmd.ExtraFiles = []*os.File{ready}
	err = startProcess(cmd)
	ready.Close()
	if err != nil {
		return 1, err
	}
	for _, name := range u.interfaces {
		l, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetNsPid(l, cmd.Process.Pid)
		}
		if err != nil {
			return 1, errors.Join(
				fmt.Errorf("move interface %q: %w", name, err), cmd.Process.Kill(),
				ignore(cmd.Wait()),
			)
		}
	}
	if _, err := done.Write([]byte{1}); err != nil {
		return 1, errors.Join(err, ignore(cmd.Wait()))
	}
	if u.daemon {
		return 0, nil
	}
	if ignore(cmd.Wait()) != nil || cmd.ProcessState.ExitCode() != 0 {
		return 1, nil // lxc-unshare(1) tells success from failure only.
	}
	return 0, nil
}

// startProcess starts a process while no other of this program inherits what it must not.
func startProcess(cmd *exec.Cmd) error {
	defer early.Lock()()
	return cmd.Start()
}

// ignore is no error for a program that has ended with a status of its own.
func ignore(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}

// inside prepares the namespaces that this process is in, and becomes the command.
func (u *unsharer) inside() error {
	ready := os.NewFile(3, "ready")
	var b [1]byte
	if _, err := io.ReadFull(ready, b[:]); err != nil {
		return errors.New("the process that has started this one has ended")
	}
	ready.Close()
	if u.remount {
		for _, m := range []struct{ kind, target string }{
			{"proc", "/proc"}, {"tmpfs", "/dev/shm"}, {"mqueue", "/dev/mqueue"},
		} {
			if err := unix.Mount(m.kind, m.target, m.kind, 0, ""); err != nil && m.kind == "proc" {
				return fmt.Errorf("mount %s: %w", m.target, err)
			}
		}
	}
	if u.hostname != "" {
		if err := unix.Sethostname([]byte(u.hostname)); err != nil {
			return fmt.Errorf("host name %q: %w", u.hostname, err)
		}
	}
	if u.uid >= 0 {
		if err := syscall.Setuid(u.uid); err != nil {
			return fmt.Errorf("become user %d: %w", u.uid, err)
		}
	}
	program, err := exec.LookPath(u.args[0])
	if err != nil {
		return err
	}
	defer early.Lock()()
	return fmt.Errorf("execute %q: %w", program, syscall.Exec(program, u.args, os.Environ()))
}
