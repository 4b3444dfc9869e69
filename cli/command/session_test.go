package command

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestParseHost(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"unix:///run/x.sock":      "unix /run/x.sock",
		"unix://relative.sock":    "unix relative.sock",
		"/run/x.sock":             "unix /run/x.sock",
		"tcp://127.0.0.1:2375":    "tcp 127.0.0.1:2375",
		"tcp://127.0.0.1:2375/v1": "tcp 127.0.0.1:2375",
		"tcp://[::1]:2375":        "tcp [::1]:2375",
		"tcp://127.0.0.1":         "!want tcp://HOST:PORT",
		"unix://":                 "!want unix:///PATH or tcp://HOST:PORT",
		"ssh://host":              "!want unix:///PATH or tcp://HOST:PORT",
		"x.sock":                  "!want unix:///PATH or tcp://HOST:PORT",
		"":                        "!want unix:///PATH or tcp://HOST:PORT",
	} {
		network, address, err := parseHost(host)
		if fault, ok := strings.CutPrefix(want, "!"); ok {
			if err == nil || !strings.Contains(err.Error(), fault) {
				t.Errorf("%q: got %s %s, %v; want an error with %q", host, network, address, err,
					fault)
			}
			continue
		}
		if got := network + " " + address; err != nil || got != want {
			t.Errorf("%q: got %q, %v; want %q", host, got, err, want)
		}
	}
}

// TestDial makes connections fail. That an engine is started is tested in packages cli and launch.
func TestDial(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	absent := filepath.Join(dir, "absent.sock")
	left := filepath.Join(dir, "left.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: left})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	t.Cleanup(func() { // after all cases
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("files were made where no engine was started: %v, %v", entries, err)
		}
	})
	for name, c := range map[string]struct {
		host, defaultHost string
		uid               int
		noStart           bool
		want              []string
		is                error
	}{
		"another socket": {
			host: "unix://" + absent, defaultHost: "unix://" + left,
			want: []string{
				"no engine listens on unix://" + absent, "only the engine on unix://" + left,
			},
			is: syscall.ENOENT,
		},
		"a socket that was left behind": {
			host: left, defaultHost: "unix://" + absent,
			want: []string{"no engine listens on " + left}, is: syscall.ECONNREFUSED,
		},
		"a default that is no host": {
			host: "unix://" + absent, want: []string{"no engine listens"}, is: syscall.ENOENT,
		},
		"without privileges": {
			host: absent, defaultHost: "unix://" + absent, uid: 1000,
			want: []string{"not running", "sudo"}, is: syscall.ENOENT,
		},
		"no engine installed": {
			host: absent, defaultHost: "unix://" + absent,
			want: []string{"cannot connect to the engine", "straked"}, is: os.ErrNotExist,
		},
		"nothing to be started": {
			host: absent, defaultHost: "unix://" + absent, noStart: true,
			want: []string{"cannot connect to the engine at " + absent}, is: syscall.ENOENT,
		},
		"by TCP": {
			host: "tcp://127.0.0.1:1", defaultHost: "tcp://127.0.0.1:1",
			want: []string{"cannot connect to the engine at tcp://"}, is: syscall.ECONNREFUSED,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _, _ := session("")
			s.DefaultHost, s.Host, s.UID, s.NoStart = c.defaultHost, c.host, c.uid, c.noStart
			defer s.Close()
			err := s.Get(t.Context(), "/info", nil, nil)
			if !errors.Is(err, c.is) {
				t.Errorf("got %v, want %v", err, c.is)
			}
			for _, w := range c.want {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("%q is not in: %v", w, err)
				}
			}
		})
	}
}

func TestNoTLS(t *testing.T) {
	t.Parallel()
	s, _, _ := session("")
	s.Host = "tcp://127.0.0.1:2376"
	s.LookupEnv = func(name string) (string, bool) { return "1", name == "DOCKER_TLS_VERIFY" }
	if err := s.Get(context.Background(), "/info", nil, nil); err == nil ||
		!strings.Contains(err.Error(), "DOCKER_TLS_VERIFY") {
		t.Errorf("got %v, want an error that names the variable", err)
	}
}

func TestConfirm(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]bool{
		"y\n": true, "yes\n": true, " YES \n": true, "y": true,
		"n\n": false, "\n": false, "": false, "yesterday\n": false, strings.Repeat("y", 100): false,
	} {
		s, _, errs := session(in)
		if got, err := s.Confirm("Sure?"); err != nil || got != want {
			t.Errorf("%q: got %v, %v; want %v", in, got, err, want)
		}
		if !strings.HasPrefix(errs.String(), "Sure? [y/N] ") {
			t.Errorf("%q: asked %q", in, errs)
		}
	}
	s, out, _ := session("y\nthe rest")
	if ok, err := s.Confirm("Sure?"); !ok || err != nil || out.Len() > 0 {
		t.Errorf("%v, %v, output %q", ok, err, out)
	}
	rest := make([]byte, 20)
	if n, _ := s.In.Read(rest); string(rest[:n]) != "the rest" {
		t.Errorf("what follows the answer: %q", rest[:n])
	}
}

func TestPath(t *testing.T) {
	t.Parallel()
	s, _, _ := session("")
	s.Dir = "/srv"
	for in, want := range map[string]string{"a/b": "/srv/a/b", "../a": "/a", "/a": "/a"} {
		if got := s.Path(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestGroupHint(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "sock")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := groupHint(file); got != "" {
		t.Errorf("a socket without permissions for a group: %q", got)
	}
	if got := groupHint(file + "x"); got != "" {
		t.Errorf("no socket: %q", got)
	}
}
