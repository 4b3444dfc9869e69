package container

import (
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestHookSurroundings: a hook of the host runs in the bundle and inherits the environment unless
// it has one; createContainer hooks run in the root filesystem with the container's mounts, and
// startContainer hooks where the process will.
func TestHookSurroundings(t *testing.T) {
	t.Setenv("STRAKE_HOOK_TEST", "inherited")
	root := rootfs(t)
	bundle := filepath.Dir(root)
	shell := func(script string, env []string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: env}}
	}
	inherits := `test "$STRAKE_HOOK_TEST" = inherited && test "$PWD" = ` + bundle
	bare := `test -z "$STRAKE_HOOK_TEST"`
	for _, c := range []struct {
		name  string
		hooks specs.Hooks
	}{
		//lint:ignore SA1019 see hasCreateHooks
		{"prestart", specs.Hooks{Prestart: shell(inherits, nil)}},
		{"createRuntime", specs.Hooks{CreateRuntime: shell(inherits, nil)}},
		{"empty environment", specs.Hooks{CreateRuntime: shell(bare, []string{})}},
		{"its own environment", specs.Hooks{CreateRuntime: shell(bare, []string{"X=y"})}},
		{"createContainer", specs.Hooks{CreateContainer: shell(
			`test "$PWD" = `+root+` && test -e proc/self/status && test -c dev/null`, nil,
		)}},
		{"startContainer", specs.Hooks{StartContainer: shell(`test "$PWD" = /data`, nil)}},
		{"poststart", specs.Hooks{Poststart: shell(inherits, nil)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := config(root, "true")
			spec.Process.Cwd, spec.Hooks = "/data", &c.hooks
			rt, ct, p := create(
				t, spec, nil, func(o *CreateOptions) { o.Bundle = bundle },
			)
			if err := ct.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if ws, err := p.Wait(); err != nil || ws != 0 {
				t.Errorf("its process: %v, %v", ws, err)
			}
			if err := ct.Delete(t.Context(), false); err != nil {
				t.Error(err)
			}
			clean(t, rt, ct.ID())
		})
	}
}
