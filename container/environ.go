package container

import (
	"bufio"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// environ returns the environment of a process: of several values for one name the last one, and
// HOME, if it is missing or empty, from home. That is what runc does, and what engines leave to a
// runtime.
func environ(env []string, home func() string) []string {
	last := make(map[string]int, len(env))
	for i, s := range env {
		if name, _, ok := strings.Cut(s, "="); ok {
			last[name] = i
		}
	}
	at, ok := last["HOME"]
	lacking := !ok || env[at] == "HOME="
	if !lacking && len(last) == len(env) {
		return env
	}
	out := make([]string, 0, len(env)+1)
	for i, s := range env {
		name, _, ok := strings.Cut(s, "=")
		if ok && (last[name] != i || name == "HOME" && lacking) {
			continue
		}
		out = append(out, s)
	}
	if lacking {
		out = append(out, "HOME="+home())
	}
	return out
}

// withEnviron returns spec with the environment that its process gets.
func withEnviron(spec *specs.Spec) *specs.Spec {
	if spec.Process == nil {
		return spec
	}
	proc, copied := *spec.Process, *spec
	proc.Env = environ(proc.Env, func() string {
		return homeOf(passwdOf(spec), proc.User.UID)
	})
	copied.Process = &proc
	return &copied
}

// passwdOf opens the file that is going to be a container's /etc/passwd, as a handle, or returns
// nil.
func passwdOf(spec *specs.Spec) *os.File {
	for i := len(spec.Mounts) - 1; i >= 0; i-- {
		m := &spec.Mounts[i]
		dest := path.Clean("/" + m.Destination)
		if m.Type != "bind" && !bindsFiles(m) || dest != "/etc" && dest != "/etc/passwd" {
			continue
		}
		if dest == "/etc" {
			return passwdIn(m.Source, "passwd")
		}
		// The source is the caller's choice, as it is for the mount.
		fd, err := unix.Open(m.Source, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil
		}
		return os.NewFile(uintptr(fd), m.Source)
	}
	if spec.Root == nil {
		return nil
	}
	return passwdIn(spec.Root.Path, "etc/passwd")
}

func bindsFiles(m *specs.Mount) bool {
	for _, o := range m.Options {
		if o == "bind" || o == "rbind" {
			return true
		}
	}
	return false
}

func passwdIn(dir, name string) *os.File {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(root)
	return openBelow(root, name)
}

// openBelow opens a file as a handle (O_PATH). Links are followed with root as the root directory.
func openBelow(root int, name string) *os.File {
	fd, err := unix.Openat2(root, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), name)
}

// maxPasswd is how much of an /etc/passwd is read.
const maxPasswd = 1 << 20

// homeOf finds the home directory of a user in a file like passwd(5), which it closes, or returns
// "/". A FIFO or a device in its place is not opened.
func homeOf(passwd *os.File, uid uint32) string {
	if passwd == nil {
		return "/"
	}
	defer passwd.Close()
	var st unix.Stat_t
	if unix.Fstat(int(passwd.Fd()), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "/"
	}
	f, err := reopen(int(passwd.Fd()), unix.O_RDONLY)
	if err != nil {
		return "/"
	}
	defer f.Close()
	want := strconv.FormatUint(uint64(uid), 10)
	lines := bufio.NewScanner(io.LimitReader(f, maxPasswd))
	for lines.Scan() {
		field := strings.Split(lines.Text(), ":")
		if len(field) < 6 || field[2] != want {
			continue
		}
		if strings.HasPrefix(field[5], "/") && !strings.ContainsRune(field[5], 0) {
			return field[5]
		}
		break
	}
	return "/"
}
