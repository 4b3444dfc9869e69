package cli_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// row is a documented command line: what comes before it, what it prints and what it does.
type row struct {
	line   string
	before []string
	want   string // a regular expression for the whole output
	exact  string // the whole output, if it is no text
	check  func(t *testing.T, r *rig)
}

func is(tree, group, file, want string) func(*testing.T, *rig) {
	return func(t *testing.T, r *rig) {
		t.Helper()
		if got := r.file(tree, group, file); got != want {
			t.Errorf("%s/%s/%s: got %q, want %q", tree, group, file, got, want)
		}
	}
}

// left checks the groups that there are.
func left(want ...string) func(*testing.T, *rig) {
	return func(t *testing.T, r *rig) {
		t.Helper()
		if got := strings.Join(r.groups(), " "); got != strings.Join(want, " ") {
			t.Errorf("got groups %s\nwant %s", got, strings.Join(want, " "))
		}
	}
}

const memory = `memory:{limit:100000000}`

var cpuGroups = []string{"cpu/x", "cpuacct/x", "cpuset/x", "freezer/x"}

var rows = []row{
	{line: "init ''", check: is("cpu", "batch", "cpu.shares", "2")},
	{line: "init -c $DIR/init"},
	{
		line:  "create memory_only '" + memory + "'",
		check: left("freezer/memory_only", "memory/memory_only"),
	},
	{
		line:  "create /x '" + memory + "'",
		check: is("memory", "x", "memory.limit_in_bytes", "99999744"),
	},
	{line: "create -c $DIR/text /x", check: is("cpu", "x", "cpu.shares", "512")},
	{line: "create /x -c $DIR/binary", check: is("cpu", "x", "cpu.shares", "1024")},
	{line: "create /x 'cpu:{limit:2000}'", check: left(cpuGroups...)},
	{line: "create /x ''", check: left("freezer/x")},
	{
		line: "create /x/y 'cpu:{limit:500}'", before: []string{"create /x '" + memory + "'"},
		check: left("cpu/x:y", "cpuacct/x:y", "cpuset/x:y", "freezer/x", "freezer/x/y", "memory/x"),
	},
	{
		line:  "create /x 'cpu:{max_limit:250}'",
		check: is("cpu", "x", "cpu.cfs_quota_us", "62500"),
	},
	{line: "create /x 'cpu:{mask:{data:1}}'", check: is("cpuset", "x", "cpuset.cpus", "0")},
	{
		line: "create /x 'cpu:{scheduling_latency:NORMAL limit:3000}'",
		check: func(t *testing.T, r *rig) {
			is("cpu", "batch", "cpu.shares", "2")(t, r)
			is("cpu", "batch/x", "cpu.shares", "3072")(t, r)
		},
	},
	{
		line:  "create /x 'cpu:{scheduling_latency:BEST_EFFORT}'",
		check: is("cpu", "batch/x", "cpu.idle", "1"),
	},
	{
		line: "create /x 'cpu:{scheduling_latency:PRIORITY}'", check: left(cpuGroups...),
	},
	{
		line:  "create /x 'memory:{limit:8192000 reservation:4096000}'",
		check: is("memory", "x", "memory.soft_limit_in_bytes", "4096000"),
	},
	{
		line: "create /x '" + memory + " owner:12345 owner_group:54321'",
		check: func(t *testing.T, r *rig) {
			for _, f := range []string{"memory$BASE/x/tasks", "freezer$BASE/x", "memory$BASE/x"} {
				f = "/sys/fs/cgroup/" + r.expand(f)
				out, err := exec.Command("stat", "-c", "%u:%g", f).Output()
				if got := strings.TrimSpace(string(out)); got != "12345:54321" {
					t.Errorf("%s: got %s, %v", f, got, err)
				}
			}
		},
	},
	{
		line: "create /x 'device:{restrictions_set:{restrictions:{permission:DENY " +
			"type:DEVICE_ALL} restrictions:{permission:ALLOW type:DEVICE_CHAR access:READ " +
			"major:1 minor:3}}}'",
		check: is("devices", "x", "devices.list", "c 1:3 r"),
	},
	{
		line: "destroy /x", before: []string{"create /x 'cpu:{} " + memory + "'"}, check: left(),
	},
	{
		line: "destroy -f /x", before: []string{
			"create /x 'cpu:{scheduling_latency:NORMAL}'", "create /x/y '" + memory + "'",
			"run -n /x/y sleep 1000", "run -n /x sleep 1000",
		},
		check: left(),
	},
	{
		// A process of version 1 that is frozen does not end.
		line: "destroy /x/ -f", before: []string{
			"create /x 'cpu:{} " + memory + "'", "create /x/y 'cpu:{}'", "run -n /x/y sleep 1000",
			"pause /x/y", "pause /x",
		},
		check: left(),
	},
	{line: "destroy /x -f", before: []string{"create /x ''"}, check: left()},
	{
		line:   "update replace /x 'cpu:{max_limit:500}'",
		before: []string{"create /x 'cpu:{limit:500 mask:{data:1}}'"},
		check: func(t *testing.T, r *rig) {
			is("cpu", "x", "cpu.shares", "1024")(t, r)
			is("cpu", "x", "cpu.cfs_quota_us", "125000")(t, r)
			is("cpuset", "x", "cpuset.cpus", r.file("cpuset", ".", "cpuset.cpus"))(t, r)
		},
	},
	{
		line:   "update diff /x 'cpu:{max_limit:500}'",
		before: []string{"create /x 'cpu:{limit:500} memory:{limit:8192000}'"},
		check: func(t *testing.T, r *rig) {
			is("cpu", "x", "cpu.shares", "512")(t, r)
			is("cpu", "x", "cpu.cfs_quota_us", "125000")(t, r)
			is("memory", "x", "memory.limit_in_bytes", "8192000")(t, r)
		},
	},
	{
		line: "update diff -c $DIR/text /x", before: []string{"create /x 'cpu:{limit:700}'"},
		check: is("cpu", "x", "cpu.shares", "512"),
	},
	{
		line: "run /x 'echo hello world'", before: []string{"create /x '" + memory + "'"},
		want: "hello world\n",
	},
	{
		line: "run /x/y cat /proc/self/cgroup",
		before: []string{
			"create /x '" + memory + "'", "create /x/y 'cpu:{}'",
		},
		want: `(?s).*freezer:$BASE/x/y\n.*memory:$BASE/x\n.*cpu:$BASE/x:y\n.*`,
	},
	{
		line: "run /x ls -d -l /", before: []string{"create /x '" + memory + "'"},
		want: `d.* /\n`, // flags behind the name are the command's
	},
	{
		line: "run -n /x 'sleep 1000'", before: []string{"create /x '" + memory + "'"},
		want: `pid="\d+"\n`,
		check: func(t *testing.T, r *rig) {
			pid, _, _ := strings.Cut(r.file("freezer", "x", "cgroup.procs"), "\n")
			is("memory", "x", "cgroup.procs", r.file("freezer", "x", "cgroup.procs"))(t, r)
			for fd := range 3 {
				to, err := os.Readlink(fmt.Sprintf("/proc/%s/fd/%d", pid, fd))
				if to != "/dev/null" {
					t.Errorf("descriptor %d: %s, %v", fd, to, err)
				}
			}
		},
	},
	{line: "detect", want: `name="/"\n`},
	{
		line:   "run /x '$LMCTFY detect; true'",
		before: []string{"create /x '" + memory + "'"}, want: `name="/x"\n`,
	},
	{
		line: "run /x '$LMCTFY create sub cpu:{} && $LMCTFY create ./sub2 cpu:{} && " +
			"$LMCTFY list containers; true'",
		before: []string{"create /x '" + memory + "'"}, want: `name="/x/sub"\nname="/x/sub2"\n`,
	},
	{
		line:   "run /x '$LMCTFY create ../sibling cpu:{} && $LMCTFY list containers -v ..; true'",
		before: []string{"create /x ''"}, want: "/sibling\n/x\n",
	},
	{
		line:   "run /x '$LMCTFY enter /y; $LMCTFY detect; $LMCTFY detect $$; true'",
		before: []string{"create /x 'cpu:{}'", "create /y '" + memory + "'"},
		want:   `name="/y"\nname="/y"\n`,
	},
	{
		line:   "run /x '$LMCTFY enter /y; cat /proc/self/cgroup'",
		before: []string{"create /x 'cpu:{}'", "create /y '" + memory + "'"},
		// What /y does not isolate is not left in /x.
		want: `(?s).*freezer:$BASE/y\n.*memory:$BASE/y\n.*cpu:$BASE\n.*`,
	},
	{
		line: "list containers", before: []string{"create /x ''", "create /x/y ''", "create /w ''"},
		want: `name="/w"\nname="/x"\n`,
	},
	{
		line:   "list containers -r /",
		before: []string{"create /x ''", "create /x/y ''", "create /x-z ''"},
		want:   `name="/x"\nname="/x-z"\nname="/x/y"\n`,
	},
	{
		line: "list containers /x", before: []string{"create /x ''", "create /x/y ''"},
		want: `name="/x/y"\n`,
	},
	{
		line:   "run /x '$LMCTFY list pids -v | grep -x $$ | wc -l'",
		before: []string{"create /x ''"}, want: "1\n",
	},
	{
		line:   "list pids -v /x",
		before: []string{"create /x ''", "create /x/y ''", "run -n /x/y sleep 1000"}, want: "",
	},
	{
		line:   "list pids -r /x",
		before: []string{"create /x ''", "create /x/y ''", "run -n /x/y sleep 1000"},
		want:   `pid="\d+"\n`,
	},
	{
		line:   "list tids /x",
		before: []string{"create /x ''", "run -n /x sleep 1000"}, want: `tid="\d+"\n`,
	},
	{
		line:   "list tids -r /",
		before: []string{"create /x ''", "create /x/y ''", "run -n /x/y sleep 1000"},
		want:   `tid="\d+"\n`,
	},
	{
		line:   "stats summary /x",
		before: []string{"create /x 'cpu:{} memory:{limit:8192000}'", "run -n /x sleep 1000"},
		want: `(?s)cpu \{\n  usage \{\n    total: [1-9].*  load: [01]\n\}\nmemory \{\n` +
			`  limit: 8192000\n  effective_limit: 8192000\n  reservation: 0\n  usage: [1-9].*` +
			`  working_set: \d+\n.*  fail_count: 0\n\}\n`,
	},
	{
		line: "stats full /x", before: []string{"create /x 'cpu:{max_limit:100}'"},
		want: `(?s)cpu \{.*throttling_data \{\n    periods: \d+\n.*`,
	},
	{
		line:   "stats summary -b /x",
		before: []string{"create /x 'cpu:{}'"}, want: `(?s)\x0a.\x0a.\x08.*`,
	},
	{line: "stats summary", before: []string{"init ''"}, want: `(?s)cpu \{.*memory \{.*`},
	{
		line:   "spec /x",
		before: []string{"create /x 'cpu:{limit:333 max_limit:250} memory:{limit:100000000}'"},
		want: `cpu \{\n  limit: 333\n  max_limit: 250\n  mask \{\n    data: \d+\n  \}\n\}\n` +
			`memory \{\n  eviction_priority: 5000\n  limit: 100000000\n  reservation: 0\n` +
			`(  swap_limit: -1\n)?\}\n`,
	},
	{
		line:   "spec -b /x",
		before: []string{"create /x 'cpu:{limit:1000 mask:{data:1}}'"},
		exact:  "\x12\x07\x10\xe8\x07\x22\x02\x08\x01",
	},
	{
		line:   "run /x '$LMCTFY spec; true'",
		before: []string{"create /x 'children_limit:3 owner:0'"},
		want:   `owner: 0\nchildren_limit: 3\n`,
	},
	{
		line: "killall /x",
		before: []string{
			"create /x ''", "create /x/y ''", "run -n /x sleep 1000", "run -n /x/y sleep 1000",
		},
		check: func(t *testing.T, r *rig) {
			is("freezer", "x", "cgroup.procs", "")(t, r)
			if r.file("freezer", "x/y", "cgroup.procs") == "" {
				t.Error("the process of the container inside is gone too")
			}
		},
	},
	{
		line: "pause /x", before: []string{"create /x ''", "create /x/y ''"},
		check: func(t *testing.T, r *rig) {
			is("freezer", "x", "freezer.state", "FROZEN")(t, r)
			is("freezer", "x/y", "freezer.state", "FROZEN")(t, r)
			if _, errs, code := r.run("run -n /x/y sleep 1000"); code != 9 {
				t.Errorf("run -n: exit status %d: %s", code, errs)
			}
		},
	},
	{
		line: "resume /x", before: []string{"create /x ''", "pause /x"},
		check: is("freezer", "x", "freezer.state", "THAWED"),
	},
	{
		line:   "killall /./x",
		before: []string{"create /x ''", "run -n /x sleep 1000", "pause /x"},
		check:  is("freezer", "x", "tasks", ""),
	},
}

// TestCommands is for the trees of version 1, whose files the rows check.
func TestCommands(t *testing.T) { testRows(t, 1, rows) }

// TestCommandsVersion2 runs the rows that say nothing of version 1.
func TestCommandsVersion2(t *testing.T) {
	var some []row
	for _, row := range rows {
		if row.check == nil && !strings.Contains(row.want, "freezer") &&
			!strings.Contains(row.line, "/proc") {
			some = append(some, row)
		}
	}
	testRows(t, 2, some)
}

func testRows(t *testing.T, version int, rows []row) {
	t.Parallel()
	for _, row := range rows {
		t.Run(row.line, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, version)
			r.write("text", "cpu { limit: 500 }")
			r.write("binary", "\x12\x03\x10\xe8\x07")
			if version == 1 {
				r.write("init", "cgroup_mount { mount_path: '/sys/fs/cgroup/freezer' "+
					"hierarchy: CGROUP_FREEZER }")
			} else {
				r.write("init", "memory {}")
			}
			r.must(row.before...)
			out, errs, code := r.run(row.line)
			if code != 0 || errs != "" {
				t.Fatalf("exit status %d: %s", code, errs)
			}
			want := regexp.MustCompile(`^(?:` + r.expand(row.want) + `)$`)
			if row.exact != "" && out != row.exact || row.exact == "" && !want.MatchString(out) {
				t.Errorf("got %q\nwant %s", out, want)
			}
			if row.check != nil {
				row.check(t, r)
			}
		})
	}
}

func (r *rig) write(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// TestEnterThreads moves threads of a process that is elsewhere.
func TestEnterThreads(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.must("create /x '" + memory + " cpu:{}'")
	cmd := r.program("threads")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.start(cmd)
	var tids []string
	for s := bufio.NewScanner(out); len(tids) < 2 && s.Scan(); {
		tids = append(tids, s.Text())
	}
	r.must("enter /x " + strings.Join(tids, " "))
	if got := strings.Fields(r.must("list tids -v /x")); len(got) != 2 {
		t.Errorf("threads %q, want %q", got, tids)
	}
	if got := r.must("detect -v " + tids[1]); got != "/x\n" {
		t.Errorf("the thread is in %q", got)
	}
	if got := r.must("detect -v " + strconv.Itoa(cmd.Process.Pid)); got != "/\n" {
		t.Errorf("the process is in %q", got)
	}
	if _, errs, code := r.run("destroy /x"); code != 9 {
		t.Errorf("destroy: exit status %d: %s", code, errs)
	}
	r.must("killall /x")
	if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("the process of the threads: %v", err)
	}
	r.must("destroy /x")
}

// TestNotify waits for events while processes of the container use memory.
func TestNotify(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ line, use string }{
		{"notify memory oom /x", "67108864"},
		{"notify memory threshold /x 8388608", "12582912"},
	} {
		t.Run(c.line, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1)
			r.must("create /x 'memory:{limit:16777216 swap_limit:16777216}'")
			cmd := r.program("lmctfy", words(c.line)...)
			var out strings.Builder
			cmd.Stdout = &out
			done := make(chan error, 1)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			go func() { done <- cmd.Wait() }()
			t.Cleanup(func() { cmd.Process.Kill() })
			// The event counts only after the command has begun to wait, so it is made again.
			r.until("notification", func() bool {
				r.run("run /x 'env " + mode + "=memory $LMCTFY " + c.use + "'")
				select {
				case err := <-done:
					if err != nil || out.String() != "notification_status=\"0\"\n" {
						t.Errorf("got %q, %v", out.String(), err)
					}
					return true
				default:
					return false
				}
			})
		})
	}
}

// TestNotifyEndsWithContainer destroys a container that a command waits for.
func TestNotifyEndsWithContainer(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.must("create /x '" + memory + "'")
	cmd := r.start(r.program("lmctfy", "notify", "memory", "oom", "/x"))
	r.until("it waits", func() bool {
		list, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", cmd.Process.Pid))
		for _, fd := range list {
			if to, _ := os.Readlink(fd); strings.HasSuffix(to, "memory.oom_control") {
				return true
			}
		}
		return false
	})
	r.must("destroy /x")
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 5 {
		t.Errorf("got %v, want exit status 5", err)
	}
}
