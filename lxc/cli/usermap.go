package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"strake/internal/early"
)

// startMapped starts lxc-usernsexec again in a user namespace of its own, whose maps newuidmap(1)
// and newgidmap(1) write: an ordinary user may not. There insideMapped goes on.
func (c *call) startMapped(m *idMaps, uid, gid uint32, words []string) (_ *exec.Cmd, err error) {
	args := append(
		c.Program[1:len(c.Program):len(c.Program)], c.verb.name, "--inside",
		"--uid="+strconv.FormatUint(uint64(uid), 10), "--gid="+strconv.FormatUint(uint64(gid), 10),
		"--",
	)
	cmd := exec.Command("/proc/self/exe", append(args, words...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.In, c.Out, c.Err
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER,
		// Without a map it is nobody there, whom execve(2) leaves no other capabilities.
		AmbientCaps: []uintptr{unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_SYS_ADMIN},
	}
	ready, done, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer done.Close()
	cmd.ExtraFiles = []*os.File{ready}
	err = startProcess(cmd)
	ready.Close()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, cmd.Process.Kill(), ignore(cmd.Wait()))
		}
	}()
	for _, w := range []struct {
		program string
		entries []syscall.SysProcIDMap
	}{{"newuidmap", m.uid}, {"newgidmap", m.gid}} {
		if len(w.entries) == 0 {
			continue
		}
		args := []string{strconv.Itoa(cmd.Process.Pid)}
		for _, e := range w.entries {
			args = append(
				args, strconv.Itoa(e.ContainerID), strconv.Itoa(e.HostID), strconv.Itoa(e.Size),
			)
		}
		unlock := early.Lock()
		out, err := exec.Command(w.program, args...).CombinedOutput()
		unlock()
		if err != nil {
			return nil, fmt.Errorf("%s: %w %s", w.program, err, strings.TrimSpace(string(out)))
		}
	}
	_, err = done.Write([]byte{1})
	return cmd, err
}

// insideMapped waits for the maps, becomes the user and then the command.
func (c *call) insideMapped(uid, gid uint32, words []string) error {
	ready := os.NewFile(3, "ready")
	var b [1]byte
	if _, err := io.ReadFull(ready, b[:]); err != nil {
		return errors.New("the process that has started this one has ended")
	}
	ready.Close()
	// newgidmap forbids setgroups(2) to users who could get rid of a group by it.
	if err := syscall.Setgroups(nil); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("setgroups: %w", err)
	}
	if err := syscall.Setgid(int(gid)); err != nil {
		return fmt.Errorf("become group %d: %w", gid, err)
	}
	if err := syscall.Setuid(int(uid)); err != nil {
		return fmt.Errorf("become user %d: %w", uid, err)
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make / a slave: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("ambient capabilities: %w", err)
	}
	program, err := exec.LookPath(words[0])
	if err != nil {
		return err
	}
	defer early.Lock()()
	return fmt.Errorf("execute %q: %w", program, syscall.Exec(program, words, os.Environ()))
}
