package cli_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/lmctfy/cli"
)

// TestWrong runs command lines that fail, with the whole text of the error and the exit status.
// Nothing is left of them.
func TestWrong(t *testing.T) {
	t.Parallel()
	const usageCreate = "\nusage: lmctfy create [-c <config file>] <container name> " +
		"[<spec proto in text or binary form>]"
	for _, c := range []struct {
		line   string
		before []string
		code   int
		want   string
	}{
		{line: "", code: 5, want: "NOT_FOUND: lmctfy: which command? want one of create, destroy, " +
			"detect, enter, init, killall, list, notify, pause, resume, run, spec, stats, update"},
		{line: "crate /x ''", code: 5, want: `NOT_FOUND: lmctfy: there is no command "crate"; did ` +
			`you mean "create"? want one of create, destroy, detect, enter, init, killall, list, ` +
			`notify, pause, resume, run, spec, stats, update`},
		{line: "list threads", code: 5, want: `NOT_FOUND: lmctfy list: there is no command ` +
			`"threads"; want one of containers, pids, tids`},
		{line: "create", code: 3, want: "INVALID_ARGUMENT: missing arguments" + usageCreate},
		{line: "create /x '' more", code: 3, want: `INVALID_ARGUMENT: extraneous argument "more"` +
			usageCreate},
		{line: "create -r /x ''", code: 3, want: "INVALID_ARGUMENT: flag -r: lmctfy create does " +
			"not take it" + usageCreate},
		{line: "-x list", code: 3, want: "INVALID_ARGUMENT: flag -x: there is no such flag; want " +
			"one of -b -c -f -h -l -n -p -r -v -V\nusage: lmctfy [flags] <command> [<arguments>]"},
		{line: "--lmctfy_recursve list", code: 3, want: "INVALID_ARGUMENT: flag " +
			"--lmctfy_recursve: there is no such flag; did you mean --lmctfy_recursive?\n" +
			"usage: lmctfy [flags] <command> [<arguments>]"},
		{line: "--lmctfy_output_style=wide list", code: 3, want: "INVALID_ARGUMENT: flag " +
			"--lmctfy_output_style: \"wide\": want values, long or pairs\n" +
			"usage: lmctfy [flags] <command> [<arguments>]"},
		{line: "create /x", code: 3, want: "INVALID_ARGUMENT: there is no specification: want one " +
			"on the command line, or -c"},
		{line: "create -c $DIR/text /x 'cpu{}'", code: 3, want: "INVALID_ARGUMENT: -c and a " +
			"specification on the command line: want one of them"},
		{line: "create -c $DIR/none /x", code: 5, want: "NOT_FOUND: open $DIR/none: no such file " +
			"or directory"},
		{line: "create /x 'cpu:{limitt:1}'", code: 3, want: `INVALID_ARGUMENT: ContainerSpec: ` +
			`line 1:6: there is no field "limitt"; did you mean "limit"?`},
		{line: "create /x 'cpu:{scheduling_latency:FAST}'", code: 3, want: "INVALID_ARGUMENT: " +
			"ContainerSpec: line 1:25: scheduling_latency: FAST: want BEST_EFFORT, NORMAL, " +
			"PRIORITY, PREMIER"},
		{line: "create /x 'cpu:{max_limit:1}'", code: 3, want: "INVALID_ARGUMENT: cpu.max_limit: " +
			"1: want 4 to 1073741824 milliseconds a second"},
		{line: "create /x 'memory:{limit:-7}'", code: 3, want: "INVALID_ARGUMENT: memory.limit: " +
			"-7: want a number of bytes, or -1 for no limit"},
		{line: "create /x 'memory:{limit:100 reservation:200}'", code: 3, want: "INVALID_ARGUMENT: " +
			"memory.reservation: 200: want at most memory.limit, 100"},
		{line: "create /x 'virtual_host:{}'", code: 9, want: "FAILED_PRECONDITION: virtual_host: " +
			"resource containers have no namespaces here; strake run and strake lxc make " +
			"containers that have"},
		{line: "create /x 'cpu:{mask:{data:[" + strings.Repeat("0,", 127) + "1]}}'", code: 3, want: "INVALID_ARGUMENT: " +
			"linux.resources.cpu.cpus: cpuset.cpus=8128: write /sys/fs/cgroup/cpuset$BASE/x/" +
			"cpuset.cpus: numerical result out of range: the kernel does not take this value"},
		{line: "create /x 'blockio:{max_device_limit_set:{max_limits:{op_type:READ limit_type:" +
			"IO_PER_SECOND limits:{device:{major:4095 minor:77} limit:5}}}}'", code: 9,
			want: "FAILED_PRECONDITION: linux.resources.blockIO.throttleReadIOPSDevice[0]: " +
				"blkio.throttle.read_iops_device=4095:77 5: write /sys/fs/cgroup/blkio$BASE/x/" +
				"blkio.throttle.read_iops_device: no such device: the kernel cannot do this here"},
		{line: "create 'a b' ''", code: 3, want: `INVALID_ARGUMENT: container name "a b": ` +
			`character ' ': want letters, digits, '_', '-', '.' and '/'`},
		{line: "create /-x ''", code: 3, want: `INVALID_ARGUMENT: container name "/-x": part "-x" ` +
			`has to begin with a letter or a digit`},
		{line: "create / ''", code: 6, want: `ALREADY_EXISTS: container "/"`},
		{line: "create /x ''", before: []string{"create /x ''"}, code: 6,
			want: `ALREADY_EXISTS: container "/x"`},
		{line: "create /x/y ''", code: 5, want: `NOT_FOUND: container "/x"`},
		{line: "create /batch ''", code: 3, want: `INVALID_ARGUMENT: container "/batch": the name ` +
			`is reserved for the groups of batch containers`},
		{line: "create /x/b ''", before: []string{"create /x 'children_limit:1'", "create /x/a ''"},
			code: 8, want: `RESOURCE_EXHAUSTED: container "/x" has 1 containers in it, and its ` +
				`children_limit is 1`},
		{line: "destroy /x", code: 5, want: `NOT_FOUND: container "/x"`},
		{line: "destroy -f /", code: 3, want: `INVALID_ARGUMENT: container "/" is the machine`},
		{line: "destroy /x", before: []string{"create /x ''", "create /x/y ''"}, code: 9,
			want: `FAILED_PRECONDITION: container "/x": number of containers in it: 1; -f destroys ` +
				`it all the same`},
		{line: "destroy /x", before: []string{"create /x ''", "run -n /x sleep 1000"}, code: 9,
			want: `FAILED_PRECONDITION: container "/x": number of threads in it: 1; -f destroys it ` +
				`all the same`},
		{line: "update diff /x 'memory:{limit:8192}'", before: []string{"create /x 'cpu:{}'"},
			code: 3, want: `INVALID_ARGUMENT: container "/x": memory: the container does not ` +
				`isolate it, and an update cannot add it; it isolates cpu`},
		{line: "update replace /x 'cpu:{}'", before: []string{"create /x 'cpu:{} memory:{}'"},
			code: 3, want: `INVALID_ARGUMENT: container "/x": memory: update replace has to name ` +
				`all resources that the container isolates: cpu, memory`},
		{line: "update diff /x 'cpu:{scheduling_latency:NORMAL}'", before: []string{
			"create /x 'cpu:{}'"}, code: 3, want: `INVALID_ARGUMENT: container "/x": ` +
			`cpu.scheduling_latency: it is PRIORITY since the container was created, and cannot ` +
			`become NORMAL`},
		{line: "run /x true", code: 5, want: `NOT_FOUND: container "/x"`},
		{line: "run /x no-such-command", before: []string{"create /x ''"}, code: 5,
			want: `NOT_FOUND: command "no-such-command"`},
		{line: "run -n /x /etc/passwd", before: []string{"create /x ''"}, code: 7,
			want: `PERMISSION_DENIED: command "/etc/passwd"`},
		{line: "enter /x 12x", before: []string{"create /x ''"}, code: 3,
			want: `INVALID_ARGUMENT: PID/TID "12x": want a number above 0`},
		{line: "enter /x 4194305", before: []string{"create /x ''"}, code: 5,
			want: `NOT_FOUND: container "/x": task 4194305: it does not exist`},
		{line: "detect 4194305", code: 5, want: `NOT_FOUND: process 4194305: it does not exist`},
		{line: "killall /", code: 3, want: `INVALID_ARGUMENT: container "/" is the machine, which ` +
			`cannot be killed`},
		{line: "pause /x", code: 5, want: `NOT_FOUND: container "/x"`},
		{line: "resume /x/y", before: []string{"create /x ''", "create /x/y ''", "pause /x"},
			code: 9, want: `FAILED_PRECONDITION: container "/x/y": container "/x" is paused`},
		{line: "notify memory oom /x", before: []string{"create /x 'cpu:{}'"}, code: 3,
			want: `INVALID_ARGUMENT: container "/x" does not isolate memory, so nothing of it happens`},
		{line: "notify memory threshold /x lots", before: []string{"create /x 'memory:{}'"}, code: 3,
			want: `INVALID_ARGUMENT: threshold "lots": want a number of bytes above 0`},
		{line: "init 'cgroup_mount:{mount_path:\"sys\" hierarchy:CGROUP_CPU}'", code: 3,
			want: `INVALID_ARGUMENT: cgroup_mount[0].mount_path: "sys": want an absolute, clean path`},
		{line: "init 'cgroup_mount:{mount_path:\"/sys/fs/cgroup/job\" hierarchy:CGROUP_JOB}'",
			code: 3, want: `INVALID_ARGUMENT: cgroup_mount[0].hierarchy: CGROUP_JOB: no version of ` +
				`Linux has this controller`},
	} {
		t.Run(c.line, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "")
			r.write("text", "cpu {}")
			r.must(c.before...)
			before := fmt.Sprint(r.groups())
			out, errs, code := r.run(c.line)
			want := "lmctfy: " + r.expand(c.want) + "\n"
			if out != "" || errs != want || code != c.code {
				t.Errorf("exit status %d, want %d: %s%s\nwant %s", code, c.code, out, errs, want)
			}
			if after := fmt.Sprint(r.groups()); after != before {
				t.Errorf("groups before %s, after %s", before, after)
			}
		})
	}
}

// TestStatus compares exit statuses with the canonical codes.
func TestStatus(t *testing.T) {
	t.Parallel()
	for want, errs := range map[int][]error{
		0: {nil}, 2: {errors.New("x")}, 3: {errdefs.ErrInvalidArgument},
		5: {errdefs.ErrNotFound, os.ErrNotExist, unix.ENOENT}, 6: {errdefs.ErrAlreadyExists},
		7: {errdefs.ErrPermissionDenied, unix.EPERM, unix.EACCES},
		8: {errdefs.ErrResourceExhausted, unix.ENOSPC}, 9: {errdefs.ErrFailedPrecondition},
		10: {errdefs.ErrAborted}, 11: {errdefs.ErrOutOfRange}, 12: {errdefs.ErrNotImplemented},
		13: {errdefs.ErrInternal}, 14: {errdefs.ErrUnavailable}, 15: {errdefs.ErrDataLoss},
	} {
		for _, err := range errs {
			if err != nil {
				err = fmt.Errorf("more: %w", err)
			}
			if got, _ := cli.Status(err); got != want {
				t.Errorf("%v: got %d, want %d", err, got, want)
			}
		}
	}
}

// TestNotEnforced checks the lines about what the host cannot do, and that the specification keeps
// them.
func TestNotEnforced(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	_, errs, code := r.run(
		"create /x 'memory:{dirty:{ratio:5} stale_page_age:3} filesystem:{fd_limit:9}'",
	)
	const want = "memory.stale_page_age: not enforced: this kernel has no memory.stale_page_age\n" +
		"memory.dirty.ratio: not enforced: this kernel has no memory.dirty_ratio\n" +
		"filesystem.fd_limit: not enforced: no version of Linux limits the descriptors of a group\n"
	var prefixed, comments bytes.Buffer
	for line := range strings.Lines(want) {
		prefixed.WriteString("lmctfy: " + line)
		comments.WriteString("# " + line)
	}
	if code != 0 || errs != prefixed.String() {
		t.Errorf("create: exit status %d: %s\nwant %s", code, errs, prefixed.String())
	}
	out, errs, _ := r.run("spec /x")
	if !strings.HasSuffix(out, comments.String()) || errs != "" ||
		!strings.Contains(out, "ratio: 5") || !strings.Contains(out, "fd_limit: 9") {
		t.Errorf("spec: %s%s", out, errs)
	}
	// The text form can be given back, comments and all.
	r.write("spec", out)
	if _, errs, code := r.run("update replace /x -c $DIR/spec"); code != 0 {
		t.Errorf("update: exit status %d: %s", code, errs)
	}
	if _, errs, _ := r.run("spec -b /x"); errs != prefixed.String() {
		t.Errorf("spec -b: %s", errs)
	}
}
