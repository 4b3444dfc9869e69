package main

import (
	"errors"
	"io"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"

	"strake/network"
)

func TestParse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	empty := file("empty.json", "{}")
	full := file("full.json", `{"data-root": "/d", "hosts": ["unix:///a.sock", "fd://"], "log-driver": "local", "log-opts": {"max-size": "1m"},
		"default-address-pools": [{"base": "10.0.0.0/8", "size": 24}], "dns": ["::1"], "debug": true}`)
	for _, tt := range []struct {
		name  string
		args  []string
		check func(*settings) bool
		fails string
	}{
		{name: "defaults", check: func(s *settings) bool {
			return s.DataRoot == defaultDataRoot &&
				reflect.DeepEqual(s.Hosts, []string{"unix:///run/strake/strake.sock"}) &&
				s.ReadyFD == -1
		}},
		{
			name: "socket follows the root", args: []string{"--exec-root", "/x/"},
			check: func(s *settings) bool { return s.Hosts[0] == "unix:///x/strake.sock" },
		},
		{name: "file", args: []string{"--config-file", full}, check: func(s *settings) bool {
			l, err := s.logConfig()
			return err == nil && s.DataRoot == "/d" && len(s.Hosts) == 2 && l.Driver == "local" &&
				l.MaxBytes == 1<<20 && s.Debug && s.AddressPools[0].Size == 24
		}},
		{
			name: "both", args: []string{"--config-file", full, "-H", "unix:///b.sock"},
			fails: "both as a flag and in the configuration file: hosts",
		},
		{
			name: "unknown flag", args: []string{"--data-rot", "/x"},
			fails: "did you mean --data-root?",
		},
		{
			name: "unknown flag far from all", args: []string{"--swordfish"},
			fails: "unknown flag --swordfish",
		},
		{name: "argument", args: []string{"run"}, fails: `unexpected argument "run"`},
		{
			name:  "unknown key",
			args:  []string{"--config-file", file("k.json", `{"data-roots": "/"}`)},
			fails: `did you mean data-root?`,
		},
		{
			name: "keys of dockerd, all at once",
			args: []string{"--config-file", file(
				"f.json", `{"live-restore": true, "debug": true, "storage-driver": "overlay2",
					"exec-opts": ["x"], "data-roots": "/", "zzz": 1}`,
			)},
			fails: `f.json: remove what dockerd knows and strake does not: "exec-opts", ` +
				`"live-restore", "storage-driver"; unknown key "data-roots"; did you mean ` +
				`data-root?, unknown key "zzz"`,
		},
		{
			name:  "two keys both ways",
			args:  []string{"--config-file", full, "-H", "unix:///b.sock", "--data-root", "/x"},
			fails: "both as a flag and in the configuration file: data-root, hosts",
		},
		{
			name: "bad JSON", args: []string{"--config-file", file("j.json", "{\n\n!}")},
			fails: "j.json:3:",
		},
		{
			name: "wrong type", args: []string{"--config-file", file("w.json", "{\n\"debug\": 1}")},
			fails: "w.json:2:",
		},
		{name: "missing file", args: []string{"--config-file", "/none.json"}, fails: "/none.json"},
		{name: "relative root", args: []string{"--data-root", "x"}, fails: "absolute"},
		{
			name: "root that overlayfs cannot take", args: []string{"--data-root", "/a:b"},
			fails: "overlayfs",
		},
		{
			name: "tcp", args: []string{"-H", "tcp://0.0.0.0:2375"},
			fails: "want unix:///path or fd://",
		},
		{
			name: "long socket", args: []string{"-H", "unix:///" + strings.Repeat("x", 107)},
			fails: "107",
		},
		{name: "subnets of the default bridge", args: []string{
			"--bip", "10.9.0.1/24", "--fixed-cidr-v6", "fd00:9::/64",
		}, check: func(s *settings) bool {
			return s.IPv6 && reflect.DeepEqual(s.defaultSubnets(), []network.Subnet{
				{
					Prefix:  netip.MustParsePrefix("10.9.0.0/24"),
					Gateway: netip.MustParseAddr("10.9.0.1"),
				},
				{Prefix: netip.MustParsePrefix("fd00:9::/64")},
			})
		}},
		{
			name:  "without IPv6",
			args:  []string{"--config-file", file("v4.json", `{"ipv6": false}`)},
			check: func(s *settings) bool { return !s.IPv6 && s.defaultSubnets() == nil },
		},
		{
			name: "IPv6 subnet of IPv4", args: []string{"--fixed-cidr-v6", "10.0.0.0/8"},
			fails: "--fixed-cidr-v6",
		},
		{
			name: "IPv6 subnet without IPv6",
			args: []string{"--ipv6=false", "--fixed-cidr-v6", "fd00:9::/64"}, fails: "--ipv6=false",
		},
		{name: "bip of a network", args: []string{"--bip", "172.17.0.0/16"}, fails: "--bip"},
		{name: "dns name", args: []string{"--dns", "localhost"}, fails: "--dns"},
		{
			name: "pool", args: []string{"--default-address-pool", "base=10.0.0.0/16,size=8"},
			fails: "default address pool",
		},
		{
			name: "log option", args: []string{"--log-opt", "max-sise=1"},
			fails: "did you mean max-size?",
		},
		{name: "log tag", args: []string{"--log-opt", "tag={{"}, fails: "tag"},
		{name: "log size", args: []string{"--log-opt", "max-size=1q"}, fails: "max-size=1q"},
		{name: "limits", args: []string{
			"--default-ulimit", "nofile=10:20", "--default-ulimit", "core=-1",
		}, check: func(s *settings) bool {
			return reflect.DeepEqual(
				s.Rlimits,
				[]specs.POSIXRlimit{
					{Type: "RLIMIT_NOFILE", Soft: 10, Hard: 20},
					{Type: "RLIMIT_CORE", Soft: math.MaxUint64, Hard: math.MaxUint64},
				},
			)
		}},
		{name: "limits in the file", args: []string{
			"--config-file",
			file(
				"u.json", `{"default-ulimits": {"nproc": {"Name": "nproc", "Soft": 5, "Hard": 6}}}`,
			),
		}, check: func(s *settings) bool {
			return reflect.DeepEqual(
				s.Rlimits, []specs.POSIXRlimit{{Type: "RLIMIT_NPROC", Soft: 5, Hard: 6}},
			)
		}},
		{
			name: "unknown limit", args: []string{"--default-ulimit", "nofiles=1"},
			fails: "did you mean nofile?",
		},
		{
			name: "limit without a number", args: []string{"--default-ulimit", "nofile"},
			fails: "NAME=SOFT[:HARD]",
		},
		{
			name: "soft limit above the hard one",
			args: []string{"--default-ulimit", "nofile=-1:5"}, fails: "above",
		},
		{name: "log driver", args: []string{"--log-driver", "syslog"}, fails: "syslog"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			args := tt.args
			if !strings.Contains(strings.Join(args, " "), "--config-file") {
				args = append([]string{"--config-file", empty}, args...)
			}
			s, err := parse(args, io.Discard)
			if tt.fails != "" {
				var u usageError
				if !errors.As(err, &u) || !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("got %v, want a usage error that says %q", err, tt.fails)
				}
				return
			}
			if err != nil || !tt.check(s) {
				t.Errorf("got %+v, %v", s, err)
			}
		})
	}
	var help strings.Builder
	if _, err := parse([]string{"--help"}, &help); !errors.Is(err, pflag.ErrHelp) ||
		!strings.Contains(help.String(), "--data-root") {
		t.Errorf("help: %v\n%s", err, help.String())
	}
}

// TestFileKeys: each key of the file is a field of it and has a flag, and none is also refused.
func TestFileKeys(t *testing.T) {
	t.Parallel()
	fields := map[string]bool{}
	for i, of := 0, reflect.TypeFor[fileConfig](); i < of.NumField(); i++ {
		fields[of.Field(i).Tag.Get("json")] = true
	}
	var help strings.Builder
	if _, err := parse([]string{"--help"}, &help); !errors.Is(err, pflag.ErrHelp) {
		t.Fatal(err)
	}
	for key, flag := range fileKeys {
		if !fields[key] || !regexp.MustCompile(`--`+flag+`\b[^-]`).MatchString(help.String()) {
			t.Errorf("key %s with flag --%s: field %t", key, flag, fields[key])
		}
		if slices.Contains(foreignKeys, key) {
			t.Errorf("key %s is taken and refused", key)
		}
	}
	if len(fields) != len(fileKeys) {
		t.Errorf("%d fields, %d keys", len(fields), len(fileKeys))
	}
}

// TestWithoutRoot: without root's privileges straked says so before it touches anything.
func TestWithoutRoot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "c.json")
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{
		"--config-file", file, "--exec-root", dir + "/run", "--data-root", dir + "/data",
	}
	for _, more := range []string{"--debug", "--teardown"} {
		var out, errs strings.Builder
		code := runAs(t.Context(), 1000, append(args, more), &out, &errs)
		const want = "straked: the engine needs root's privileges: run it with sudo\n"
		if code != 1 || errs.String() != want || out.Len() > 0 {
			t.Errorf("%s: got %d, %q; want 1, %q", more, code, out.String()+errs.String(), want)
		}
		if _, err := os.Stat(dir + "/run"); err == nil {
			t.Errorf("%s: the exec root has been made", more)
		}
	}
	var out, errs strings.Builder
	code := runAs(t.Context(), 1000, append(args, "--version"), &out, &errs)
	if code != 0 || !strings.HasPrefix(out.String(), "straked ") {
		t.Errorf("--version: got %d, %q, %q", code, out.String(), errs.String())
	}
}
