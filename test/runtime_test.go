package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strake/internal/testneed"
)

// ociRig is strake-runtime, or a peer of it, with a state directory and a bundle of its own.
type ociRig struct {
	t                     testing.TB
	program, dir, root    string
	bundle, group, rootfs string
	peer                  []string // the command that takes the place of program, if not empty
}

func newOCIRig(t testing.TB) *ociRig {
	t.Helper()
	bin := os.Getenv("STRAKE_BIN")
	if bin == "" {
		t.Skip("needs STRAKE_BIN, the directory of the built binaries (make test sets it)")
	}
	testneed.Root(t, "makes containers")
	testneed.File(t, "/bin/busybox", "busybox-static")
	dir, err := os.MkdirTemp("", "strake-oci-")
	if err != nil {
		t.Fatal(err)
	}
	r := &ociRig{
		t: t, program: filepath.Join(bin, "strake-runtime"), dir: dir,
		root: filepath.Join(dir, "state"), bundle: filepath.Join(dir, "bundle"),
	}
	r.group, r.rootfs = "/"+filepath.Base(dir), filepath.Join(r.bundle, "rootfs")
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(r.rootfs, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	box, err := os.ReadFile("/bin/busybox")
	if err == nil {
		err = os.WriteFile(filepath.Join(r.rootfs, "bin", "busybox"), box, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{
		"sh", "true", "sleep", "cat", "echo", "hostname", "id", "kill", "tty", "ps", "pwd",
	} {
		if err := os.Symlink("busybox", filepath.Join(r.rootfs, "bin", a)); err != nil {
			t.Fatal(err)
		}
	}
	before := r.host()
	t.Cleanup(func() {
		for _, id := range strings.Fields(r.do("list", "-q").out) {
			r.do("delete", "--force", id)
		}
		if left := r.left(before); len(left) > 0 {
			t.Errorf("left on the host:\n%s", strings.Join(left, "\n"))
		}
		for _, g := range r.groups() { // what the test's own group is in
			os.Remove(g)
		}
		os.RemoveAll(dir)
	})
	r.write(nil)
	return r
}

// write makes the bundle's configuration: that of `strake-runtime spec`, without a terminal, with a
// group of its own and what edit changes.
func (r *ociRig) write(edit func(config map[string]any)) {
	r.t.Helper()
	name := filepath.Join(r.bundle, "config.json")
	os.Remove(name)
	if out, err := exec.Command(r.program, "spec", "-b", r.bundle).CombinedOutput(); err != nil {
		r.t.Fatalf("spec: %v: %s", err, out)
	}
	raw, err := os.ReadFile(name)
	if err != nil {
		r.t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(raw, &config); err != nil {
		r.t.Fatal(err)
	}
	config["process"].(map[string]any)["terminal"] = false
	config["linux"].(map[string]any)["cgroupsPath"] = r.group + "/c"
	config["root"].(map[string]any)["readonly"] = false
	if len(r.peer) > 0 {
		config["ociVersion"] = "1.0.2" // what Debian's versions know
	}
	if edit != nil {
		edit(config)
	}
	if raw, err = json.Marshal(config); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(name, raw, 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// shell is a configuration that runs a script.
func shell(script string) func(map[string]any) {
	return func(config map[string]any) {
		config["process"].(map[string]any)["args"] = []string{"sh", "-c", script}
	}
}

func (r *ociRig) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	r.t.Cleanup(cancel)
	words := append([]string{r.program}, "--root", r.root)
	if len(r.peer) > 0 {
		words = append(slices.Clone(r.peer), "--root", r.root)
	}
	words = append(words, args...)
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Dir = r.bundle
	return cmd
}

// do runs a verb to its end. What a container in the background writes is not waited for: it goes
// to files.
func (r *ociRig) do(args ...string) result {
	r.t.Helper()
	cmd := r.command(args...)
	out, err := os.CreateTemp(r.dir, "out")
	if err != nil {
		r.t.Fatal(err)
	}
	errw, err := os.CreateTemp(r.dir, "err")
	if err != nil {
		r.t.Fatal(err)
	}
	defer os.Remove(out.Name())
	defer os.Remove(errw.Name())
	defer out.Close()
	defer errw.Close()
	cmd.Stdout, cmd.Stderr = out, errw
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		r.t.Fatal(err)
	}
	text := func(f *os.File) string {
		raw, err := os.ReadFile(f.Name())
		if err != nil {
			r.t.Fatal(err)
		}
		return string(raw)
	}
	return result{text(out), text(errw), cmd.ProcessState.ExitCode()}
}

// ok runs a verb and expects success.
func (r *ociRig) ok(args ...string) string {
	r.t.Helper()
	got := r.do(args...)
	if got.code != 0 {
		r.t.Fatalf("%s: status %d\n%s%s", strings.Join(args, " "), got.code, got.out, got.err)
	}
	return got.out
}

func (r *ociRig) state(id string) (state struct {
	Status, Bundle string
	Pid            int
}) {
	r.t.Helper()
	if err := json.Unmarshal([]byte(r.ok("state", id)), &state); err != nil {
		r.t.Fatal(err)
	}
	return state
}

func (r *ociRig) until(what string, cond func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); runtimeYield() {
		if time.Now().After(deadline) {
			r.t.Fatalf("no %s after 20 s", what)
		}
	}
}

// groups are the control groups of this rig, deepest first.
func (r *ociRig) groups() (list []string) {
	tops, _ := filepath.Glob("/sys/fs/cgroup" + r.group)
	more, _ := filepath.Glob("/sys/fs/cgroup/*" + r.group)
	for _, top := range append(tops, more...) {
		filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				list = append(list, p)
			}
			return nil
		})
	}
	slices.Reverse(list)
	return list
}

// host lists what a runtime can leave: control groups of containers, mounts, state, and processes
// whose root or groups are ours.
func (r *ociRig) host() (list []string) {
	r.t.Helper()
	for _, g := range r.groups() {
		if filepath.Base(g) != filepath.Base(r.group) {
			list = append(list, "cgroup "+g)
		}
	}
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if strings.Contains(line, r.dir) {
			list = append(list, "mount "+line)
		}
	}
	entries, _ := os.ReadDir(r.root)
	for _, e := range entries {
		list = append(list, "state "+e.Name())
	}
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		root, _ := os.Readlink(p + "/root")
		member, _ := os.ReadFile(p + "/cgroup")
		stat, _ := os.ReadFile(p + "/stat")
		if strings.Contains(string(stat), ") Z ") {
			continue // the parent of orphans takes its time
		}
		if strings.HasPrefix(root, r.dir) || strings.Contains(string(member), r.group) {
			list = append(list, "process "+p)
		}
	}
	return list
}

// left is what is on the host that was not, given a moment for what the kernel does in the
// background.
func (r *ociRig) left(before []string) (left []string) {
	for deadline := time.Now().Add(5 * time.Second); ; runtimeYield() {
		left = slices.DeleteFunc(r.host(), func(s string) bool {
			return slices.Contains(before, s)
		})
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
	}
}

// TestRuntime is the life of a container by strake-runtime's verbs, as runc has them.
func TestRuntime(t *testing.T) {
	r := newOCIRig(t)
	r.write(shell("hostname; id -u; exit 7"))
	if got := r.do("run", "r"); got.code != 7 || got.out != "strake\n0\n" {
		t.Errorf("run: %+v", got)
	}
	r.write(func(config map[string]any) {
		shell("kill -9 $$")(config)
		linux := config["linux"].(map[string]any)
		linux["namespaces"] = slices.DeleteFunc(linux["namespaces"].([]any), func(n any) bool {
			return n.(map[string]any)["type"] == "pid"
		})
	})
	if got := r.do("run", "r"); got.code != 137 {
		t.Errorf("run of what kills itself: %+v", got)
	}
	r.write(shell("trap 'exit 9' TERM; while true; do sleep 0.05; done"))
	pidFile := filepath.Join(r.dir, "pid")
	r.ok("create", "--pid-file", pidFile, "c")
	st := r.state("c")
	if raw, _ := os.ReadFile(pidFile); st.Status != "created" || st.Bundle != r.bundle ||
		string(raw) != strconv.Itoa(st.Pid) {
		t.Errorf("created: %+v, pid file %q", st, raw)
	}
	if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", st.Pid)); string(comm) == "sh\n" {
		t.Error("the process runs before start")
	}
	if got := r.do("create", "c"); got.code != 1 || !strings.Contains(got.err, "exist") {
		t.Errorf("create of a taken ID: %+v", got)
	}
	r.ok("start", "c")
	if got := r.do("start", "c"); got.code != 1 {
		t.Errorf("second start: %+v", got)
	}
	if got := r.state("c"); got.Status != "running" || got.Pid != st.Pid {
		t.Errorf("running: %+v", got)
	}
	if got := r.ok("list"); !regexp.MustCompile(
		`(?m)^c +` + strconv.Itoa(st.Pid) + ` +running +` + regexp.QuoteMeta(r.bundle),
	).MatchString(got) {
		t.Errorf("list:\n%s", got)
	}
	var listed []map[string]any
	if err := json.Unmarshal([]byte(r.ok("list", "-f", "json")), &listed); err != nil ||
		len(listed) != 1 || listed[0]["id"] != "c" {
		t.Errorf("list -f json: %v, %v", listed, err)
	}
	if got := r.do(
		"exec", "c", "sh", "-c", "echo out; echo err >&2; exit 5",
	); got != (result{"out\n", "err\n", 5}) {
		t.Errorf("exec: %+v", got)
	}
	if got := r.ok(
		"exec", "-e", "A=b", "--cwd", "/tmp", "-u", "5:6", "c", "sh", "-c",
		"echo $A $(pwd) $(id -u) $(id -g)",
	); got != "b /tmp 5 6\n" {
		t.Errorf("exec with flags: %q", got)
	}
	if got := r.do("exec", "c", "nothing-there"); got.code != 127 && got.code != 255 &&
		got.code != 1 || !strings.Contains(got.err, "nothing-there") {
		t.Errorf("exec of a missing program: %+v", got)
	}
	if got := r.ok("ps", "c"); !strings.Contains(got, "sh -c trap") {
		t.Errorf("ps:\n%s", got)
	}
	var pids []int
	if err := json.Unmarshal([]byte(r.ok("ps", "-f", "json", "c")), &pids); err != nil ||
		!slices.Contains(pids, st.Pid) {
		t.Errorf("ps -f json: %v, %v", pids, err)
	}
	r.ok("pause", "c")
	if got := r.state("c").Status; got != "paused" {
		t.Errorf("paused: %s", got)
	}
	if got := r.do("exec", "c", "true"); got.code == 0 {
		t.Error("exec in a paused container")
	}
	r.ok("resume", "c")
	r.ok("update", "--memory", "33554432", "--pids-limit", "99", "c")
	var event struct {
		Type string
		Data struct {
			Memory struct{ Usage struct{ Limit uint64 } }
			Pids   struct{ Limit uint64 }
		}
	}
	if err := json.Unmarshal([]byte(r.ok("events", "--stats", "c")), &event); err != nil ||
		event.Type != "stats" || event.Data.Memory.Usage.Limit != 32<<20 ||
		event.Data.Pids.Limit != 99 {
		t.Errorf("events --stats: %+v, %v", event, err)
	}
	if got := r.do("delete", "c"); got.code != 1 {
		t.Errorf("delete of a running container: %+v", got)
	}
	r.ok("kill", "c")
	r.until("end", func() bool { return r.state("c").Status == "stopped" })
	if got := r.do("kill", "c", "KILL"); got.code != 1 {
		t.Errorf("kill of a stopped container: %+v", got)
	}
	r.ok("delete", "c")
	if got := r.do("state", "c"); got.code != 1 || !strings.Contains(got.err, "does not exist") {
		t.Errorf("state of what was deleted: %+v", got)
	}
	r.ok("run", "-d", "d")
	r.ok("delete", "-f", "d")
	r.ok("delete", "-f", "d") // not there: no error
	var features map[string]any
	if err := json.Unmarshal([]byte(r.ok("features")), &features); err != nil ||
		features["ociVersionMax"] == nil {
		t.Errorf("features: %v, %v", features, err)
	}
	r.ok("--version")
}

// TestRuntimeDefaultGroup: a configuration that names no group gets one with the container's name,
// right below the root. Nothing of it stays, and no engine takes it for its own ("strake", or "s"
// and five digits), whose teardown ends all that is in there.
func TestRuntimeDefaultGroup(t *testing.T) {
	r := newOCIRig(t)
	tops := func() []string {
		list, _ := filepath.Glob("/sys/fs/cgroup/strake*")
		more, _ := filepath.Glob("/sys/fs/cgroup/*/strake*")
		return append(list, more...)
	}
	before := tops()
	r.write(func(config map[string]any) {
		shell("sleep 60")(config)
		delete(config["linux"].(map[string]any), "cgroupsPath")
	})
	id := fmt.Sprintf("d%d", os.Getpid())
	r.ok("run", "-d", id)
	defer r.do("delete", "--force", id)
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", r.state(id).Pid))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(raw), ":/strake-runtime-"+id+"\n") {
		t.Errorf("member of\n%s", raw)
	}
	for line := range strings.Lines(string(raw)) {
		if group := strings.SplitN(
			strings.TrimSpace(line), ":", 3,
		)[2]; strings.Contains(group, id) && group != "/strake-runtime-"+id {
			t.Errorf("member of %s", group)
		}
	}
	r.ok("delete", "--force", id)
	for _, g := range tops() {
		if !slices.Contains(before, g) {
			t.Errorf("left behind: %s", g)
		}
	}
}

// TestRuntimeBad gives strake-runtime configurations and commands that are wrong: one error each
// that names what it is about, nothing left.
func TestRuntimeBad(t *testing.T) {
	r := newOCIRig(t)
	before := r.host()
	section := func(config map[string]any, name string) map[string]any {
		return config[name].(map[string]any)
	}
	for _, c := range []struct {
		name, want string
		edit       func(map[string]any)
	}{
		{
			"no arguments", "process.args",
			func(c map[string]any) { section(c, "process")["args"] = []string{} },
		},
		{
			"missing program", "nothing-there",
			func(c map[string]any) { section(c, "process")["args"] = []string{"nothing-there"} },
		},
		{
			"no program", "/etc",
			func(c map[string]any) { section(c, "process")["args"] = []string{"/etc"} },
		},
		{
			"relative cwd", "process.cwd",
			func(c map[string]any) { section(c, "process")["cwd"] = "tmp" },
		},
		{"unknown limit", "RLIMIT_NONSENSE", func(c map[string]any) {
			section(c, "process")["rlimits"] = []map[string]any{
				{"type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1},
			}
		}},
		{"limits upside down", "process.rlimits", func(c map[string]any) {
			section(c, "process")["rlimits"] = []map[string]any{
				{"type": "RLIMIT_NOFILE", "soft": 9, "hard": 1},
			}
		}},
		{"no root", "root", func(c map[string]any) { delete(c, "root") }},
		{
			"missing root", "/does/not/exist",
			func(c map[string]any) { section(c, "root")["path"] = "/does/not/exist" },
		},
		{"missing source", "/does/not/exist", func(c map[string]any) {
			c["mounts"] = append(
				c["mounts"].([]any),
				map[string]any{
					"destination": "/d", "source": "/does/not/exist", "type": "bind",
					"options": []string{"bind"},
				},
			)
		}},
		{"unknown filesystem", "nonsensefs", func(c map[string]any) {
			c["mounts"] = append(
				c["mounts"].([]any),
				map[string]any{"destination": "/d", "source": "x", "type": "nonsensefs"},
			)
		}},
		{"unknown namespace", "nonsense", func(c map[string]any) {
			section(c, "linux")["namespaces"] = []map[string]any{{"type": "nonsense"}}
		}},
		{"namespace twice", "pid", func(c map[string]any) {
			section(c, "linux")["namespaces"] = []map[string]any{
				{"type": "mount"}, {"type": "uts"}, {"type": "pid"}, {"type": "pid"},
			}
		}},
		{"missing namespace", "/does/not/exist", func(c map[string]any) {
			section(c, "linux")["namespaces"] = []map[string]any{
				{"type": "mount"}, {"type": "uts"}, {"type": "network", "path": "/does/not/exist"},
			}
		}},
		{"hostname of the host", "hostname", func(c map[string]any) {
			section(c, "linux")["namespaces"] = []map[string]any{{"type": "mount"}, {"type": "pid"}}
		}},
		{"unknown sysctl", "kernel.nonsense", func(c map[string]any) {
			section(c, "linux")["sysctl"] = map[string]string{"kernel.nonsense": "1"}
		}},
		{"unknown filter action", "SCMP_ACT_NONSENSE", func(c map[string]any) {
			section(c, "linux")["seccomp"] = map[string]any{"defaultAction": "SCMP_ACT_NONSENSE"}
		}},
		{
			"climbing group", "linux.cgroupsPath",
			func(c map[string]any) { section(c, "linux")["cgroupsPath"] = r.group + "/../../up" },
		},
		{"impossible processors", "cpuset", func(c map[string]any) {
			section(c, "linux")["resources"] = map[string]any{"cpu": map[string]any{"cpus": "999"}}
		}},
		{
			"unknown profile", "process.apparmorProfile",
			func(c map[string]any) { section(c, "process")["apparmorProfile"] = "strake-no-such" },
		},
		{"wrong type", "hostname", func(c map[string]any) { c["hostname"] = 5 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := *r
			r.t = t
			r.write(c.edit)
			for _, verb := range []string{"run", "create"} {
				got := r.do(verb, "bad")
				if got.code == 0 || strings.Count(strings.TrimSpace(got.err), "\n") != 0 ||
					!strings.Contains(got.err, c.want) {
					t.Errorf(
						"%s: status %d, %q; want one line with %q", verb, got.code, got.err, c.want,
					)
				}
				if got.code == 0 {
					r.do("delete", "--force", "bad")
				}
				if left := r.left(before); len(left) > 0 {
					t.Fatalf("%s left:\n%s", verb, strings.Join(left, "\n"))
				}
			}
		})
	}
	r.write(nil)
	for _, c := range []struct{ args, want string }{
		{"nonsense", "nonsense"}, {"run", "ID"}, {"run a b", ""}, {"run --nonsense x", "nonsense"},
		{"run ../x", "../x"}, {"run -b /does/not/exist x", "/does/not/exist"},
		{"start missing", "missing"}, {"state missing", "missing"}, {"kill missing", "missing"},
		{"exec missing true", "missing"}, {"delete missing", "missing"},
		{"pause missing", "missing"}, {"ps missing", "missing"}, {"events missing", "missing"},
		{"update --memory 1048576 missing", "missing"},
		{"list -f nonsense", "nonsense"}, {"run --preserve-fds x y", "preserve-fds"},
		{"spec", "config.json"},
	} {
		got := r.do(strings.Fields(c.args)...)
		if got.code == 0 || got.out != "" || !strings.Contains(got.err, c.want) {
			t.Errorf("%s: %+v; want an error with %q", c.args, got, c.want)
		}
	}
	if left := r.left(before); len(left) > 0 {
		t.Errorf("left:\n%s", strings.Join(left, "\n"))
	}
}

// TestRuntimeKilled kills strake-runtime with SIGKILL at every system call of create, start, run
// and delete, and then asks for the container's removal, as an engine does: nothing
// of it is left, and the name can be used again.
func TestRuntimeKilled(t *testing.T) {
	r := newOCIRig(t)
	r.write(shell("sleep 1000"))
	before := r.host()
	for _, c := range []struct {
		name          string
		prepare, args []string
	}{
		{"create", nil, []string{"create", "c"}},
		{"run", nil, []string{"run", "-d", "c"}},
		{"start", []string{"create", "c"}, []string{"start", "c"}},
		{"delete", []string{"run", "-d", "c"}, []string{"delete", "--force", "c"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := *r
			r.t = t
			// Go may go on in another thread, which is not counted: a call that is reached seldom
			// is asked for several times.
			killed, missed := 0, 0
			for n := 1; missed < 8; n++ {
				if c.prepare != nil {
					r.ok(c.prepare...)
				}
				ended := r.killAt(n, c.args...)
				r.ok("delete", "--force", "c")
				if left := r.left(before); len(left) > 0 {
					t.Fatalf(
						"killed at system call %d of %s:\n%s", n, c.name, strings.Join(left, "\n"),
					)
				}
				if ended {
					missed++
					n--
					continue
				}
				killed, missed = killed+1, 0
			}
			t.Logf("killed at %d system calls", killed)
			if killed < 15 {
				t.Errorf("killed at %d system calls only", killed)
			}
		})
	}
}

// killAt runs a verb and kills it when its first thread is about to make its n-th system call after
// the runtime of Go has come up. It reports whether the verb ended before.
func (r *ociRig) killAt(n int, args ...string) (ended bool) {
	r.t.Helper()
	runtime.LockOSThread() // ptrace(2) is between threads
	defer runtime.UnlockOSThread()
	cmd := r.command(args...)
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	defer null.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = null, null, null
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	pid := cmd.Process.Pid
	defer cmd.Process.Release()
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
		r.t.Fatal(err)
	}
	unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_EXITKILL)
	calls, entry, counting := 0, true, false
	for sig := 0; ; {
		// A thread that is not looked at may end all of them while the first one stands still
		// (ESRCH): its end is the next thing to be seen.
		if err := unix.PtraceSyscall(pid, sig); err != nil && err != unix.ESRCH {
			r.t.Fatalf("ptrace: %v", err)
		}
		if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != nil {
			r.t.Fatal(err)
		}
		switch {
		case status.Exited() || status.Signaled():
			return true
		case status.StopSignal() == unix.SIGTRAP|0x80:
			if entry {
				// The state directory is the first thing that is asked for by name.
				if counting = counting || r.names(pid); counting {
					calls++
				}
				if counting && calls == n {
					unix.Kill(pid, unix.SIGKILL)
					for !status.Exited() && !status.Signaled() {
						if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != nil {
							r.t.Fatal(err)
						}
					}
					return false
				}
			}
			entry, sig = !entry, 0
		default:
			sig = int(status.StopSignal())
			if sig == int(unix.SIGTRAP) || sig == int(unix.SIGSTOP) {
				sig = 0
			}
		}
	}
}

// names says whether the system call that a stopped process is about to make has a path below the
// rig's directory.
func (r *ociRig) names(pid int) bool {
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(pid, &regs); err != nil {
		r.t.Fatal(err)
	}
	buf := make([]byte, len(r.dir))
	for _, at := range pathArguments(&regs) {
		if n, err := unix.PtracePeekData(pid, at, buf); err == nil && n == len(buf) &&
			bytes.Equal(buf, []byte(r.dir)) {
			return true
		}
	}
	return false
}
