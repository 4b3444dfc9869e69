package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestStartHooks: startContainer hooks run also for a container that is created and started in one
// go, before its process; if one fails the process is never executed.
func TestStartHooks(t *testing.T) {
	root := rootfs(t)
	spec := config(root, "test -e /hooked && echo hooked; touch /ran")
	spec.Hooks = &specs.Hooks{
		StartContainer: []specs.Hook{{Path: "/bin/touch", Args: []string{"touch", "/hooked"}}},
	}
	if got, err := run(t, spec); err != nil || got.out != "hooked\n" {
		t.Errorf("got %q, %v", got.out, err)
	}
	os.Remove(filepath.Join(root, "ran"))
	spec.Hooks.StartContainer = append(spec.Hooks.StartContainer, specs.Hook{Path: "/bin/false"})
	const want = "hooks.startContainer[1] (/bin/false): error running startContainer hook #1: " +
		"exit status 1"
	if _, err := run(t, spec); err == nil || err.Error() != want {
		t.Errorf("run: got %v, want %s", err, want)
	}
	rt, c, p := create(t, spec, nil)
	if err := c.Start(t.Context()); err == nil || err.Error() != want {
		t.Errorf("start: got %v, want %s", err, want)
	}
	if ws, err := p.Wait(); err != nil || ws.Signal() != unix.SIGKILL {
		t.Errorf("its process: %v, %v", ws, err)
	}
	if _, err := os.Stat(filepath.Join(root, "ran")); err == nil {
		t.Error("the process was executed")
	}
	if _, err := rt.Load(c.ID()); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("the container is still there: %v", err)
	}
}

// TestLateHooks: a poststop hook that fails is a warning and does not keep the next one from
// running; a poststart hook that fails stops the container.
func TestLateHooks(t *testing.T) {
	root := rootfs(t)
	mark := filepath.Join(t.TempDir(), "mark")
	spec := config(root, "sleep 100")
	spec.Hooks = &specs.Hooks{
		Poststart: []specs.Hook{{Path: "/bin/false"}},
		Poststop: []specs.Hook{
			{Path: "/bin/false"}, {Path: "/bin/touch", Args: []string{"touch", mark}},
		},
	}
	rt, c, p := create(t, spec, nil)
	var said []string
	rt.Log = func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	if err := c.Start(t.Context()); err == nil ||
		!strings.HasPrefix(err.Error(), "hooks.poststart[0] (/bin/false): ") {
		t.Errorf("start: %v", err)
	}
	if ws, err := p.Wait(); err != nil || ws.Signal() != unix.SIGKILL {
		t.Errorf("its process: %v, %v", ws, err)
	}
	if _, err := rt.Load(c.ID()); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("the container is still there: %v", err)
	}
	if len(said) != 1 || !strings.HasPrefix(said[0], "hooks.poststop[0] (/bin/false): ") {
		t.Errorf("warnings: %q", said)
	}
	if _, err := os.Stat(mark); err != nil {
		t.Errorf("the second hook: %v", err)
	}
}

// TestEndCreated: a signal that asks a program to end ends a container that is not started yet,
// though the first process of a PID namespace ignores it.
func TestEndCreated(t *testing.T) {
	root := rootfs(t)
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGUSR1, 0} {
		_, c, p := create(t, config(root, "true"), nil)
		if err := c.Kill(t.Context(), sig, false); err != nil {
			t.Fatal(err)
		}
		if sig == unix.SIGUSR1 || sig == 0 {
			if got, err := c.Status(); err != nil || got != specs.StateCreated {
				t.Errorf("after %v: %s, %v", sig, got, err)
			}
			continue
		}
		if ws, err := p.Wait(); err != nil || !ws.Signaled() {
			t.Errorf("after %v: %v, %v", sig, ws, err)
		}
		if got, err := c.Status(); err != nil || got != specs.StateStopped {
			t.Errorf("after %v: %s, %v", sig, got, err)
		}
	}
}

// TestEndCreatedByPidfd sends the signal to the process itself, as an engine does that has asked
// for its pidfd.
func TestEndCreatedByPidfd(t *testing.T) {
	root := rootfs(t)
	for _, reaper := range []bool{false, true} {
		_, c, p := create(t, config(root, "true"), nil, func(o *CreateOptions) {
			o.Reaper = reaper
		})
		for _, sig := range []unix.Signal{unix.SIGUSR1, unix.SIGTERM} {
			if err := unix.PidfdSendSignal(p.PidFD, sig, nil, 0); err != nil {
				t.Fatal(err)
			}
		}
		if ws, err := p.Wait(); err != nil || ws.ExitStatus() != 128+int(unix.SIGTERM) {
			t.Errorf("reaper %v: wait status %#x, %v", reaper, ws, err)
		}
		if got, err := c.Status(); err != nil || got != specs.StateStopped {
			t.Errorf("reaper %v: %s, %v", reaper, got, err)
		}
		if err := c.Start(t.Context()); err == nil {
			t.Errorf("reaper %v: started", reaper)
		}
	}
}

// TestStartHookConfined: a startContainer hook has the environment, the identity, the capabilities
// and the filter of the container's process, since its program may be the image's.
func TestStartHookConfined(t *testing.T) {
	root := rootfs(t)
	hook := func(script string, edit func(*specs.Spec)) error {
		spec := config(root, "true")
		spec.Process.Env = append(spec.Process.Env, "ONE=two")
		spec.Process.User = specs.User{UID: 7, GID: 8}
		spec.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{
			Path: "/bin/sh", Args: []string{"ash", "-ec", script},
		}}}
		edit(spec)
		_, err := run(t, spec)
		return err
	}
	nothing := func(*specs.Spec) {}
	for _, c := range []struct {
		script string
		edit   func(*specs.Spec)
		want   string // in the error
	}{
		{`test $ONE = two; test $HOME = /; test $0 = ash; exit 3`, nothing, "exit status 3"},
		{`test $ONE = two; test -n $HOME; test $(id -u):$(id -g) = 7:8`, nothing, ""},
		{`grep -q '"status":"created"'`, nothing, ""},
		{`grep -q 'CapEff:.*0000000000000000' /proc/self/status`, nothing, ""},
		{`test -z "$ONE"; test $TWO = three`, func(s *specs.Spec) {
			s.Hooks.StartContainer[0].Env = []string{"PATH=/bin", "TWO=three"}
		}, ""},
		{`mkdir /tmp/x`, func(s *specs.Spec) {
			s.Process.User = specs.User{}
			s.Linux.Seccomp = &specs.LinuxSeccomp{
				DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{
					Names: []string{"mkdir", "mkdirat"}, Action: specs.ActKillProcess,
				}},
			}
		}, "error running startContainer hook #0: ended by bad system call"},
		{`sleep 100`, func(s *specs.Spec) {
			second := 1
			s.Hooks.StartContainer[0].Timeout = &second
		}, "no end within 1 s"},
		{`true`, func(s *specs.Spec) { s.Hooks.StartContainer[0].Path = "/none" },
			"hooks.startContainer[0] (/none): error running startContainer hook #0: hooks (/none): "},
		{`true`, func(s *specs.Spec) { s.Hooks.StartContainer[0].Path = "sh" }, "not absolute"},
	} {
		err := hook(c.script, c.edit)
		if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.script, err, c.want)
		}
	}
}
