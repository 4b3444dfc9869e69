package container

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestNetDevices moves a device of the test's own network namespace into containers. One that does
// not come to be, at whatever point, gives it back with its name and address.
func TestNetDevices(t *testing.T) {
	root := rootfs(t)
	tool, err := exec.LookPath("ip")
	if err != nil {
		t.Skip("needs ip (package iproute2)")
	}
	runtime.LockOSThread() // not undone: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	ip := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(tool, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip %q: %v: %s", args, err, out)
		}
		return string(out)
	}
	ip("link", "add", "sk-dev", "type", "veth", "peer", "name", "sk-peer")
	ip("addr", "add", "10.99.1.2/24", "dev", "sk-dev")
	ip("link", "set", "sk-dev", "up")
	with := func(edit func(*specs.Spec)) *specs.Spec {
		s := config(root, "busybox ip -o addr show eth7; cat /proc/sys/net/ipv4/conf/eth7/forwarding")
		s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"sk-dev": {Name: "eth7"}}
		s.Linux.Sysctl = map[string]string{"net/ipv4/conf/eth7/forwarding": "1"}
		edit(s)
		return s
	}
	descriptors := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	for name, edit := range map[string]func(*specs.Spec){
		"no program": func(s *specs.Spec) { s.Process.Args = []string{"/none"} },
		"no source": func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, bindMount("/dev/null/none", "/data", false))
		},
		"a hook": func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/false"}}}
		},
		"a device": func(s *specs.Spec) {
			s.Linux.NetDevices["sk-none"] = specs.LinuxNetDevice{}
		},
		"a sysctl": func(s *specs.Spec) {
			s.Linux.Sysctl["net/ipv4/conf/none/forwarding"] = "1"
		},
		"user namespace and no program": func(s *specs.Spec) {
			mapUsers(s)
			s.Process.Args = []string{"/none"}
		},
	} {
		if got, err := run(t, with(edit)); err == nil {
			t.Errorf("%s: runs: %q", name, got.out)
		}
		got := ip("-o", "addr", "show", "sk-dev")
		if !strings.Contains(got, "10.99.1.2/24") ||
			!strings.Contains(ip("link", "show", "sk-dev"), ",UP") {
			t.Errorf("%s: the device is not as it was: %s", name, got)
		}
	}
	for name, edit := range map[string]func(*specs.Spec){
		"user namespace": mapUsers, "plain": func(*specs.Spec) {},
	} {
		before := descriptors()
		got, err := run(t, with(edit))
		if after := descriptors(); after > before {
			t.Errorf("%s: %d descriptors, %d before", name, after, before)
		}
		if err != nil || !strings.Contains(got.out, "10.99.1.2/24") ||
			!strings.HasSuffix(got.out, "\n1\n") {
			t.Fatalf("%s: got %q, %v", name, got.out, err)
		}
		// It has ended with the container's network.
		eventually(t, "the device goes", func() bool {
			return exec.Command(tool, "link", "show", "sk-peer").Run() != nil
		})
		ip("link", "add", "sk-dev", "type", "veth", "peer", "name", "sk-peer")
		ip("addr", "add", "10.99.1.2/24", "dev", "sk-dev")
	}
}
