// Package leader reaches what belongs to a process (its root, its namespaces, its files in /proc)
// also while its first thread, the leader of its thread group, is not there: because it has exited
// while other threads go on, or because another thread is replacing the process (execve(2) lets all
// others end first). In both cases the entries of /proc/PID are a zombie's and setns(2) on the
// pidfd answers ESRCH, although the process runs.
//
// It promises that what it opens belonged to the process that PidFD refers to, however often its
// number is reused, and that it gives up when the process has ended, or after about a tenth of a
// second without success.
//
// Not for: signals and exit statuses, which the pidfd knows without a leader.
//
// Tested with processes whose leader has exited and with ones that execute from another thread all
// the time; with and without thread descriptors of Linux 6.9.
package leader

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Process names a process. Both numbers stay the caller's. It may be used concurrently.
type Process struct {
	// Pid is its number in this process's PID namespace.
	Pid int
	// PidFD refers to it (pidfd_open(2)).
	PidFD int
}

// attempts and pauseMillis bound the search for a thread: it fails only if threads come and go, or
// if what is looked for is not there.
const (
	attempts    = 100
	pauseMillis = 1
)

// Ended says whether all threads of the process have ended, as poll(2) on a pidfd does.
func (p Process) Ended() bool {
	fds := []unix.PollFd{{Fd: int32(p.PidFD), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1
}

// pause waits for a moment, or for the end of the process, and says whether it has ended.
func (p Process) pause() bool {
	fds := []unix.PollFd{{Fd: int32(p.PidFD), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, pauseMillis)
	return err == nil && n == 1
}

func (p Process) ended() error {
	return fmt.Errorf("process %d has ended: %w", p.Pid, errdefs.ErrNotFound)
}

// each calls f with the directory in /proc of one thread after the other, the leader first, until f
// succeeds while the process lives.
func (p Process) each(f func(dir string, tid int) error) (err error) {
	own := "/proc/" + strconv.Itoa(p.Pid)
	for range attempts {
		if err = f(own, p.Pid); err == nil {
			if p.Ended() {
				return p.ended()
			}
			return nil
		}
		names, _ := readNames(own + "/task")
		for _, name := range names {
			tid, nerr := strconv.Atoi(name)
			if nerr != nil || tid == p.Pid {
				continue
			}
			if err = f(own+"/task/"+name, tid); err == nil {
				if p.Ended() {
					return p.ended()
				}
				return nil
			}
		}
		if p.pause() {
			return p.ended()
		}
	}
	return err
}

func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// Live returns a thread of the process that has not begun to exit, which is Pid itself as a rule.
// Errors are of class errdefs.ErrNotFound if the process has ended.
func (p Process) Live() (tid int, err error) {
	err = p.each(func(dir string, n int) error {
		tid = n
		return living(dir)
	})
	return tid, err
}

// exiting is PF_EXITING of the flags in /proc/PID/stat (include/linux/sched.h).
const exiting = 0x4

// living is an error unless the thread has its namespaces and files still.
func living(dir string) error {
	raw, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return err
	}
	// proc_pid_stat(5); the name in the second field may contain anything.
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	if len(fields) < 7 {
		return fmt.Errorf("%s/stat: not the format of proc_pid_stat(5)", dir)
	}
	flags, err := strconv.ParseUint(fields[6], 10, 64)
	if err != nil {
		return fmt.Errorf("%s/stat: %w", dir, err)
	}
	if fields[0] == "Z" || fields[0] == "X" || flags&exiting != 0 {
		return errExited
	}
	return nil
}

var errExited = errors.New("the thread has exited")

// OpenFile opens a file of the process below /proc/PID, such as "net/dev" or "ns/net", of whichever
// thread has it. flags are those of open(2); O_CLOEXEC is added. Errors are of class
// errdefs.ErrNotFound if the process has ended, else those of open(2).
func (p Process) OpenFile(name string, flags int) (f *os.File, err error) {
	err = p.each(func(dir string, _ int) (err error) {
		if f != nil {
			f.Close() // of a process with this number that has ended
		}
		f, err = os.OpenFile(dir+"/"+name, flags|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil && f != nil {
		f.Close()
		f = nil
	}
	return f, err
}

// OpenRoot opens the root directory of the process, as a handle (O_PATH). Errors are those of
// OpenFile.
func (p Process) OpenRoot() (*os.File, error) {
	return p.OpenFile("root", unix.O_PATH|unix.O_DIRECTORY)
}

// Readlink reads a link of the process below /proc/PID, such as "ns/user". Errors are those of
// OpenFile.
func (p Process) Readlink(name string) (text string, err error) {
	err = p.each(func(dir string, _ int) (err error) {
		text, err = os.Readlink(dir + "/" + name)
		return err
	})
	return text, err
}
