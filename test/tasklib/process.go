package main

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/container/cgroup"
	"strake/task"
	"strake/task/group"
)

func shell(script string) *specs.Process {
	return &specs.Process{
		Args: []string{"/bin/busybox", "sh", "-c", script}, Cwd: "/", Env: []string{"PATH=/bin"},
	}
}

// inRoot gives the task a root file system and namespaces of its own.
func inRoot(c *specs.Spec, root string) {
	c.Root, c.Hostname = &specs.Root{Path: root, Readonly: true}, "inside"
	c.Mounts = []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}}
	c.Linux = &specs.Linux{Namespaces: []specs.LinuxNamespace{
		{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.UTSNamespace},
		{Type: specs.IPCNamespace}, {Type: specs.NetworkNamespace},
	}}
}

// inGroup makes the task's control group. remove removes it with all that is in it.
func inGroup(ctx context.Context, s *task.Spec, path string) (remove func() error, err error) {
	h, err := cgroup.Detect("/sys/fs/cgroup")
	if err != nil {
		return nil, err
	}
	limit := int64(20)
	res := &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}
	s.Group, err = group.New(h, path, s.Owner).Create(ctx, "", s.ID, res)
	return func() error { return group.Remove(ctx, h, path) }, err
}

// execute runs a script as one more process of a task and returns what it has written.
func execute(ctx context.Context, t task.Task, s *task.Spec, script string) (string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	p, err := t.Exec(ctx, &task.Exec{
		ID: "another", Process: shell(script), Config: s.Config,
		Outputs: []task.Output{{Stdout: w, Stderr: w}},
	})
	w.Close()
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return "", err
	}
	_, err = task.Wait(ctx, p)
	return string(text), errors.Join(err, p.Delete(ctx))
}
