package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// idMaps are the maps of a user namespace.
type idMaps struct{ uid, gid []syscall.SysProcIDMap }

// add adds a map by lxc-usernsexec's word for it: u:0:100000:65536.
func (m *idMaps) add(spec string) error {
	f := strings.Split(spec, ":")
	wrong := fmt.Errorf("map %q: want u, g or b, and three numbers: u:INSIDE:OUTSIDE:COUNT", spec)
	if len(f) != 4 {
		return wrong
	}
	var n [3]int
	for i := range n {
		v, err := strconv.ParseUint(f[i+1], 10, 32)
		if err != nil {
			return wrong
		}
		n[i] = int(v)
	}
	entry := syscall.SysProcIDMap{ContainerID: n[0], HostID: n[1], Size: n[2]}
	if n[2] == 0 || f[0] != "u" && f[0] != "g" && f[0] != "b" {
		return wrong
	}
	if f[0] != "g" {
		m.uid = append(m.uid, entry)
	}
	if f[0] != "u" {
		m.gid = append(m.gid, entry)
	}
	return nil
}

// byDefault adds the first range that subuid(5) and subgid(5) give a user.
func (m *idMaps) byDefault(name string) error {
	for _, file := range []struct{ name, kind string }{{"/etc/subuid", "u"}, {"/etc/subgid", "g"}} {
		raw, err := os.ReadFile(file.name)
		if err != nil {
			return err
		}
		found := false
		for line := range strings.Lines(string(raw)) {
			f := strings.Split(strings.TrimSpace(line), ":")
			if len(f) == 3 && f[0] == name {
				if err := m.add(file.kind + ":0:" + f[1] + ":" + f[2]); err != nil {
					return fmt.Errorf("%s: %w", file.name, err)
				}
				found = true
				break
			}
		}
		if !found {
			return fmt.Errorf("%s gives %s no range: want -m", file.name, name)
		}
	}
	return nil
}

func usernsExec(f *pflag.FlagSet) action {
	specs := f.StringArrayP("map", "m", nil, "map IDs: {u|g|b}:INSIDE:OUTSIDE:COUNT")
	self := f.BoolP("self", "s", false, "map the caller's own IDs to themselves, too")
	uid := f.Uint32P("uid", "u", 0, "user ID to become")
	gid := f.Uint32P("gid", "g", 0, "group ID to become")
	inside := f.Bool("inside", false, "used by lxc-usernsexec itself")
	f.MarkHidden("inside")
	return func(_ context.Context, c *call) (int, error) {
		if *inside {
			return 1, c.insideMapped(*uid, *gid, c.args)
		}
		var m idMaps
		for _, spec := range *specs {
			if err := m.add(spec); err != nil {
				return 1, err
			}
		}
		if len(*specs) == 0 {
			me, err := user.Current()
			if err != nil {
				return 1, err
			}
			if err := m.byDefault(me.Username); err != nil {
				return 1, err
			}
		}
		if *self {
			m.uid = append(m.uid, syscall.SysProcIDMap{
				ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1,
			})
			m.gid = append(m.gid, syscall.SysProcIDMap{
				ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1,
			})
		}
		words := c.args
		if len(words) == 0 {
			words = []string{"/bin/sh"}
		}
		cmd, err := c.startUser(&m, *uid, *gid, words)
		if err != nil {
			return 1, err
		}
		if err := ignore(cmd.Wait()); err != nil {
			return 1, err
		}
		if st, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && st.Signaled() {
			return 1, errors.New("the command was ended by signal " + st.Signal().String())
		}
		return cmd.ProcessState.ExitCode(), nil
	}
}

// startUser starts a command in a user namespace of its own.
func (c *call) startUser(m *idMaps, uid, gid uint32, words []string) (*exec.Cmd, error) {
	if os.Geteuid() != 0 {
		return c.startMapped(m, uid, gid, words)
	}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.In, c.Out, c.Err
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER, Unshareflags: unix.CLONE_NEWNS,
		UidMappings: m.uid, GidMappings: m.gid, GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{Uid: uid, Gid: gid},
	}
	return cmd, startProcess(cmd)
}
