package leader

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// pidfdThread makes pidfd_open(2) return a descriptor of a thread (PIDFD_THREAD, Linux 6.9).
const pidfdThread = unix.O_EXCL

// Joint is what another process joins the namespaces of a process by (setns(2)).
type Joint struct {
	// FD takes all namespaces in one call; -1 if Files are there in its place.
	FD int
	// Files are one descriptor for each namespace, by its CLONE_NEW* flag.
	Files map[uint64]int

	owned []int
}

// At is the Joint of a descriptor that stays the caller's: a pidfd, with which joining fails
// (ESRCH) while the leader of the process is not there.
func At(pidFD int) *Joint { return &Joint{FD: pidFD} }

// Close closes the descriptors that Join has opened.
func (j *Joint) Close() {
	for _, fd := range j.owned {
		unix.Close(fd)
	}
	j.owned = nil
}

// files are the names in /proc/PID/ns (namespaces(7)).
var files = []struct {
	flag uint64
	name string
}{
	{unix.CLONE_NEWUSER, "user"}, {unix.CLONE_NEWPID, "pid"}, {unix.CLONE_NEWNET, "net"},
	{unix.CLONE_NEWIPC, "ipc"}, {unix.CLONE_NEWUTS, "uts"}, {unix.CLONE_NEWCGROUP, "cgroup"},
	{unix.CLONE_NEWTIME, "time"}, {unix.CLONE_NEWNS, "mnt"},
}

// Join finds a thread of the process by which its namespaces (CLONE_NEW* of flags) can be joined
// now: the pidfd itself while the leader lives, else another thread's descriptor, else, before
// Linux 6.9, the namespaces one by one. The thread may exit before it is used, which joining tells
// by ESRCH; then the caller asks again. Errors are those of OpenFile.
func (p Process) Join(flags uint64) (*Joint, error) { return p.join(flags, pidfdThread) }

func (p Process) join(flags uint64, thread int) (*Joint, error) {
	var j *Joint
	err := p.each(func(dir string, tid int) (err error) {
		if j != nil {
			j.Close() // of a process with this number that has ended
		}
		if err := living(dir); err != nil {
			return err
		}
		if tid == p.Pid {
			j = At(p.PidFD)
			return nil
		}
		if j, err = threadJoint(dir, tid, thread); errors.Is(err, unix.EINVAL) {
			j, err = fileJoint(dir, flags)
		}
		return err
	})
	if err != nil {
		if j != nil {
			j.Close()
		}
		return nil, err
	}
	return j, nil
}

// threadJoint opens a descriptor of a thread.
func threadJoint(dir string, tid, flags int) (*Joint, error) {
	fd, err := unix.PidfdOpen(tid, flags)
	if err != nil {
		return nil, fmt.Errorf("pidfd_open of thread %d: %w", tid, err)
	}
	// The number may have gone to a thread of another process, but not if the directory is there
	// still.
	if _, err := os.Stat(dir); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &Joint{FD: fd, owned: []int{fd}}, nil
}

// fileJoint opens the namespaces of a thread one by one.
func fileJoint(dir string, flags uint64) (*Joint, error) {
	j := &Joint{FD: -1, Files: make(map[uint64]int, len(files))}
	for _, f := range files {
		if flags&f.flag == 0 {
			continue
		}
		path := dir + "/ns/" + f.name
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			j.Close()
			return nil, fmt.Errorf("open %q: %w", path, err)
		}
		j.Files[f.flag] = fd
		j.owned = append(j.owned, fd)
	}
	return j, nil
}

// Lost says whether joining has failed because the thread was not there (any more), so that it may
// succeed by another Join. setns(2) answers that with ESRCH.
func Lost(err error) bool { return errors.Is(err, unix.ESRCH) }
