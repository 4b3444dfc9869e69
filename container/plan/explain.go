package plan

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"strake/container/program"
)

// StepError is an operation of a container's set-up that the kernel refused. It says which part of
// the configuration asked for it, which call it was, and why; errors.Is sees the errno.
type StepError struct {
	// Field is the part of the configuration: `mounts[3] (/data)`.
	Field string
	// Call is the name of the system call, or "check" for a condition that the program verifies
	// itself.
	Call string
	// Op is the operation as --explain prints it, Index its place.
	Op    string
	Index int
	Errno unix.Errno
}

func (e *StepError) Error() string {
	s := fmt.Sprintf("%s: %s: %s", e.Field, e.Call, program.ErrnoName(uint16(e.Errno)))
	if hint := hint(e); hint != "" {
		return s + ": " + hint
	}
	return s + ": " + e.Errno.Error()
}

func (e *StepError) Unwrap() error { return e.Errno }

// IsExec says whether the container was ready and only its process could not be executed: a wrong
// name or a file that cannot run.
func (e *StepError) IsExec() bool { return strings.HasPrefix(e.Field, "process.args") }

// ExitCode is the status that shells give to a command that cannot be executed: 127 if there is no
// such file, 126 if it may not or cannot be executed; 128 if something else failed, which is no
// fault of the command.
func (e *StepError) ExitCode() int {
	switch {
	case !e.IsExec():
		return 128
	case errors.Is(e.Errno, fs.ErrNotExist) || e.Errno == unix.ENOTDIR:
		return 127
	}
	return 126
}

// Explain turns a reported failure into an error that names what was asked for. An index outside of
// the program is a bug of the interpreter and is said to be one.
func Explain(p *program.Program, index int, errno unix.Errno) error {
	if index < 0 || index >= p.Len() {
		return fmt.Errorf("operation %d of a program of %d: %w", index, p.Len(), errno)
	}
	op := p.Op(index)
	e := &StepError{Field: op.Field, Index: index, Errno: errno, Op: p.Text(index), Call: "check"}
	if op.Code == program.Syscall {
		e.Call = program.CallName(op.Nr)
	}
	return e
}

// hint says in words what an errno of a call means here, where the kernel's own text would mislead.
func hint(e *StepError) string {
	switch {
	case e.IsExec():
		name := strings.TrimSuffix(strings.TrimPrefix(e.Field, "process.args ("), ")")
		switch e.Errno {
		// Engines tell from these words what exit status a command gets: moby of "no such file or
		// directory" and "executable file not found", podman also of "in $PATH".
		case unix.ENOENT:
			switch {
			case e.Call == "execve":
				return "exec " + name + ": no such file or directory, or its interpreter is missing"
			case strings.Contains(name, "/"):
				return "no such file or directory"
			}
			return fmt.Sprintf("exec: %q: executable file not found in $PATH", name)
		case unix.EACCES:
			return "permission denied: not an executable file"
		case unix.ENOEXEC:
			return "exec format error: not a program for this machine"
		}
	case e.Call == "check" && strings.HasPrefix(e.Field, "process.cwd"):
		return "the working directory lies outside of the container"
	case e.Call == "check" && strings.HasPrefix(e.Field, "mounts["):
		return "the target leads into /proc"
	case e.Call == "check" && strings.HasPrefix(e.Field, "linux.maskedPaths"):
		return "/dev/null of the host is not the null device"
	case e.Call == "check" && strings.HasPrefix(e.Field, "process.terminal"):
		return "/dev/pts/ptmx of the container is not of a devpts filesystem"
	case e.Errno == unix.ELOOP && strings.HasPrefix(e.Field, "mounts["):
		return "must be mounted on ordinary directory, but a symbolic link is in its place"
	case e.Errno == unix.EPERM && strings.HasSuffix(e.Field, withCPUs):
		return "perhaps process scheduler can't be used together with AllowedCPUs: " +
			"a deadline wants all processors"
	case e.Errno == unix.EPERM && e.Call == "setns":
		return "the namespace belongs to another user namespace than the container's"
	case e.Errno == unix.EXDEV:
		return "the path leaves the filesystem that it has to be on"
	case e.Errno == unix.ENODEV && e.Call == "fsopen":
		parts := strings.SplitN(e.Op, `"`, 3) // $1 = fsopen("tmpfs", 1)
		return fmt.Sprintf(
			"the kernel does not know the filesystem type %q", parts[min(1, len(parts)-1)],
		)
	case e.Errno == unix.ENOENT && strings.HasPrefix(e.Field, "linux.sysctl"):
		return "the kernel does not know this parameter"
	case e.Errno == unix.ENOMEM && e.Call == "execve":
		return "the memory limit is too low to start the process"
	case e.Errno == unix.ENOSPC && strings.HasPrefix(e.Field, "linux.cgroupsPath"):
		return "the group has no processors or memory nodes to run on (cpuset)"
	case e.Errno == unix.EAGAIN && (e.Call == "clone" || e.Call == "clone3"):
		return "the limit of processes is reached"
	}
	return ""
}
