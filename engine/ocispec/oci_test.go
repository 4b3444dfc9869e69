package ocispec

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"strake/engine"
	"strake/engine/userdb"
)

var update = flag.Bool("update", false, "rewrite golden files")

func plainInput(s *engine.Spec) *Input {
	return &Input{
		ID: strings.Repeat("0123456789abcdef", 4), Spec: s, Args: []string{"/bin/true"},
		Env: []string{"PATH=/bin"}, Cwd: "/",
		Identity: userdb.Identity{Groups: []uint32{0}, Home: "/root"},
		Host: &Host{LastCap: 40, ThermalThrottle: []string{
			"/sys/devices/system/cpu/cpu0/thermal_throttle",
		}, Devices: []specs.LinuxDevice{
			{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229},
			{Path: "/dev/snd/timer", Type: "c", Major: 116, Minor: 33},
			{Path: "/dev/sndx", Type: "c", Major: 1, Minor: 1},
		}},
		HostsPath: "/c/hosts", HostnamePath: "/c/hostname", ResolvPath: "/c/resolv.conf",
		NetPath: "/run/netns/x", CgroupPath: "/strake/x",
	}
}

// TestSpecGolden holds whole configurations but for the seccomp profile, which is the profile
// library's business.
func TestSpecGolden(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]*Input{
		"default": plainInput(&engine.Spec{}),
		"privileged": plainInput(
			&engine.Spec{Privileged: true, Network: "host", PIDMode: "host", IPCMode: "host"},
		),
		"rich": func() *Input {
			in := plainInput(&engine.Spec{
				Hostname: "box", TTY: true, ReadonlyRootfs: true, CapDrop: []string{"all"},
				CapAdd: []string{"net_admin"}, IPCMode: "shareable",
				Tmpfs: map[string]string{"/run": "exec,size=1m"},
				Devices: []engine.Device{
					{HostPath: "/dev/snd", ContainerPath: "/dev/sound", Permissions: "r"},
				},
				DeviceRules: []string{"c 7:* rm"},
				Sysctls:     map[string]string{"net.core.somaxconn": "9"}, Seccomp: "unconfined",
				NoNewPrivileges: true, WritableCgroups: true,
			})
			in.ShmPath = "/shm/x"
			in.Identity = userdb.Identity{UID: 5, GID: 6, Groups: []uint32{6}, Home: "/h"}
			in.Mounts = []Mount{
				{engine.Mount{Type: "bind", Target: "/data/sub", ReadOnly: true}, "/host/sub"},
				{engine.Mount{Type: "volume", Target: "/data"}, "/host/data"},
				{engine.Mount{Type: "tmpfs", Target: "/etc/hosts", SizeBytes: 4096, Mode: 0o700}, ""},
				{
					engine.Mount{
						Type: "bind", Target: "/proc", NonRecursive: true, ReadOnly: true,
						Propagation: "rslave",
					},
					"/host/proc",
				},
			}
			return in
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, err := Make(in)
			if err != nil {
				t.Fatal(err)
			}
			if has := cfg.Linux.Seccomp != nil; has != (name == "default") {
				t.Errorf("seccomp profile present: %v", has)
			}
			cfg.Linux.Seccomp = nil
			got, err := json.MarshalIndent(cfg, "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", "spec-"+name+".json")
			if *update {
				if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.TrimSpace(string(want)) != string(got) {
				t.Errorf(
					"differs from %s (run with -update and read the difference):\n%s", file, got,
				)
			}
		})
	}
}

func TestSpecRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, want string
		spec       engine.Spec
		mounts     []Mount
	}{
		{
			name: "capability", spec: engine.Spec{CapAdd: []string{"FLY"}},
			want: `unknown capability: "FLY"`,
		},
		{name: "pid mode", spec: engine.Spec{PIDMode: "shared"}, want: "invalid PID mode: shared"},
		{name: "ipc mode", spec: engine.Spec{IPCMode: "container:gone"}, want: "invalid IPC mode: container:gone"},
		{name: "user namespace", spec: engine.Spec{UsernsMode: "keep-id"}, want: "UsernsMode"},
		{
			name: "sysctl of the host", spec: engine.Spec{Sysctls: map[string]string{"kernel.panic": "1"}},
			want: "kernel.panic",
		},
		{
			name: "sysctl in host network",
			spec: engine.Spec{Network: "host", Sysctls: map[string]string{"net.core.somaxconn": "1"}},
			want: "not allowed in host network",
		},
		{
			name: "sysctl with slashes",
			spec: engine.Spec{Sysctls: map[string]string{"kernel/panic": "1"}}, want: "kernel/panic",
		},
		{
			name: "sysctl climbs",
			spec: engine.Spec{Sysctls: map[string]string{"net/../kernel/panic": "1"}},
			want: "is not a name",
		},
		{
			name: "sysctl ipc host",
			spec: engine.Spec{IPCMode: "host", Sysctls: map[string]string{"kernel.shmmax": "1"}},
			want: "host ipc namespace",
		},
		{name: "device", spec: engine.Spec{Devices: []engine.Device{{HostPath: "/dev/none"}}}, want: "/dev/none"},
		{
			name: "device prefix is no directory",
			spec: engine.Spec{Devices: []engine.Device{{HostPath: "/dev/sn"}}}, want: "/dev/sn",
		},
		{
			name: "device permissions",
			spec: engine.Spec{Devices: []engine.Device{{HostPath: "/dev/fuse", Permissions: "x"}}}, want: "rwm",
		},
		{name: "device rule", spec: engine.Spec{DeviceRules: []string{"c 1 rwm"}}, want: "MAJOR:MINOR"},
		{
			name:   "relative mount",
			mounts: []Mount{{engine.Mount{Type: "bind", Target: "data"}, "/x"}},
			want:   "must be absolute",
		},
		{
			name:   "mount on root",
			mounts: []Mount{{engine.Mount{Type: "bind", Target: "/a/.."}, "/x"}},
			want:   "can't be '/'",
		},
		{
			name: "mounted twice", spec: engine.Spec{Tmpfs: map[string]string{"/a/": ""}},
			mounts: []Mount{{engine.Mount{Type: "bind", Target: "/a"}, "/x"}},
			want:   "Duplicate mount point: /a",
		},
		{
			name: "mount type", mounts: []Mount{{engine.Mount{Type: "nfs", Target: "/a"}, "/x"}},
			want: `type "nfs"`,
		},
		{
			name:   "propagation",
			mounts: []Mount{{engine.Mount{Type: "bind", Target: "/a", Propagation: "odd"}, "/x"}},
			want:   "odd",
		},
		{name: "seccomp", spec: engine.Spec{Seccomp: "{"}, want: "seccomp profile"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in := plainInput(&tt.spec)
			in.Mounts = tt.mounts
			_, err := Make(in)
			if err == nil || !errdefs.IsInvalidArgument(err) ||
				!strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an invalid argument that says %q", err, tt.want)
			}
		})
	}
}

func TestResolveProcess(t *testing.T) {
	t.Parallel()
	im := &Image{
		Entrypoint: []string{"/entry"}, Cmd: []string{"default"},
		Env: []string{"PATH=/image", "A=1", "B=2"}, WorkingDir: "srv",
	}
	for _, tt := range []struct {
		name string
		spec engine.Spec
		args []string
		env  []string
		cwd  string
		err  string
	}{
		{
			"all from the image", engine.Spec{}, []string{"/entry", "default"},
			[]string{"PATH=/image", "HOSTNAME=abc", "A=1", "B=2"}, "/srv", "",
		},
		{"command", engine.Spec{Cmd: []string{"x"}}, []string{"/entry", "x"}, nil, "", ""},
		{
			"entrypoint clears the image's command", engine.Spec{Entrypoint: []string{"e"}}, []string{"e"},
			nil, "", "",
		},
		{
			"cleared entrypoint", engine.Spec{ClearEntrypoint: true, Cmd: []string{"x"}}, []string{"x"},
			nil, "", "",
		},
		{"nothing left", engine.Spec{ClearEntrypoint: true}, nil, nil, "", "no command specified"},
		{"environment", engine.Spec{
			TTY: true, Hostname: "h", WorkingDir: "/w",
			Env: []string{"B=3", "A", "C=", "TERM=dumb"},
		},
			[]string{"/entry", "default"}, []string{"PATH=/image", "HOSTNAME=h", "TERM=dumb", "B=3", "C="}, "/w", ""},
		{"NUL", engine.Spec{Cmd: []string{"a\x00b"}}, nil, nil, "", "NUL"},
	} {
		args, env, cwd, err := ResolveProcess(&tt.spec, im, "abc")
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: got %v, want %q", tt.name, err, tt.err)
			}
			continue
		}
		if err != nil || !slices.Equal(args, tt.args) || tt.env != nil &&
			!reflect.DeepEqual(env, tt.env) || tt.cwd != "" && cwd != tt.cwd {
			t.Errorf("%s: got %q %q %q %v", tt.name, args, env, cwd, err)
		}
	}
}
