package template

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"strake/internal/testneed"
	"strake/lxc/config"
)

func target(t *testing.T, lines string) *Target {
	t.Helper()
	dir := t.TempDir()
	x := &Target{Name: "c", Dir: dir, Root: filepath.Join(dir, "rootfs")}
	if err := os.Mkdir(x.Root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	return x
}

// TestFind knows its own templates, programs by their path, and nothing else.
func TestFind(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "none"} {
		if m, err := Find(name); m != nil || err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"busybox", "debian", "/bin/true"} {
		if m, err := Find(name); m == nil || err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for name, want := range map[string]string{
		"debain": `did you mean "debian"?`, "/missing": "/missing", "/etc/passwd": "/etc/passwd",
		"/etc": "/etc", "../busybox": "../busybox",
	} {
		if _, err := Find(name); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
}

// TestScript gives a template of LXC what LXC gives it.
func TestScript(t *testing.T) {
	t.Parallel()
	x := target(t, "")
	script := filepath.Join(x.Dir, "script")
	text := "#!/bin/sh\nprintf '%s\\n' \"$@\" >\"${1#--path=}/said\"\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	m, err := Find(script)
	if err != nil {
		t.Fatal(err)
	}
	x.Args = []string{"--release", "a b"}
	if err := m(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	said, err := os.ReadFile(filepath.Join(x.Dir, "said"))
	want := "--path=" + x.Dir + "\n--name=c\n--rootfs=" + x.Root + "\n--release\na b\n"
	if err != nil || string(said) != want {
		t.Errorf("%q, %v; want %q", said, err, want)
	}
}

// TestBusybox makes a system that its own programs work in, with a configuration that is read.
func TestBusybox(t *testing.T) {
	t.Parallel()
	testneed.File(t, "/bin/busybox", "busybox-static")
	testneed.Root(t, "chroot")
	x := target(t, "lxc.net.0.type = empty\n")
	if err := busybox(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("chroot", x.Root, "/bin/sh", "-c", "cat /etc/hostname; ls -d /tmp").
		CombinedOutput()
	if err != nil || string(out) != "c\n/tmp\n" {
		t.Errorf("%q, %v", out, err)
	}
	st, err := os.Stat(filepath.Join(x.Root, "tmp"))
	if err != nil || st.Mode()&os.ModeSticky == 0 || st.Mode().Perm() != 0o777 {
		t.Errorf("/tmp: %v, %v", st.Mode(), err)
	}
	cfg, err := config.Load(filepath.Join(x.Dir, "config"))
	if err != nil || cfg.TTY.Max != 1 || len(cfg.Nets) != 1 {
		t.Errorf("%+v, %v", cfg, err)
	}
	x.Args = []string{"--colour"}
	if err := busybox(t.Context(), x); !errdefs.IsInvalidArgument(err) {
		t.Errorf("an unknown argument: %v", err)
	}
}

// TestInterfaces: only an interface without an address asks for one.
func TestInterfaces(t *testing.T) {
	t.Parallel()
	const lo = "auto lo\niface lo inet loopback\n"
	for lines, want := range map[string]string{
		"":                         lo,
		"lxc.net.0.type = empty":   lo,
		"lxc.net.0.type = none":    lo,
		"lxc.net.0.type = veth":    lo + "\nauto eth0\niface eth0 inet dhcp\n",
		"lxc.net.1.type = macvlan": lo + "\nauto eth1\niface eth1 inet dhcp\n",
		"lxc.net.0.type = veth\nlxc.net.0.name = lan":                 lo + "\nauto lan\niface lan inet dhcp\n",
		"lxc.net.0.type = veth\nlxc.net.0.ipv4.address = 10.0.0.2/24": lo,
	} {
		got, err := target(t, lines+"\n").interfaces()
		if err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", lines, got, err, want)
		}
	}
}

// TestHostMirror reads both formats of apt's sources.
func TestHostMirror(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, want string }{
		{"sources.list", "deb http://m.test/debian bookworm main\n", "http://m.test/debian"},
		{"sources.list", "# deb http://m.test/debian bookworm main\n", ""},
		{"sources.list", "deb [signed-by=/k] http://m.test/debian/ x main\n", "http://m.test/debian/"},
		{"sources.list", "deb http://m.test/debian-security x main\n", ""},
		{"sources.list.d/debian.sources", "Types: deb\nURIs: http://m.test/debian\n", "http://m.test/debian"},
		{"sources.list.d/other.list", "deb http://m.test/node x main\n", ""},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, c.name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := hostMirror(dir); got != c.want {
			t.Errorf("%s, %q: %q, want %q", c.name, c.text, got, c.want)
		}
	}
}
