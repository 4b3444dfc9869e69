package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/container"
	"strake/container/ocijson"
)

// stringList is an option that may be given several times.
type stringList []string

func (l *stringList) String() string     { return strings.Join(*l, ",") }
func (l *stringList) Set(s string) error { *l = append(*l, s); return nil }

// execFlags are the options of exec.
type execFlags struct {
	consoleSocket, pidfdSocket, cwd, user, process, pidFile, label, apparmor string
	cgroup                                                                   stringList
	env, caps, groups                                                        stringList
	tty, detach, noNewPrivs, ignorePaused                                    bool
	preserveFDs                                                              int
}

func (e *execFlags) define(fs *flag.FlagSet) {
	both := func(names string, define func(name string)) {
		for _, n := range strings.Split(names, ",") {
			define(n)
		}
	}
	fs.StringVar(
		&e.consoleSocket, "console-socket", "",
		"unix `socket` that receives the master of the terminal",
	)
	fs.StringVar(
		&e.pidfdSocket, "pidfd-socket", "", "unix `socket` that receives a pidfd of the process",
	)
	fs.StringVar(&e.cwd, "cwd", "", "working `directory`")
	both("env,e", func(n string) { fs.Var(&e.env, n, "set an environment `variable`, NAME=value") })
	both("tty,t", func(n string) { fs.BoolVar(&e.tty, n, false, "give the process a terminal") })
	both("user,u", func(n string) { fs.StringVar(&e.user, n, "", "`UID[:GID]`") })
	both("additional-gids,g", func(n string) { fs.Var(&e.groups, n, "additional group `ID`") })
	both("process,p", func(n string) {
		fs.StringVar(&e.process, n, "", "`file` with the process as JSON")
	})
	both("detach,d", func(n string) {
		fs.BoolVar(&e.detach, n, false, "do not wait for the process")
	})
	fs.StringVar(&e.pidFile, "pid-file", "", "`file` that receives the process ID")
	fs.StringVar(&e.label, "process-label", "", "SELinux `label`")
	fs.StringVar(&e.apparmor, "apparmor", "", "AppArmor `profile`")
	fs.BoolVar(&e.noNewPrivs, "no-new-privs", false, "set no_new_privs")
	both("cap,c", func(n string) { fs.Var(&e.caps, n, "add a `capability`") })
	fs.IntVar(&e.preserveFDs, "preserve-fds", 0, "pass `N` more descriptors, from 3 on")
	fs.Var(
		&e.cgroup, "cgroup",
		"`group` below the container's, to run in; or CONTROLLER[,CONTROLLER]:GROUP, several times",
	)
	fs.BoolVar(&e.ignorePaused, "ignore-paused", false, "allow exec in a paused container")
}

// build makes the process from the container's own, a file, and the options.
func (e *execFlags) build(c *container.Container, args []string) (*specs.Process, error) {
	if e.process != "" {
		raw, err := os.ReadFile(e.process)
		if err != nil {
			return nil, fmt.Errorf("--process: %w", err)
		}
		p := new(specs.Process)
		if err := ocijson.Decode(raw, p); err != nil {
			return nil, fmt.Errorf("--process %s: %w", e.process, err)
		}
		return p, nil
	}
	if c.Spec() == nil || c.Spec().Process == nil {
		return nil, errors.New(
			"the container's configuration has no process to derive from; use --process",
		)
	}
	p := *c.Spec().Process
	p.Args = args
	p.Terminal = e.tty
	p.ConsoleSize = nil
	p.Env = append(append([]string(nil), p.Env...), e.env...)
	if e.cwd != "" {
		p.Cwd = e.cwd
	}
	if e.apparmor != "" {
		p.ApparmorProfile = e.apparmor
	}
	if e.label != "" {
		p.SelinuxLabel = e.label
	}
	if e.noNewPrivs {
		p.NoNewPrivileges = true
	}
	if len(e.caps) > 0 {
		caps := specs.LinuxCapabilities{}
		if p.Capabilities != nil {
			caps = *p.Capabilities
		}
		// As runc: what is added can be used by the process, and is not inherited
		// (CVE-2022-29162) unless the configuration has an inheritable set.
		add := func(set []string) []string {
			return append(append([]string(nil), set...), e.caps...)
		}
		caps.Bounding, caps.Effective, caps.Permitted = add(caps.Bounding), add(
			caps.Effective,
		), add(caps.Permitted)
		if caps.Inheritable != nil {
			caps.Ambient = add(caps.Ambient)
		}
		p.Capabilities = &caps
	}
	if e.user != "" {
		u, err := parseUser(e.user)
		if err != nil {
			return nil, err
		}
		p.User.UID = u.UID
		if strings.Contains(e.user, ":") {
			p.User.GID = u.GID
		}
	}
	for _, g := range e.groups {
		n, err := parseNumber("--additional-gids", g)
		if err != nil {
			return nil, err
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, n)
	}
	return &p, nil
}

// subgroups takes the values of --cgroup: one GROUP for all controllers, or several as
// CONTROLLER[,CONTROLLER]:GROUP (runc-exec(8)).
func subgroups(list []string) (map[string]string, error) {
	groups := make(map[string]string, len(list))
	for _, text := range list {
		names, group, ok := strings.Cut(text, ":")
		if !ok {
			if len(list) > 1 {
				return nil, fmt.Errorf("--cgroup %q: of several, each wants a controller", text)
			}
			return map[string]string{"": text}, nil
		}
		for name := range strings.SplitSeq(names, ",") {
			if _, ok := groups[name]; ok || name == "" {
				return nil, fmt.Errorf(
					"--cgroup %q: controller %q is empty or given twice", text, name,
				)
			}
			if group == "" {
				return nil, fmt.Errorf("--cgroup %q: the group is missing", text)
			}
			groups[name] = group
		}
	}
	return groups, nil
}

// parseUser takes UID or UID:GID as plain decimal numbers and nothing else (CVE-2026-30892).
func parseUser(s string) (u specs.User, err error) {
	uid, gid, both := strings.Cut(s, ":")
	if u.UID, err = parseNumber("--user", uid); err != nil {
		return u, err
	}
	if both {
		u.GID, err = parseNumber("--user", gid)
	}
	return u, err
}

func parseNumber(option, s string) (uint32, error) {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("%s %q: want a decimal number", option, s)
		}
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == math.MaxUint32 {
		return 0, fmt.Errorf("%s %q: want a decimal number below 4294967295", option, s)
	}
	return uint32(n), nil
}

func (a *app) exec(ctx context.Context, fs *flag.FlagSet, args []string) (int, error) {
	var e execFlags
	e.define(fs)
	if err := fs.Parse(args); err != nil {
		return 1, err
	}
	if fs.NArg() < 1 || fs.NArg() < 2 && e.process == "" {
		return 1, errors.New("exec: want the container's ID and a command, or --process")
	}
	c, err := a.rt.Load(fs.Arg(0))
	if err != nil {
		return 255, err
	}
	proc, err := e.build(c, fs.Args()[1:])
	if err != nil {
		return 255, err
	}
	if proc.Terminal && e.detach && e.consoleSocket == "" {
		return 255, errors.New("exec: a detached terminal needs --console-socket")
	}
	groups, err := subgroups(e.cgroup)
	if err != nil {
		return 255, err
	}
	opt := container.ExecOptions{
		Process: proc, PreserveFDs: e.preserveFDs, IgnorePaused: e.ignorePaused,
		Cgroups: groups, Log: a.warn,
	}
	var fg foreground
	opt.Terminal, opt.PlainTerminal = fg.terminal, e.consoleSocket == ""
	if e.consoleSocket != "" {
		opt.Terminal = (&createFlags{consoleSocket: e.consoleSocket}).passTerminal
	}
	if !e.detach {
		if err := fg.begin(); err != nil {
			return 1, err
		}
		defer fg.end()
	}
	p, err := c.Exec(ctx, opt)
	if err != nil {
		return 255, err
	}
	defer p.Close()
	if err := started(e.pidFile, e.pidfdSocket, p); err != nil {
		return 255, err
	}
	if e.detach {
		return 0, nil
	}
	return fg.wait(p)
}
