package cli_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strake/cli"
)

// TestEngineOnDemand checks the messages of a command when no engine listens. That an engine is
// started is tested in package launch.
func TestEngineOnDemand(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, engine string // a script in straked's place; empty: there is none
		uid          int
		other        bool // the socket is not the default one
		args         []string
		want, not    []string
	}{
		{
			"as root", "echo broken >&2; exit 3", 0, false, []string{"ps"},
			[]string{
				"no engine listens on ", "starting ", "straked.log", "exit status 3", "broken",
			},
			nil,
		},
		{
			"a socket that is not the default one", "exit 3", 0, true, []string{"ps"},
			[]string{
				"no engine listens on unix:///", "no such file or directory",
				"only the engine on unix:///run/default.sock", "'straked -H unix:///",
			},
			[]string{"starting", "straked.log"},
		},
		{
			"as another user", "exit 0", 1000, false, []string{"ps"},
			[]string{"starting it takes root's privileges"},
			[]string{"no engine listens", "systemctl"},
		},
		{
			"not installed", "", 0, false, []string{"ps"}, []string{"cannot start one", "straked"},
			[]string{"no engine listens"},
		},
		{
			"completion starts nothing", "echo broken >&2; exit 3", 0, false,
			[]string{"__complete", "stop", ""}, nil, []string{"engine", "broken"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			socket := filepath.Join(t.TempDir(), "s.sock")
			env := environment(t, "unix://"+socket)
			env.UID = tc.uid
			if tc.other {
				env.DefaultHost = "unix:///run/default.sock"
			}
			if tc.engine != "" {
				bin := filepath.Dir(env.Executable)
				if err := os.MkdirAll(bin, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(
					filepath.Join(bin, "straked"), []byte("#!/bin/sh\n"+tc.engine+"\n"), 0o755,
				); err != nil {
					t.Fatal(err)
				}
			}
			var stdout, stderr locked
			env.Out, env.Err = &stdout, &stderr
			code := cli.Main(context.Background(), append([]string{"strake"}, tc.args...), env)
			if stdout.String() != "" && tc.args[0] == "ps" ||
				(code == 0) != (tc.args[0] == "__complete") {
				t.Errorf("status %d, output %q", code, stdout.String())
			}
			for _, w := range tc.want {
				if !strings.Contains(stderr.String(), w) {
					t.Errorf("%q is not in:\n%s", w, stderr.String())
				}
			}
			for _, n := range tc.not {
				if strings.Contains(stderr.String(), n) {
					t.Errorf("%q is in:\n%s", n, stderr.String())
				}
			}
		})
	}
}

// handedOver are the verbs that another program carries out.
var handedOver = map[string]bool{"runtime": true, "lmctfy": true, "lxc": true}

// TestEveryVerbHelps asks every verb that the help lists for its own.
func TestEveryVerbHelps(t *testing.T) {
	t.Parallel()
	help := func(args ...string) string {
		t.Helper()
		env := environment(t, "unix:///nothing")
		var stdout, stderr locked
		env.Out, env.Err = &stdout, &stderr
		if code := cli.Main(
			context.Background(), append([]string{"strake"}, args...), env,
		); code != 0 || stderr.String() != "" {
			t.Errorf("%q: status %d, %s", args, code, stderr.String())
		}
		return stdout.String()
	}
	verbs := 0
	var visit func(path []string)
	visit = func(path []string) {
		text := help(append(path, "--help")...)
		if len(path) == 1 && handedOver[path[0]] {
			return // another program's own
		}
		if !strings.HasPrefix(text, "Usage:  strake ") {
			t.Errorf("%q --help: %q", path, text)
		}
		for l := range strings.Lines(text) {
			if len(l) > 140 {
				t.Errorf("%q --help: a line of %d characters", path, len(l))
			}
		}
		verbs++
		for section := range strings.SplitSeq(text, "\n\n") {
			title, rows, _ := strings.Cut(section, "\n")
			if !strings.HasSuffix(title, "Commands:") {
				continue
			}
			for l := range strings.Lines(rows) {
				if f := strings.Fields(l); len(f) > 1 && strings.HasPrefix(l, "  ") &&
					!(len(path) == 0 && handedOver[f[0]]) {
					visit(append(append([]string(nil), path...), f[0]))
				}
			}
		}
	}
	visit(nil)
	if verbs < 60 {
		t.Errorf("%d verbs were asked, want all", verbs)
	}
}
