package lxc

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/internal/early"
	"strake/lxc/config"
	"strake/lxc/ocispec"
)

// hooks executes the hooks of a kind that run on the host, in order. The first that fails ends it.
func (c *Container) hooks(
	ctx context.Context, cfg *config.Config, kind string, at ocispec.Moment,
) error {
	if len(cfg.Hooks[kind]) == 0 {
		return nil
	}
	in := &ocispec.Input{
		Name: c.name, Config: cfg, ConfigFile: filepath.Join(c.dir, "config"),
		LXCPath: c.path.dir, Environ: os.Environ(),
	}
	// A root file system that is gone is none for the hooks after its end.
	in.Root, _ = rootDir(cfg)
	for _, script := range cfg.Hooks[kind] {
		args, env := ocispec.HookCall(in, kind, script, at)
		if out, err := runHook(ctx, args, env); err != nil {
			return fmt.Errorf("lxc.hook.%s %q: %w: %s", kind, script, err, out)
		}
	}
	return nil
}

// runHook executes a program of the host and returns what it has said if it fails.
func runHook(ctx context.Context, args, env []string) (said string, err error) {
	defer early.Lock()()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// startHooks has the container's shell execute the hooks of the kind start before it becomes the
// container's init, as LXC's init does with the shell that popen(3) takes. One that fails ends the
// container.
func startHooks(spec *specs.Spec) {
	if spec.Hooks == nil || len(spec.Hooks.StartContainer) == 0 {
		return
	}
	var script strings.Builder
	for _, h := range spec.Hooks.StartContainer {
		for _, v := range h.Env {
			name, value, _ := strings.Cut(v, "=")
			script.WriteString(name + "=" + quote(value) + " ")
		}
		for i, a := range h.Args {
			if i > 0 {
				script.WriteString(" ")
			}
			script.WriteString(quote(a))
		}
		script.WriteString(" || exit\n")
	}
	script.WriteString(`exec "$0" "$@"`)
	spec.Process.Args = append([]string{"/bin/sh", "-c", script.String()}, spec.Process.Args...)
	hooks := *spec.Hooks
	hooks.StartContainer = nil
	spec.Hooks = &hooks
}

// quote makes one word of a shell of a text.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
