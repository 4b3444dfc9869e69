package container

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestEnviron(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		env, want []string
	}{
		{"none", nil, []string{"HOME=/h"}},
		{"missing", []string{"A=b"}, []string{"A=b", "HOME=/h"}},
		{"empty", []string{"HOME=", "A=b"}, []string{"A=b", "HOME=/h"}},
		{"set and empty", []string{"HOME=/x", "HOME="}, []string{"HOME=/h"}},
		{"set", []string{"HOME=/x", "A=b"}, []string{"HOME=/x", "A=b"}},
		{"twice", []string{"A=1", "HOME=/x", "A="}, []string{"HOME=/x", "A="}},
		{"no assignment", []string{"A", "A", "HOME=/x"}, []string{"A", "A", "HOME=/x"}},
	} {
		asked := false
		got := environ(c.env, func() string { asked = true; return "/h" })
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
		if want := slices.Contains(c.want, "HOME=/h"); asked != want {
			t.Errorf("%s: looked for the directory: %v", c.name, asked)
		}
	}
}

// TestHome runs and executes processes without HOME in images whose /etc/passwd is missing, a link
// to a file of the host, or not a file.
func TestHome(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "passwd")
	const host = "root:x:0:0::/of-the-host:/bin/sh\n"
	if err := os.WriteFile(outside, []byte(host), 0o644); err != nil {
		t.Fatal(err)
	}
	const text = "broken\nroot:x:0:0:root:/root:/bin/sh\n" +
		"none:x:6:6:::\nrelative:x:8:8::home:\nuser:x:5:5::/home/user:/bin/sh\n"
	for _, c := range []struct {
		name string
		uid  uint32
		want string
		edit func(etc string, spec *specs.Spec) error
	}{
		{name: "root", want: "/root"},
		{name: "user", uid: 5, want: "/home/user"},
		{name: "without directory", uid: 6, want: "/"},
		{name: "unknown user", uid: 7, want: "/"},
		{name: "relative directory", uid: 8, want: "/"},
		{name: "of the configuration", want: "/set", edit: func(_ string, spec *specs.Spec) error {
			spec.Process.Env = append(spec.Process.Env, "HOME=/set")
			return nil
		}},
		{name: "no file", want: "/", edit: func(etc string, _ *specs.Spec) error {
			return os.Remove(filepath.Join(etc, "passwd"))
		}},
		{name: "link to the host", want: "/", edit: func(etc string, _ *specs.Spec) error {
			os.Remove(filepath.Join(etc, "passwd"))
			return os.Symlink(outside, filepath.Join(etc, "passwd"))
		}},
		{name: "link in the image", want: "/root", edit: func(etc string, _ *specs.Spec) error {
			os.Rename(filepath.Join(etc, "passwd"), filepath.Join(etc, "../data/passwd"))
			return os.Symlink("/data/passwd", filepath.Join(etc, "passwd"))
		}},
		{name: "fifo", want: "/", edit: func(etc string, _ *specs.Spec) error {
			os.Remove(filepath.Join(etc, "passwd"))
			return unix.Mkfifo(filepath.Join(etc, "passwd"), 0o644)
		}},
		{name: "mounted", want: "/of-the-host", edit: func(_ string, spec *specs.Spec) error {
			spec.Mounts = append(spec.Mounts, specs.Mount{
				Destination: "/etc/passwd", Source: outside, Options: []string{"bind"},
			})
			return nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := rootfs(t)
			etc := filepath.Join(root, "etc")
			if err := os.WriteFile(filepath.Join(etc, "passwd"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			spec := config(root, "echo $HOME")
			spec.Process.User = specs.User{UID: c.uid, GID: c.uid}
			if c.edit != nil {
				if err := c.edit(etc, spec); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := run(t, spec); err != nil || got.out != c.want+"\n" {
				t.Errorf("run: got %q, %v; want %q", got.out, err, c.want)
			}
			if got := execOutput(t, spec); got != c.want+"\n" {
				t.Errorf("exec: got %q, want %q", got, c.want)
			}
		})
	}
}

// execOutput executes the process of spec in a container that sleeps.
func execOutput(t *testing.T, spec *specs.Spec) string {
	t.Helper()
	copied, proc := *spec, *spec.Process
	proc.Args = []string{"/bin/sh", "-c", "sleep 100"}
	copied.Process = &proc
	_, ct, _ := create(t, &copied, nil)
	if err := ct.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	p, err := ct.Exec(context.Background(), ExecOptions{
		Process: spec.Process, Stdio: &[3]*os.File{null, w, w},
	})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	return string(out)
}
