package seccomp

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// childEnv names, in a copy of the test binary, the scenario that it plays.
const childEnv = "STRAKE_TEST_SECCOMP_CHILD"

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		if name == "exec" {
			fmt.Println("exec")
			os.Exit(0)
		}
		for _, s := range scenarios {
			if s.name == name {
				s.child(s)
				os.Exit(0)
			}
		}
		panic("no scenario " + name)
	}
	os.Exit(m.Run())
}

// scenario is a filter in the running kernel: a child installs it, makes calls and prints what they
// answer.
type scenario struct {
	name    string
	profile func() *specs.LinuxSeccomp
	child   func(scenario)
	out     string         // all that the child prints, if it ends by itself
	signal  syscall.Signal // what kills the child
	stderr  string         // part of what it complains of; then it fails
	amd64   bool           // only there
}

func ret(n uint) *uint { return &n }

// deny is a profile that allows everything but what its rules say.
func deny(rules ...specs.LinuxSyscall) func() *specs.LinuxSeccomp {
	return func() *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, Syscalls: rules, ListenerPath: "/run/agent",
		}
	}
}

func rule(
	action specs.LinuxSeccompAction, errno *uint, name string, args ...specs.LinuxSeccompArg,
) specs.LinuxSyscall {
	return specs.LinuxSyscall{Names: []string{name}, Action: action, ErrnoRet: errno, Args: args}
}

var scenarios = []scenario{
	{
		name: "errno with and without a number", child: calls(
			probe{nr: unix.SYS_GETPGID}, probe{nr: unix.SYS_GETSID}, probe{nr: unix.SYS_GETPID},
		),
		profile: deny(
			rule(specs.ActErrno, ret(55), "getpgid"), rule(specs.ActErrno, nil, "getsid"),
		),
		out: "55 1 0",
	},
	{
		name:    "log and trace without a tracer",
		child:   calls(probe{nr: unix.SYS_GETPGID}, probe{nr: unix.SYS_GETSID}),
		profile: deny(rule(specs.ActLog, nil, "getpgid"), rule(specs.ActTrace, ret(7), "getsid")),
		out:     fmt.Sprintf("0 %d", unix.ENOSYS),
	},
	{
		// lseek of a descriptor that does not exist answers EBADF, if it may.
		name: "64-bit arguments", child: calls(
			probe{unix.SYS_LSEEK, [3]uintptr{^uintptr(0), 1<<32 + 5}},
			probe{unix.SYS_LSEEK, [3]uintptr{^uintptr(0), 5}},
			probe{unix.SYS_LSEEK, [3]uintptr{^uintptr(0), 2<<32 + 5}},
			probe{unix.SYS_FCHMOD, [3]uintptr{^uintptr(0), 7 << 32}},
			probe{unix.SYS_FCHMOD, [3]uintptr{^uintptr(0), 1<<63 + 1}},
			probe{unix.SYS_FCHMOD, [3]uintptr{^uintptr(0), 6<<32 + 9}},
		),
		profile: deny(
			rule(
				specs.ActErrno, ret(100), "lseek",
				specs.LinuxSeccompArg{Index: 1, Value: 1<<32 + 5, Op: specs.OpEqualTo},
			),
			rule(
				specs.ActErrno, ret(101), "fchmod",
				specs.LinuxSeccompArg{Index: 1, Value: 7 << 32, Op: specs.OpGreaterEqual},
			),
		),
		out: "100 9 9 101 101 9",
	},
	{
		name: "masked", child: calls(
			probe{unix.SYS_FCHMOD, [3]uintptr{^uintptr(0), 0o6755}},
			probe{unix.SYS_FCHMOD, [3]uintptr{^uintptr(0), 0o4755}},
			probe{unix.SYS_FCHMOD, [3]uintptr{^uintptr(0), 0o755}},
		),
		profile: deny(
			rule(
				specs.ActErrno, ret(100), "fchmod",
				specs.LinuxSeccompArg{
					Index: 1, Value: 0o6000, ValueTwo: 0o4000, Op: specs.OpMaskedEqual,
				},
			),
		),
		out: "9 100 9",
	},
	{
		name: "trap", child: calls(probe{nr: unix.SYS_GETPGID}),
		profile: deny(rule(specs.ActTrap, nil, "getpgid")), stderr: "SIGSYS: bad system call",
	},
	{
		name: "kill process", child: calls(probe{nr: unix.SYS_GETPGID}),
		profile: deny(rule(specs.ActKillProcess, nil, "getpgid")), signal: unix.SIGSYS,
	},
	{
		name: "kill", child: killed(unix.SYS_GETPGID),
		profile: deny(rule(specs.ActKill, nil, "getpgid")), out: "thread gone",
	},
	{
		name: "kill thread", child: killed(unix.SYS_GETPGID),
		profile: deny(rule(specs.ActKillThread, nil, "getpgid")), out: "thread gone",
	},
	{
		name: "an ABI that the profile does not have", child: killed(x32Bit | unix.SYS_GETPID),
		profile: deny(rule(specs.ActErrno, nil, "getsid")), out: "thread gone", amd64: true,
	},
	{
		name: "notify", child: notified, profile: deny(rule(specs.ActNotify, nil, "getpgid")),
		out: "42 for getpgid of 77",
	},
	{
		name: "Docker's default profile", child: moby,
		profile: func() *specs.LinuxSeccomp { return nil },
		out:     fmt.Sprintf("%d %d %d %d exec", unix.EPERM, unix.EPERM, unix.ENOSYS, unix.ENOSYS),
	},
}

func TestInTheKernel(t *testing.T) {
	t.Parallel()
	if _, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0); err != nil {
		t.Skipf("needs a kernel with CONFIG_SECCOMP: %v", err)
	}
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			if s.amd64 && runtime.GOARCH != "amd64" {
				t.Skip("needs amd64")
			}
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = []string{childEnv + "=" + s.name}
			var out, complaint bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &complaint
			err := cmd.Run()
			var exit *exec.ExitError
			switch {
			case s.signal != 0:
				if !errors.As(err, &exit) || !exit.Sys().(syscall.WaitStatus).Signaled() ||
					exit.Sys().(syscall.WaitStatus).Signal() != s.signal {
					t.Errorf(
						"ended with %v, want signal %v; it said %s%s", err, s.signal, out.String(),
						complaint.String(),
					)
				}
			case s.stderr != "":
				if err == nil || !strings.Contains(complaint.String(), s.stderr) {
					t.Errorf("ended with %v, %q, want %q", err, complaint.String(), s.stderr)
				}
			default:
				if err != nil || strings.TrimSpace(out.String()) != s.out {
					t.Errorf(
						"ended with %v and %q, want %q; it said %s", err, out.String(), s.out,
						complaint.String(),
					)
				}
			}
		})
	}
}

// install gives the calling thread a filter, which is never unlocked from its goroutine again, and
// returns the listener, if there is one.
func install(cfg *specs.LinuxSeccomp, more uintptr) int {
	runtime.LockOSThread()
	f, err := Compile(cfg, Options{})
	if err != nil {
		panic(err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	raw := f.Bytes()
	prog := unix.SockFprog{
		Len: uint16(len(f.Insns)), Filter: (*unix.SockFilter)(unsafe.Pointer(&raw[0])),
	}
	flags := f.Flags | more
	if f.Notify {
		flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	}
	fd, _, errno := unix.RawSyscall(
		unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)),
	)
	if errno != 0 {
		panic(errno)
	}
	runtime.KeepAlive(raw)
	return int(fd)
}

type probe struct {
	nr   uintptr
	args [3]uintptr
}

// calls is a child that prints the error numbers of calls.
func calls(probes ...probe) func(scenario) {
	return func(s scenario) {
		install(s.profile(), 0)
		fmt.Println(answers(probes...))
	}
}

func answers(probes ...probe) string {
	var list []string
	for _, p := range probes {
		_, _, errno := unix.RawSyscall(p.nr, p.args[0], p.args[1], p.args[2])
		list = append(list, fmt.Sprint(int(errno)))
	}
	return strings.Join(list, " ")
}

// killed is a child of which one thread makes a call that kills it.
func killed(nr uintptr) func(scenario) {
	return func(s scenario) {
		tid := make(chan int, 1)
		var victim func()
		victim = func() {
			runtime.LockOSThread()
			if unix.Gettid() == unix.Getpid() {
				go victim() // the first thread stays as a zombie; take another
				select {}
			}
			tid <- unix.Gettid()
			install(s.profile(), 0)
			_, _, errno := unix.RawSyscall(nr, 0, 0, 0)
			fmt.Println("the call came back:", errno)
			os.Exit(1)
		}
		go victim()
		thread := <-tid
		for range 10000 {
			if unix.Tgkill(unix.Getpid(), thread, 0) == unix.ESRCH {
				fmt.Println("thread gone")
				os.Exit(0)
			}
			if _, err := unix.Poll(nil, 1); err != nil && err != unix.EINTR {
				panic(err)
			}
		}
		panic("the thread lives on")
	}
}

// notified is a child that answers its own notification: getpgid(77) is 42.
func notified(s scenario) {
	listener := make(chan int)
	result := make(chan uintptr)
	go func() {
		listener <- install(s.profile(), 0)
		r, _, _ := unix.Syscall(unix.SYS_GETPGID, 77, 0, 0)
		result <- r
		select {} // the thread stays with the filter
	}()
	fd := uintptr(<-listener)
	var req struct { // struct seccomp_notif
		id         uint64
		pid, flags uint32
		nr         int32
		arch       uint32
		ip         uint64
		args       [6]uint64
	}
	if _, _, errno := unix.Syscall(
		unix.SYS_IOCTL, fd, unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&req)),
	); errno != 0 {
		panic(errno)
	}
	resp := struct { // struct seccomp_notif_resp
		id    uint64
		val   int64
		error int32
		flags uint32
	}{id: req.id, val: 42}
	if _, _, errno := unix.Syscall(
		unix.SYS_IOCTL, fd, unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&resp)),
	); errno != 0 {
		panic(errno)
	}
	name := "another call"
	if req.nr == unix.SYS_GETPGID {
		name = "getpgid"
	}
	fmt.Println(<-result, "for", name, "of", req.args[0])
}

// moby is a child of which all threads get Docker's default profile, and which then still is a
// working program.
func moby(scenario) {
	cfg, err := mobyDefault()
	if err != nil {
		panic(err)
	}
	install(cfg, unix.SECCOMP_FILTER_FLAG_TSYNC)
	fmt.Print(answers(
		probe{nr: unix.SYS_ADD_KEY}, probe{unix.SYS_PERSONALITY, [3]uintptr{0x1234}},
		probe{nr: unix.SYS_CLONE3}, probe{nr: 1000},
	), " ")
	done := make(chan error)
	go func() {
		_, err := os.ReadFile("/proc/self/status")
		done <- err
	}()
	if err := <-done; err != nil {
		panic(err)
	}
	if err := unix.Exec(
		"/proc/self/exe", []string{"exec"}, []string{childEnv + "=exec"},
	); err != nil {
		panic(err)
	}
}
