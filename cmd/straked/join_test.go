package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// netns is the network namespace of a container's first process.
func (r *faultRig) netns(name string) string {
	r.t.Helper()
	in := r.inspect(name)
	if in == nil {
		r.t.Fatalf("container %s is gone", name)
	}
	text, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", in.State.Pid))
	if err != nil {
		r.t.Fatal(err)
	}
	return text
}

// address is the address of the interface of a container, as a process in it sees it.
func (r *faultRig) address(name string) string {
	r.t.Helper()
	in := r.inspect(name)
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/fib_trie", in.State.Pid))
	if err != nil {
		r.t.Fatal(err)
	}
	var last, own string
	for line := range strings.Lines(string(raw)) {
		f := strings.Fields(line)
		if len(f) > 1 && (f[0] == "|--" || f[0] == "+--") {
			last = f[1]
		}
		if strings.Contains(line, "/32 host LOCAL") && !strings.HasPrefix(last, "127.") {
			own = last
		}
	}
	return own
}

// address is the one in the default network.
func (in *inspected) address() string { return in.NetworkSettings.Networks["bridge"].IPAddress }

// TestSharedSandbox: containers that share the network, IPC and UTS namespaces of another one are in
// its sandbox, not in its process's namespaces: it may end, be started again and be removed, and the
// engine may be killed in between, without the others losing address, namespaces or /dev/shm.
func TestSharedSandbox(t *testing.T) {
	r := newFaultRig(t)
	r.mustLaunch()
	r.must("POST", "/images/create?fromSrc=-&repo=faulty", tree(t, "base"))
	loop := []string{"sh", "-c", "while true; do sleep 1000; done"}
	r.must("POST", "/containers/create?name=first", map[string]any{
		"Image": "faulty", "Cmd": loop, "HostConfig": map[string]any{"IpcMode": "shareable"},
	})
	r.must("POST", "/containers/first/start", nil)
	r.must("POST", "/containers/create?name=second", map[string]any{
		"Image": "faulty", "Cmd": loop, "HostConfig": map[string]any{
			"NetworkMode": "container:first", "IpcMode": "container:first",
			"UTSMode": "container:first",
		},
	})
	r.must("POST", "/containers/second/start", nil)
	ns, address := r.netns("second"), r.address("second")
	if ns != r.netns("first") || address == "" {
		t.Fatalf("the two are in %s and %s, address %q", ns, r.netns("first"), address)
	}
	same := func(when string) {
		t.Helper()
		if got := r.netns("second"); got != ns {
			t.Errorf("%s: the second is in %s, was in %s", when, got, ns)
		}
		if got := r.address("second"); got != address {
			t.Errorf("%s: the second has the address %q, had %q", when, got, address)
		}
	}
	restart := func(when string) {
		t.Helper()
		r.must("POST", "/containers/first/start", nil)
		same(when)
		if got := r.netns("first"); got != ns {
			t.Errorf("%s: the first is in %s, the second in %s", when, got, ns)
		}
		if got := r.inspect("first").address(); got != address {
			t.Errorf("%s: the first has %q, want %q", when, got, address)
		}
	}
	r.must("POST", "/containers/first/kill", nil)
	same("the first has ended")
	restart("the first was started again")
	r.must("POST", "/containers/first/kill", nil)
	r.kill()
	r.mustLaunch()
	same("the engine was killed while the first was down")
	restart("the first was started by the next engine")
	r.kill()
	r.mustLaunch()
	same("the engine was killed while both ran")
	r.must("POST", "/containers/first/restart?t=0", nil)
	same("the first was restarted")
	// The last member is restarted: the sandbox waits for it.
	r.must("POST", "/containers/first/kill", nil)
	r.must("POST", "/containers/second/restart?t=0", nil)
	same("the second was restarted while the first was down")
	r.must("DELETE", "/containers/first", nil)
	r.must("POST", "/containers/second/restart?t=0", nil)
	same("the first was removed and the second restarted")
	r.must("POST", "/containers/second/kill", nil)
	if _, err := r.call("POST", "/containers/second/start", nil); err == nil {
		t.Error("a sandbox without a member can be joined")
	}
	r.must("DELETE", "/containers/second", nil)
	for _, x := range r.host() {
		if strings.Contains(x, "strake-hold") || strings.Contains(x, "/sandboxes/") {
			t.Errorf("left: %s", x)
		}
	}
}

// TestJoinNothing: joining a container that does not run, and IPC that is not shareable, are
// refused in dockerd's words, and nothing is left of the attempt.
func TestJoinNothing(t *testing.T) {
	r := newFaultRig(t)
	r.mustLaunch()
	r.must("POST", "/images/create?fromSrc=-&repo=faulty", tree(t, "base"))
	create := func(name string, host map[string]any) {
		t.Helper()
		r.must("POST", "/containers/create?name="+name, map[string]any{
			"Image": "faulty", "Cmd": []string{"sleep", "1000"}, "HostConfig": host,
		})
	}
	create("first", nil)
	create("net", map[string]any{"NetworkMode": "container:first"})
	create("ipc", map[string]any{"IpcMode": "container:first"})
	create("pid", map[string]any{"PidMode": "container:first"})
	start := func(name string) string {
		t.Helper()
		_, err := r.call("POST", "/containers/"+name+"/start", nil)
		if err == nil {
			t.Fatalf("%s starts", name)
		}
		_, body, _ := strings.Cut(err.Error(), "{")
		var msg struct{ Message string }
		json.Unmarshal([]byte("{"+body), &msg)
		return msg.Message
	}
	if got := start("net"); !strings.Contains(got, "cannot join network namespace of a non running container") {
		t.Errorf("message %q", got)
	}
	if got := start("pid"); !strings.HasPrefix(got, "failed to join PID namespace: container ") {
		t.Errorf("message %q", got)
	}
	r.must("POST", "/containers/first/start", nil)
	if got := start("ipc"); !strings.Contains(got, "non-shareable IPC") {
		t.Errorf("message %q", got)
	}
	for _, name := range []string{"net", "ipc", "pid", "first"} {
		r.must("DELETE", "/containers/"+name+"?force=1", nil)
	}
	for _, x := range r.host() {
		if strings.Contains(x, "strake-hold") || strings.Contains(x, "/sandboxes/") {
			t.Errorf("left: %s", x)
		}
	}
}
