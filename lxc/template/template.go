// Package template fills a container's root file system and completes its configuration: what LXC's
// template scripts do. Those scripts work too, by their path or as they are installed with LXC.
//
// Not for: the life of a container (package lxc).
//
// Tested by tables, and by package test with the program.
package template

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"strake/internal/early"
	"strake/internal/suggest"
)

// Target is a container that is being made.
type Target struct {
	Name string
	Dir  string // its directory, with its file config, to which lines may be added
	Root string // its root file system, an empty directory
	Args []string
	// Output receives what programs say; nil discards it.
	Output *os.File
}

// Make fills a target.
type Make func(context.Context, *Target) error

// scripts is where LXC installs its templates.
const scripts = "/usr/share/lxc/templates"

// own are the templates of this package.
var own = map[string]Make{"busybox": busybox, "debian": debian}

// Find returns the template of a name, nil for "" and "none": the packages own, an executable by
// its path, or one that is installed with LXC. An unknown one is errdefs.ErrNotFound.
func Find(name string) (Make, error) {
	if name == "" || name == "none" {
		return nil, nil
	}
	if m := own[name]; m != nil {
		return m, nil
	}
	file := filepath.Join(scripts, "lxc-"+name)
	if filepath.IsAbs(name) {
		file = name
	}
	if st, err := os.Stat(file); err != nil || st.Mode()&0o111 == 0 || st.IsDir() {
		known := Names()
		err := fmt.Errorf(
			"template %q: want the path of a program, none, or one of %s: %w", name,
			strings.Join(known, ", "), errdefs.ErrNotFound,
		)
		if near := suggest.Nearest(name, known); near != "" {
			err = fmt.Errorf("%w; did you mean %q?", err, near)
		}
		return nil, err
	}
	return func(ctx context.Context, t *Target) error {
		args := append(
			[]string{"--path=" + t.Dir, "--name=" + t.Name, "--rootfs=" + t.Root}, t.Args...,
		)
		return t.run(ctx, file, args...)
	}, nil
}

// Names lists the templates that Find knows by a name.
func Names() (names []string) {
	for n := range own {
		names = append(names, n)
	}
	installed, _ := filepath.Glob(filepath.Join(scripts, "lxc-*"))
	for _, f := range installed {
		names = append(names, strings.TrimPrefix(filepath.Base(f), "lxc-"))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// run executes a program.
func (t *Target) run(ctx context.Context, program string, args ...string) error {
	defer early.Lock()()
	cmd := exec.CommandContext(ctx, program, args...)
	if t.Output != nil {
		cmd.Stdout, cmd.Stderr = t.Output, t.Output
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(program), err)
	}
	return nil
}

// configure adds lines to the container's configuration.
func (t *Target) configure(lines string) error {
	f, err := os.OpenFile(filepath.Join(t.Dir, "config"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(lines)
	return errors.Join(err, f.Close())
}

// write makes a file in the root file system, with its directory.
func (t *Target) write(name, text string, mode os.FileMode) error {
	file := filepath.Join(t.Root, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text), mode)
}

// system is what the configuration of a whole system says beside its root and its name: terminals,
// the capabilities that belong to the host, the devices that it may use, and mounts.
const system = `
lxc.tty.dir = lxc
lxc.tty.max = 4
lxc.pty.max = 1024
lxc.cap.drop = mac_admin mac_override sys_time sys_module sys_rawio
lxc.mount.auto = cgroup:mixed proc:mixed sys:mixed
` + devices

const devices = `lxc.cgroup.devices.deny = a
lxc.cgroup.devices.allow = c *:* m
lxc.cgroup.devices.allow = b *:* m
lxc.cgroup.devices.allow = c 1:3 rwm
lxc.cgroup.devices.allow = c 1:5 rwm
lxc.cgroup.devices.allow = c 1:7 rwm
lxc.cgroup.devices.allow = c 1:8 rwm
lxc.cgroup.devices.allow = c 1:9 rwm
lxc.cgroup.devices.allow = c 5:0 rwm
lxc.cgroup.devices.allow = c 5:1 rwm
lxc.cgroup.devices.allow = c 5:2 rwm
lxc.cgroup.devices.allow = c 136:* rwm
lxc.cgroup.devices.allow = c 10:229 rwm
lxc.cgroup2.devices.deny = a
lxc.cgroup2.devices.allow = c *:* m
lxc.cgroup2.devices.allow = b *:* m
lxc.cgroup2.devices.allow = c 1:3 rwm
lxc.cgroup2.devices.allow = c 1:5 rwm
lxc.cgroup2.devices.allow = c 1:7 rwm
lxc.cgroup2.devices.allow = c 1:8 rwm
lxc.cgroup2.devices.allow = c 1:9 rwm
lxc.cgroup2.devices.allow = c 5:0 rwm
lxc.cgroup2.devices.allow = c 5:1 rwm
lxc.cgroup2.devices.allow = c 5:2 rwm
lxc.cgroup2.devices.allow = c 136:* rwm
lxc.cgroup2.devices.allow = c 10:229 rwm
`
