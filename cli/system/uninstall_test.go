package system

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"strake/cli/command"
)

// tree lists everything below a directory.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		out = append(out, path+" "+d.Type().String())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// programs are stand-ins for the built binaries: strake writes completions, straked notes that it
// was asked to take everything down.
func programs(t *testing.T, teardown string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"strake":         "#!/bin/sh\necho \"# $*\"\n",
		"straked":        "#!/bin/sh\n" + teardown + "\n",
		"strake-runtime": "#!/bin/sh\n",
		"strake-lxc":     "#!/bin/sh\n[ \"$1\" != links ] || echo lxc-ls\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func install(t *testing.T, bin, prefix, destdir string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "../../scripts/install", bin, prefix)
	cmd.Env = append(os.Environ(), "DESTDIR="+destdir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("install: %v\n%s", err, out)
	}
}

// uninstalled runs the verb as the installed program would.
func uninstalled(t *testing.T, prefix string, roots [2]string, args ...string) (string, error) {
	t.Helper()
	c := Uninstall()
	flags := pflag.NewFlagSet("uninstall", pflag.ContinueOnError)
	action := c.Setup(flags)
	if err := flags.Parse(
		append(args, "--data-root", roots[0], "--exec-root", roots[1]),
	); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	s := &command.Session{Env: command.Env{
		In: strings.NewReader("y\n"), Out: &stderr, Err: &stderr,
		Executable: filepath.Join(prefix, "bin", "strake"), Environ: os.Environ(),
		LookupEnv: func(string) (string, bool) { return "", false },
	}}
	err := action(context.Background(), s, nil)
	return stderr.String(), err
}

// engineRoots are directories with something in them, as an engine leaves them.
func engineRoots(t *testing.T, dir string) [2]string {
	t.Helper()
	roots := [2]string{filepath.Join(dir, "var", "strake"), filepath.Join(dir, "run", "strake")}
	for _, r := range roots {
		if err := os.MkdirAll(filepath.Join(r, "deep"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return roots
}

func TestUninstallMirrorsInstall(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		prepare []string // directories that others made before
		times   int
	}{
		{"into nothing", nil, 1},
		{"into a tree of others", []string{"usr/bin", "usr/share/zsh/site-functions"}, 1},
		{"over itself", []string{"usr/share"}, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for _, d := range append(tc.prepare, "var", "run") {
				if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			called := filepath.Join(t.TempDir(), "teardown")
			bin := programs(t, "echo \"$*\" >"+called)
			before := tree(t, dir)
			roots, prefix := engineRoots(t, dir), filepath.Join(dir, "usr")
			for range tc.times {
				install(t, bin, prefix, "")
			}
			for _, want := range []string{
				"bin/strake", "bin/straked", "bin/strake-runtime", "bin/strake-lxc",
				"lib/strake/bin/lxc-ls",
				"share/bash-completion/completions/strake", "share/zsh/site-functions/_strake",
				"share/fish/vendor_completions.d/strake.fish",
			} {
				if _, err := os.Stat(filepath.Join(prefix, want)); err != nil {
					t.Errorf("not installed: %v", err)
				}
			}
			out, err := uninstalled(t, prefix, roots, "--yes")
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out, filepath.Join(prefix, "bin/straked")) ||
				!strings.Contains(out, roots[0]) {
				t.Errorf("what is removed is not told:\n%s", out)
			}
			if after := tree(t, dir); !slices.Equal(after, before) {
				t.Errorf(
					"after:\n%s\nbefore:\n%s", strings.Join(after, "\n"),
					strings.Join(before, "\n"),
				)
			}
			if got, err := os.ReadFile(called); err != nil ||
				!strings.Contains(string(got), "--teardown --data-root "+roots[0]) {
				t.Errorf("the engine was told %q, %v", got, err)
			}
		})
	}
}

func TestUninstallLeavesWhatIsNotItsOwn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	roots, prefix := engineRoots(t, dir), filepath.Join(dir, "usr")
	install(t, programs(t, ""), prefix, "")
	other := filepath.Join(prefix, "share/zsh/site-functions/_other")
	if err := os.WriteFile(other, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := uninstalled(t, prefix, roots, "--yes", "--keep-data"); err != nil {
		t.Fatal(err)
	}
	for _, kept := range []string{other, roots[0]} {
		if _, err := os.Stat(kept); err != nil {
			t.Errorf("removed: %v", err)
		}
	}
	if _, err := os.Stat(filepath.Join(prefix, "bin")); err == nil {
		t.Error("its own directory is still there")
	}
}

func TestUninstallRemovesNothingWhen(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, teardown, want string
		args                 []string
		before               func(t *testing.T, prefix string)
	}{
		{
			name: "the engine does not end", teardown: "echo a container does not end >&2; exit 1",
			want: "nothing was removed", args: []string{"--yes"},
		},
		{name: "only shown", args: []string{"--dry-run"}},
		{
			name: "a root is the system's", want: "--exec-root",
			args: []string{"--yes", "--exec-root", "/run"},
		},
		{
			name: "the list names something else", want: "install-manifest:1",
			args: []string{"--yes"}, before: func(t *testing.T, prefix string) {
				if err := os.WriteFile(
					filepath.Join(prefix, Manifest), []byte("/etc/../usr\n"), 0o644,
				); err != nil {
					t.Fatal(err)
				}
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			roots, prefix := engineRoots(t, dir), filepath.Join(dir, "usr")
			install(t, programs(t, tc.teardown), prefix, "")
			if tc.before != nil {
				tc.before(t, prefix)
			}
			before := tree(t, dir)
			args := tc.args
			if strings.Contains(strings.Join(args, " "), "--exec-root") {
				roots[1] = "/run"
			}
			_, err := uninstalled(t, prefix, roots, args...)
			if (err == nil) != (tc.want == "") || err != nil &&
				!strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if after := tree(t, dir); !slices.Equal(after, before) {
				t.Error("something was removed")
			}
		})
	}
}

func TestInstallBelowDestdir(t *testing.T) {
	t.Parallel()
	stage := t.TempDir()
	install(t, programs(t, ""), "/opt/strake", stage)
	raw, err := os.ReadFile(filepath.Join(stage, "opt/strake", Manifest))
	if err != nil {
		t.Fatal(err)
	}
	// The list is for the host that the staged tree is copied to.
	if strings.Contains(string(raw), stage) ||
		!strings.Contains(string(raw), "/opt/strake/bin/strake\n") {
		t.Errorf("the list:\n%s", raw)
	}
}
