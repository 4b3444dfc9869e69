// Package sysnum makes the table of system call numbers that package seccomp compiles with.
//
// It promises one Go file, always the same for the same sources: every system call of x86_64, x86,
// x32, aarch64 and arm with its numbers, and a hash table to find it by name. The numbers come from
// golang.org/x/sys/unix, whose zsysnum files are made from the kernel's headers; what those files
// lack stands here: the x32 calls, ARM's private calls, and the calls that 32-bit x86 also has
// inside socketcall and ipc.
//
// Not for: anything at run time; only the generator and the test that the committed table is up to
// date import it.
package sysnum

import (
	"bytes"
	"fmt"
	"go/format"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// abis are the columns of the table, in its order; the same as the constants in package seccomp.
var abis = [...]string{"amd64", "386", "x32", "arm64", "arm"}

// notCalls are constants of the zsysnum files that are no system calls.
var notCalls = []string{"syscall_mask", "arch_specific_syscall"}

// x32Moved are the x32 calls whose numbers differ from x86_64
// (arch/x86/entry/syscalls/syscall_64.tbl, 512 to 547). The list is closed: since Linux 5.5 new
// calls have one number for both.
var x32Moved = []string{ // from 512
	"rt_sigaction", "rt_sigreturn", "ioctl", "readv", "writev", "recvfrom", "sendmsg", "recvmsg",
	"execve", "ptrace", "rt_sigpending",
	"rt_sigtimedwait", "rt_sigqueueinfo", "sigaltstack", "timer_create", "mq_notify", "kexec_load",
	"waitid", "set_robust_list",
	"get_robust_list", "vmsplice", "move_pages", "preadv", "pwritev", "rt_tgsigqueueinfo",
	"recvmmsg", "sendmmsg", "process_vm_readv",
	"process_vm_writev", "setsockopt", "getsockopt", "io_setup", "io_submit", "execveat", "preadv2",
	"pwritev2",
}

// x32Absent are the calls of x86_64 that x32 does not have (same file).
var x32Absent = []string{
	"uselib", "_sysctl", "create_module", "get_kernel_syms", "query_module", "nfsservctl",
	"set_thread_area", "get_thread_area",
	"epoll_ctl_old", "epoll_wait_old", "vserver",
}

// armPrivate are ARM's own calls, numbered from 0x0f0000 (arch/arm/include/uapi/asm/unistd.h). The
// first number is unused.
var armPrivate = []string{"", "breakpoint", "cacheflush", "usr26", "usr32", "set_tls", "get_tls"}

// muxed are the calls that 32-bit x86 also offers as the first argument of socketcall (linux/net.h)
// and, from 100 on, of ipc (linux/ipc.h).
var muxed = map[string]int{
	"socket": 1, "bind": 2, "connect": 3, "listen": 4, "accept": 5, "getsockname": 6,
	"getpeername": 7, "socketpair": 8, "send": 9, "recv": 10,
	"sendto": 11, "recvfrom": 12, "shutdown": 13, "setsockopt": 14, "getsockopt": 15, "sendmsg": 16,
	"recvmsg": 17, "accept4": 18,
	"recvmmsg": 19, "sendmmsg": 20,
	"semop": 101, "semget": 102, "semctl": 103, "semtimedop": 104, "msgsnd": 111, "msgrcv": 112,
	"msgget": 113, "msgctl": 114,
	"shmat": 121, "shmdt": 122, "shmget": 123, "shmctl": 124,
}

// hashSize is the number of slots of the hash table, at least three times the number of names; a
// power of two.
const hashSize = 2048

type entry struct {
	name string
	slot [len(abis)]int
	mux  int
}

var constant = regexp.MustCompile(`(?m)^\s*SYS_(\w+)\s*=\s*(\d+)\s*$`)

// read is one zsysnum file: numbers by name.
func read(file string) (map[string]int, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	numbers := map[string]int{}
	for _, m := range constant.FindAllSubmatch(raw, -1) {
		n, err := strconv.Atoi(string(m[2]))
		if err != nil {
			return nil, fmt.Errorf("%s: SYS_%s: %w", file, m[1], err)
		}
		if name := strings.ToLower(string(m[1])); !slices.Contains(notCalls, name) {
			numbers[name] = n
		}
	}
	if len(numbers) < 250 {
		return nil, fmt.Errorf("%s: only %d system calls found", file, len(numbers))
	}
	return numbers, nil
}

// Render is the Go source of the table, from the directory of module golang.org/x/sys.
func Render(module string) ([]byte, error) {
	numbers := map[string]map[string]int{}
	for _, abi := range abis {
		if abi == "x32" {
			continue
		}
		var err error
		if numbers[abi], err = read(
			filepath.Join(module, "unix", "zsysnum_linux_"+abi+".go"),
		); err != nil {
			return nil, err
		}
	}
	x32 := map[string]int{}
	for name, n := range numbers["amd64"] {
		if !slices.Contains(x32Absent, name) {
			x32[name] = n
		}
	}
	for i, name := range x32Moved {
		if _, ok := x32[name]; !ok {
			return nil, fmt.Errorf("x32 call %q is not in x86_64", name)
		}
		x32[name] = 512 + i
	}
	numbers["x32"] = x32
	ordinary := 0
	for _, of := range numbers {
		for _, n := range of {
			ordinary = max(ordinary, n+1)
		}
	}
	for i, name := range armPrivate {
		if name != "" {
			numbers["arm"][name] = ordinary + i
		}
	}
	return render(entries(numbers), ordinary)
}

// entries are the rows in the order of their names.
func entries(numbers map[string]map[string]int) []entry {
	var names []string
	for _, of := range numbers {
		for name := range of {
			names = append(names, name)
		}
	}
	for name := range muxed {
		names = append(names, name)
	}
	slices.Sort(names)
	var list []entry
	for _, name := range slices.Compact(names) {
		e := entry{name: name, mux: muxed[name]}
		for i, abi := range abis {
			n, ok := numbers[abi][name]
			if !ok {
				n = -1
			}
			e.slot[i] = n
		}
		list = append(list, e)
	}
	return list
}

// hash is FNV-1a, as package seccomp computes it.
func hash(name string) uint32 {
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * 16777619
	}
	return h
}

func render(list []entry, ordinary int) ([]byte, error) {
	if 3*len(list) > hashSize {
		return nil, fmt.Errorf("%d names are too many for a hash table of %d", len(list), hashSize)
	}
	var index [hashSize]int
	for i, e := range list {
		at := hash(e.name) % hashSize
		for index[at] != 0 {
			at = (at + 1) % hashSize
		}
		index[at] = i + 1
	}
	var b bytes.Buffer
	b.WriteString(
		"// Code generated by container/seccomp/internal/sysnum/gen from " +
			"golang.org/x/sys/unix; DO NOT EDIT.\n\npackage seccomp\n\n",
	)
	fmt.Fprintf(
		&b,
		"// ordinarySlots is one more than the highest number of any ABI, without x32's bit and\n"+
			"// ARM's private calls, whose slots follow.\n",
	)
	fmt.Fprintf(&b, "const ordinarySlots = %d\n\n", ordinary)
	fmt.Fprintf(
		&b,
		"// privateSlots is the number of slots for ARM's private calls.\n"+
			"const privateSlots = %d\n\n",
		len(armPrivate),
	)
	fmt.Fprintf(
		&b,
		"// syscallTable has a row for every system call, by name: its slot in x86_64, x86, x32,\n"+
			"// aarch64 and arm, or -1, and how x86 multiplexes it.\n",
	)
	fmt.Fprintf(&b, "var syscallTable = [...]syscallRow{\n")
	for _, e := range list {
		fmt.Fprintf(
			&b, "{%q, [...]int16{%d, %d, %d, %d, %d}, %d},\n", e.name, e.slot[0], e.slot[1],
			e.slot[2], e.slot[3], e.slot[4], e.mux,
		)
	}
	fmt.Fprintf(
		&b,
		"}\n\n// syscallHash finds a row: open addressing by FNV-1a of the name, row number plus\n"+
			"// one, 0 is empty.\n",
	)
	fmt.Fprintf(&b, "var syscallHash = [%d]uint16{", hashSize)
	for at, i := range index {
		if at%16 == 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%d,", i)
	}
	b.WriteString("\n}\n")
	return format.Source(b.Bytes())
}
