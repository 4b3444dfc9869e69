package capability

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestTableAgreesWithTheKernelsHeader(t *testing.T) {
	t.Parallel()
	if Last != unix.CAP_LAST_CAP {
		t.Errorf("the table ends at %d, linux/capability.h at %d", Last, unix.CAP_LAST_CAP)
	}
	for name, want := range map[string]int{
		"CAP_CHOWN": unix.CAP_CHOWN, "CAP_DAC_OVERRIDE": unix.CAP_DAC_OVERRIDE,
		"CAP_DAC_READ_SEARCH": unix.CAP_DAC_READ_SEARCH,
		"CAP_FOWNER":          unix.CAP_FOWNER, "CAP_FSETID": unix.CAP_FSETID,
		"CAP_KILL":   unix.CAP_KILL,
		"CAP_SETGID": unix.CAP_SETGID,
		"CAP_SETUID": unix.CAP_SETUID, "CAP_SETPCAP": unix.CAP_SETPCAP,
		"CAP_LINUX_IMMUTABLE":  unix.CAP_LINUX_IMMUTABLE,
		"CAP_NET_BIND_SERVICE": unix.CAP_NET_BIND_SERVICE,
		"CAP_NET_BROADCAST":    unix.CAP_NET_BROADCAST, "CAP_NET_ADMIN": unix.CAP_NET_ADMIN,
		"CAP_NET_RAW": unix.CAP_NET_RAW, "CAP_IPC_LOCK": unix.CAP_IPC_LOCK,
		"CAP_IPC_OWNER": unix.CAP_IPC_OWNER, "CAP_SYS_MODULE": unix.CAP_SYS_MODULE,
		"CAP_SYS_RAWIO": unix.CAP_SYS_RAWIO, "CAP_SYS_CHROOT": unix.CAP_SYS_CHROOT,
		"CAP_SYS_PTRACE": unix.CAP_SYS_PTRACE,
		"CAP_SYS_PACCT":  unix.CAP_SYS_PACCT, "CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN,
		"CAP_SYS_BOOT": unix.CAP_SYS_BOOT, "CAP_SYS_NICE": unix.CAP_SYS_NICE,
		"CAP_SYS_RESOURCE": unix.CAP_SYS_RESOURCE, "CAP_SYS_TIME": unix.CAP_SYS_TIME,
		"CAP_SYS_TTY_CONFIG": unix.CAP_SYS_TTY_CONFIG,
		"CAP_MKNOD":          unix.CAP_MKNOD, "CAP_LEASE": unix.CAP_LEASE,
		"CAP_AUDIT_WRITE": unix.CAP_AUDIT_WRITE, "CAP_AUDIT_CONTROL": unix.CAP_AUDIT_CONTROL,
		"CAP_SETFCAP": unix.CAP_SETFCAP, "CAP_MAC_OVERRIDE": unix.CAP_MAC_OVERRIDE,
		"CAP_MAC_ADMIN": unix.CAP_MAC_ADMIN, "CAP_SYSLOG": unix.CAP_SYSLOG,
		"CAP_WAKE_ALARM": unix.CAP_WAKE_ALARM, "CAP_BLOCK_SUSPEND": unix.CAP_BLOCK_SUSPEND,
		"CAP_AUDIT_READ": unix.CAP_AUDIT_READ,
		"CAP_PERFMON":    unix.CAP_PERFMON, "CAP_BPF": unix.CAP_BPF,
		"CAP_CHECKPOINT_RESTORE": unix.CAP_CHECKPOINT_RESTORE,
	} {
		if got, ok := Lookup(name); !ok || got != want {
			t.Errorf("Lookup(%q) = %d, %v, want %d", name, got, ok, want)
		}
		if got := Names()[want]; got != name {
			t.Errorf("Names()[%d] = %q, want %q", want, got, name)
		}
	}
	if got := len(Names()); got != 41 {
		t.Errorf("%d names, want 41", got)
	}
	for _, name := range []string{
		"", "CAP_", "KILL", "cap_kill", "CAP_KILL ", "CAP_CAP_KILL", "CAP_ALL",
	} {
		if n, ok := Lookup(name); ok {
			t.Errorf("Lookup(%q) = %d, want it unknown", name, n)
		}
	}
}

func TestSet(t *testing.T) {
	t.Parallel()
	s := Set(1<<unix.CAP_KILL | 1<<unix.CAP_BPF | 1<<63)
	if got, want := s.Names(), []string{"CAP_KILL", "CAP_BPF"}; !slices.Equal(got, want) {
		t.Errorf("Names() = %v, want %v", got, want)
	}
	if !s.Has(unix.CAP_KILL) || s.Has(unix.CAP_CHOWN) || !s.Has(63) || s.Has(64) || s.Has(-1) {
		t.Errorf("Has answers wrongly for %v", s)
	}
	if got, want := s.String(), "8000008000000020"; got != want {
		t.Errorf("String() = %s, want %s", got, want)
	}
	for last, want := range map[int]Set{-1: 0, 0: 1, 37: 1<<38 - 1, 40: 1<<41 - 1, 63: 1<<41 - 1} {
		if got := All(last); got != want {
			t.Errorf("All(%d) = %v, want %v", last, got, want)
		}
	}
}

func TestParseNames(t *testing.T) {
	t.Parallel()
	got, err := ParseNames("f", []string{"CAP_KILL", "CAP_CHOWN", "CAP_KILL"})
	if want := Set(1<<unix.CAP_KILL | 1<<unix.CAP_CHOWN); err != nil || got != want {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	_, err = ParseNames("process.capabilities.bounding", []string{"CAP_KILL", "CAP_KLIL"})
	if !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Fatalf("got %v, want ErrInvalidArgument", err)
	}
	for _, part := range []string{
		"process.capabilities.bounding[1]", `"CAP_KLIL"`, "CAP_CHOWN", "CAP_CHECKPOINT_RESTORE",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not name %q", err, part)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		caps    *specs.LinuxCapabilities
		lastCap int
		want    Sets
		ignored []string
		err     error
	}{
		{name: "nil has none", lastCap: 40},
		{name: "each list fills its own set", lastCap: 40, caps: &specs.LinuxCapabilities{
			Bounding: []string{"CAP_CHOWN"}, Effective: []string{"CAP_KILL"},
			Inheritable: []string{"CAP_SETUID"},
			Permitted:   []string{"CAP_NET_RAW"}, Ambient: []string{"CAP_BPF", "CAP_SYS_ADMIN"},
		}, want: Sets{
			Bounding: 1 << unix.CAP_CHOWN, Effective: 1 << unix.CAP_KILL,
			Inheritable: 1 << unix.CAP_SETUID,
			Permitted:   1 << unix.CAP_NET_RAW, Ambient: 1<<unix.CAP_BPF | 1<<unix.CAP_SYS_ADMIN,
		}},
		{name: "what is unknown is left out and told once", lastCap: unix.CAP_AUDIT_READ,
			caps: &specs.LinuxCapabilities{
				Bounding:  []string{"CAP_PERFMON", "CAP_AUDIT_READ", "UNKNOWN_CAP"},
				Permitted: []string{"CAP_BPF", "CAP_PERFMON", "CAP_UNKNOWN", "cap_kill"},
			}, want: Sets{Bounding: 1 << unix.CAP_AUDIT_READ}, ignored: []string{
				"CAP_BPF", "CAP_PERFMON", "CAP_UNKNOWN", "UNKNOWN_CAP", "cap_kill",
			}},
		{
			name: "a kernel without a highest capability", lastCap: -1,
			err: errdefs.ErrInvalidArgument,
		},
		{name: "a kernel with more than fit", lastCap: 64, err: errdefs.ErrInvalidArgument},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, ignored, err := Parse(tc.caps, tc.lastCap)
			if !errors.Is(err, tc.err) || got != tc.want || !slices.Equal(ignored, tc.ignored) {
				t.Errorf(
					"got %+v, %v, %v; want %+v, %v, %v", got, ignored, err, tc.want, tc.ignored,
					tc.err,
				)
			}
		})
	}
}

func TestTweak(t *testing.T) {
	t.Parallel()
	def := Default()
	if n := len(def.Names()); n != 14 {
		t.Fatalf("Docker's default has %d capabilities, want 14", n)
	}
	// The mask that docker run shows in /proc/self/status.
	if got, want := def.String(), "00000000a80425fb"; got != want {
		t.Errorf("Default() = %s, want %s", got, want)
	}
	one := func(n int) Set { return 1 << n }
	for _, tc := range []struct {
		name      string
		add, drop []string
		lastCap   int
		want      Set
		err       []string
	}{
		{name: "nothing to do", lastCap: 40, want: def},
		{
			name: "add with and without prefix, any case",
			add:  []string{"cap_Sys_Admin", "net_admin"}, lastCap: 40,
			want: def | one(unix.CAP_SYS_ADMIN) | one(unix.CAP_NET_ADMIN),
		},
		{
			name: "drop", drop: []string{"CHOWN", "CAP_SYS_ADMIN"}, lastCap: 40,
			want: def &^ one(unix.CAP_CHOWN),
		},
		{
			name: "added and dropped is added", add: []string{"chown"}, drop: []string{"CHOWN"},
			lastCap: 40, want: def,
		},
		{name: "add ALL", add: []string{"all"}, lastCap: 40, want: All(40)},
		{name: "add ALL is what the kernel has", add: []string{"ALL"}, lastCap: 37, want: All(37)},
		{
			name: "add ALL but", add: []string{"ALL", "KILL"}, drop: []string{"KILL"}, lastCap: 40,
			want: All(40) &^ one(unix.CAP_KILL),
		},
		{name: "drop ALL", drop: []string{"All"}, lastCap: 40},
		{
			name: "drop ALL but", add: []string{"KILL"}, drop: []string{"ALL", "KILL"}, lastCap: 40,
			want: one(unix.CAP_KILL),
		},
		{
			name: "add ALL beats drop ALL", add: []string{"ALL"}, drop: []string{"ALL"},
			lastCap: 40, want: All(40),
		},
		{
			name: "unknown to add", add: []string{"KILL", "FROB"}, lastCap: 40,
			err: []string{"CapAdd", `unknown capability: "FROB"`, "ALL"},
		},
		{
			name: "unknown to drop", drop: []string{""}, lastCap: 40,
			err: []string{"CapDrop", `unknown capability: ""`},
		},
		{
			name: "unknown although ALL", add: []string{"ALL", "FROB"}, lastCap: 40,
			err: []string{`"FROB"`},
		},
		{
			name: "not in this kernel", add: []string{"BPF"}, lastCap: 37,
			err: []string{"CapAdd", "not supported by your kernel", `"BPF"`, "37"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := Tweak(def, tc.add, tc.drop, tc.lastCap)
			if tc.err == nil {
				if err != nil || got != tc.want {
					t.Errorf("got %v, %v, want %v", got, err, tc.want)
				}
				return
			}
			if !errors.Is(err, errdefs.ErrInvalidArgument) || got != 0 {
				t.Fatalf("got %v, %v, want ErrInvalidArgument", got, err)
			}
			for _, part := range tc.err {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not contain %q", err, part)
				}
			}
		})
	}
}

// The kernel reads the encoding: a thread drops all but two capabilities with it, and its status
// shows that.
func TestCapsetIsWhatTheKernelReads(t *testing.T) {
	t.Parallel()
	mine := Set(1<<unix.CAP_CHOWN | 1<<unix.CAP_BPF)
	if statusSet(t, "CapPrm:")&mine != mine {
		t.Skip("needs CAP_CHOWN and CAP_BPF")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		want := mine
		header, data := Capset(Sets{Effective: want, Permitted: want, Inheritable: want &^ 1})
		if _, _, errno := unix.RawSyscall(
			unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0,
		); errno != 0 {
			t.Errorf("capset: %v", errno)
			return
		}
		for field, want := range map[string]Set{
			"CapEff:": want, "CapPrm:": want, "CapInh:": want &^ 1,
		} {
			if got := statusSet(t, field); got != want {
				t.Errorf("%s %v, want %v", field, got, want)
			}
		}
	}()
	<-done
}

func statusSet(t *testing.T, field string) Set {
	t.Helper()
	raw, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		t.Error(err)
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if v, ok := strings.CutPrefix(line, field); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			if err != nil {
				t.Error(err)
			}
			return Set(n)
		}
	}
	t.Errorf("no %s in status", field)
	return 0
}
