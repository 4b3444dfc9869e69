package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// run executes a verb against an empty directory of containers.
func run(t *testing.T, verb string, args ...string) (out, msg string, code int) {
	t.Helper()
	dir := t.TempDir()
	in, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var stdout, stderr bytes.Buffer
	p := &Process{In: in, Out: &stdout, Err: &stderr, Version: "1.2.3"}
	args = append([]string{"-P", filepath.Join(dir, "lxc"), "--run", filepath.Join(dir, "run")}, args...)
	code = Main(t.Context(), p, verb, args)
	return stdout.String(), stderr.String(), code
}

// TestEveryVerbHelps asks every verb how it is used.
func TestEveryVerbHelps(t *testing.T) {
	t.Parallel()
	for _, name := range Names() {
		for _, flag := range []string{"--help", "--usage", "-h"} {
			out, msg, code := run(t, name, flag)
			if code != 0 || msg != "" || !strings.HasPrefix(out, "Usage: lxc-"+name+" ") ||
				!strings.Contains(out, "--lxcpath") {
				t.Errorf("lxc-%s %s: status %d, %q, %q", name, flag, code, out, msg)
			}
		}
		if out, _, code := run(t, name, "--version"); out != "1.2.3\n" || code != 0 {
			t.Errorf("lxc-%s --version: status %d, %q", name, code, out)
		}
	}
}

// TestList names every verb that people call.
func TestList(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	Usage(&out)
	for _, name := range Names() {
		if listed := strings.Contains(out.String(), "\n  "+name+" "); listed != (name != "end") {
			t.Errorf("lxc-%s listed: %v", name, listed)
		}
	}
}

// TestUsage: one sentence for a command line that is wrong, and status 1.
func TestUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		verb string
		args []string
		want string
	}{
		{"strat", nil, `lxc: "strat" is no command; did you mean "start"?`},
		{"start", nil, "lxc-start: no container is named"},
		{"start", []string{"--foregruond", "c"}, "lxc-start: unknown flag: --foregruond"},
		{"start", []string{"c"}, `lxc-start: container "c" does not exist in `},
		{"start", []string{"-n", "c", "-l", "LOUD"}, `lxc-start: logpriority "LOUD": want one of ALERT, `},
		{"stop", []string{"-t", "soon", "c"}, `lxc-stop: invalid argument "soon"`},
		{"wait", []string{"c", "-s", "RUNNING|SLEEPY"}, `lxc-wait: state "SLEEPY": want one of [STOPPED `},
		{"attach", []string{"c", "--", "true"}, `lxc-attach: container "c" does not exist`},
		{"create", []string{"c"}, "lxc-create: a template is required"},
		{"create", []string{"-t", "busybos", "c"}, `did you mean "busybox"?`},
		{"ls", []string{"-f", "-F", "NAME,COLOUR"}, `lxc-ls: column "COLOUR": want some of NAME, `},
		{"ls", []string{"--output", "xml"}, `lxc-ls: output "xml": want json`},
		{"config", nil, "lxc-config: want one item"},
		{"config", []string{"lxc.nothing"}, "lxc.nothing"},
		{"update-config", nil, "lxc-update-config: no configuration is named"},
		{"update-config", []string{"-c", "/missing"}, "/missing"},
	} {
		_, msg, code := run(t, c.verb, c.args...)
		if code != 1 || !strings.Contains(msg, c.want) || strings.Count(msg, "\n") > 2 {
			t.Errorf("lxc-%s %q: status %d, %q; want %q", c.verb, c.args, code, msg, c.want)
		}
		if strings.Contains(msg, "invalid argument:") || strings.HasSuffix(msg, ": not found\n") {
			t.Errorf("lxc-%s %q: the class of the error is shown: %q", c.verb, c.args, msg)
		}
		if out, msg, _ := run(t, c.verb, append([]string{"-q"}, c.args...)...); c.verb != "strat" &&
			len(c.args) > 0 && c.args[0] != "--foregruond" && c.args[0] != "-t" && out+msg != "" {
			t.Errorf("lxc-%s -q %q: %q, %q", c.verb, c.args, out, msg)
		}
	}
}

// TestEnvironment is that of attached processes.
func TestEnvironment(t *testing.T) {
	t.Setenv("TERM", "vt100")
	t.Setenv("KEPT", "1")
	t.Setenv("OTHER", "2")
	all := strings.Join(environment(false, nil, []string{"A=b"}), "\n")
	for _, want := range []string{"TERM=vt100", "OTHER=2", "A=b\ncontainer=lxc"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not in %q", want, all)
		}
	}
	got := strings.Join(environment(true, []string{"KEPT", "MISSING"}, []string{"A=b"}), "\n")
	want := "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n" +
		"KEPT=1\nA=b\ncontainer=lxc"
	if got != want {
		t.Errorf("cleared: %q, want %q", got, want)
	}
}

func TestEscapeKey(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]byte{"^a": 1, "^A": 1, "x": 'x', "^]": 0x1d} {
		if got, err := escapeKey(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "^", "ab", "^ab"} {
		if got, err := escapeKey(text); err == nil && text != "^" {
			t.Errorf("%q is taken for %d", text, got)
		}
	}
}

// TestSizes are those of lxc-info.
func TestSizes(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := printer{c: &call{Process: &Process{Out: &out}}}
	for _, n := range []uint64{0, 1023, 1 << 10, 3 << 19, 5 << 30} {
		p.size("Memory use", n)
	}
	want := "Memory use:     0 bytes\nMemory use:     1023 bytes\nMemory use:     1.00 KiB\n" +
		"Memory use:     1.50 MiB\nMemory use:     5.00 GiB\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
