package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"strake/internal/testneed"
)

// client is one of the programs that talk to the engine. Its methods have the names of the rig's,
// which always take the first docker in PATH.
type client struct {
	*rig
	t       testing.TB
	name    string
	program string
}

// clientVersions are those that every test of clients runs with: the newest that is common, the one
// of Debian 12, and strake itself.
var clientVersions = []struct {
	name, version string
	debian        string // the package of Debian 12 that has this version
}{{name: "docker 28", version: "28."}, {"docker 20.10", "20.10.", "docker.io"}, {name: "strake"}}

// eachClient runs a test with each client, one after the other. A client that this machine lacks is
// a skip with its name.
func eachClient(t *testing.T, r *rig, test func(t *testing.T, c *client)) {
	for _, v := range clientVersions {
		t.Run(v.name, func(t *testing.T) {
			program := filepath.Join(r.bin, "strake")
			if v.version != "" {
				if program = dockerClient(v.version); program == "" {
					if v.debian != "" {
						testneed.Lack(t, "docker "+v.version+"x (package "+v.debian+")")
					}
					t.Skipf("needs a docker client %sx in PATH", v.version)
				}
			}
			c := &client{rig: r, t: t, name: v.name, program: program}
			defer func() {
				if left := c.do("ps", "-aq").out; left != "" {
					t.Errorf("containers left: %q", left)
					c.do(append([]string{"rm", "-f"}, strings.Fields(left)...)...)
				}
			}()
			test(t, c)
		})
	}
}

// dockerClient finds a client by the beginning of its version.
func dockerClient(version string) string {
	for _, dir := range append(
		filepath.SplitList(os.Getenv("PATH")), "/usr/bin", "/usr/local/bin",
	) {
		program := filepath.Join(dir, "docker")
		out, err := exec.Command(program, "--version").Output()
		if err == nil && strings.HasPrefix(string(out), "Docker version "+version) {
			return program
		}
	}
	return ""
}

// with is the client in a subtest.
func (c *client) with(t testing.TB) *client {
	d := *c
	d.t = t
	return &d
}

func (c *client) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	c.t.Cleanup(cancel)
	cmd := exec.CommandContext(
		ctx, c.program, append([]string{"-H", "unix://" + c.socket()}, args...)...,
	)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool {
		return strings.HasPrefix(e, "DOCKER_")
	}),
		"DOCKER_CONFIG="+c.dir, "INHERITED=from outside")
	cmd.Dir = c.dir
	return cmd
}

// do runs the client to its end.
func (c *client) do(args ...string) result {
	c.t.Helper()
	return c.feed("", args...)
}

// feed is do with something to read.
func (c *client) feed(in string, args ...string) result {
	c.t.Helper()
	cmd := c.command(args...)
	var out, errw bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &out, &errw
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		c.t.Fatal(err)
	}
	return result{out.String(), errw.String(), cmd.ProcessState.ExitCode()}
}

// ok runs the client and expects success.
func (c *client) ok(args ...string) string {
	c.t.Helper()
	got := c.do(args...)
	if got.code != 0 {
		c.t.Fatalf(
			"%s %s: status %d\n%s%s", c.name, strings.Join(args, " "), got.code, got.out, got.err,
		)
	}
	return got.out
}

// eq runs the client and expects its output.
func (c *client) eq(want string, args ...string) {
	c.t.Helper()
	if got := c.do(args...); got.out != want || got.code != 0 {
		c.t.Errorf(
			"%s: got %q, want %q (status %d, %s)", strings.Join(args, " "), got.out, want, got.code,
			got.err,
		)
	}
}

// refused runs the client and expects a status, a message, and nothing on the standard output.
func (c *client) refused(code int, text string, args ...string) {
	c.t.Helper()
	if got := c.do(args...); got.code != code || !strings.Contains(got.err, text) || got.out != "" {
		c.t.Errorf(
			"%s: status %d, %q, %q; want status %d with %q", strings.Join(args, " "), got.code,
			got.out, got.err, code, text,
		)
	}
}

// object runs the client and decodes the one JSON object that it prints.
func (c *client) object(args ...string) map[string]any {
	c.t.Helper()
	var v map[string]any
	out := c.ok(args...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		c.t.Fatalf("%s: %v in %q", strings.Join(args, " "), err, out)
	}
	return v
}

// until waits for a condition of another process.
func (c *client) until(what string, cond func() bool) {
	c.t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); runtimeYield() {
		if time.Now().After(end) {
			c.t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// background is a client that goes on, in a pipe.
type background struct {
	*exec.Cmd
	out lockedBuffer
	err lockedBuffer
	in  io.WriteCloser
}

func (c *client) begin(args ...string) *background {
	c.t.Helper()
	b := &background{Cmd: c.command(args...)}
	b.Stdout, b.Stderr = &b.out, &b.err
	var err error
	if b.in, err = b.StdinPipe(); err != nil {
		c.t.Fatal(err)
	}
	if err := b.Start(); err != nil {
		c.t.Fatal(err)
	}
	return b
}

// ends waits for the exit status.
func (c *client) ends(b *background) int {
	c.t.Helper()
	b.Wait()
	return b.ProcessState.ExitCode()
}

// says waits for the standard output to contain a text.
func (c *client) says(b *background, text string) {
	c.t.Helper()
	for end := time.Now().Add(20 * time.Second); !strings.Contains(
		b.out.String(), text,
	); runtimeYield() {
		if time.Now().After(end) {
			c.t.Fatalf(
				"%s: %q, %q; want %q", strings.Join(b.Args[3:], " "), b.out.String(),
				b.err.String(), text,
			)
		}
	}
}

// file makes a file in the directory that the client runs in.
func (c *client) file(name, body string) string {
	c.t.Helper()
	p := filepath.Join(c.dir, name)
	if err := os.WriteFile(p, []byte(body), 0o644); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { os.Remove(p) })
	return p
}

// eachLine decodes the objects of --format '{{json .}}', one a line.
func eachLine(t testing.TB, out string) (list []map[string]any) {
	t.Helper()
	for line := range strings.Lines(out) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		list = append(list, v)
	}
	return list
}

func field(v map[string]any, path ...string) string {
	for i, k := range path {
		if i == len(path)-1 {
			return fmt.Sprint(v[k])
		}
		v, _ = v[k].(map[string]any)
	}
	return ""
}
