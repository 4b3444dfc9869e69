// Command guest is the first process of a test machine: it makes the machine usable, runs the jobs
// it was given, tells how they went on the second serial line, and switches the machine off.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// job and result are the wire between the test and its machine; ../rig_test.go has the same.
type job struct {
	Name    string   `json:"name"`
	Args    []string `json:"args"`
	Dir     string   `json:"dir,omitempty"`
	Seconds int      `json:"seconds"`
}

type result struct {
	Name   string `json:"name"`
	Status int    `json:"status"`
	Output string `json:"output"`
}

type jobs struct {
	Version1 bool  `json:"version1"`
	Jobs     []job `json:"jobs"`
}

func main() {
	err := run()
	if err != nil {
		fmt.Println("guest:", err)
		tell(result{Name: "guest", Status: 1, Output: err.Error()})
	}
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) // the emulator is told not to start again
}

func tell(r result) {
	raw, err := json.Marshal(r)
	if err != nil {
		return
	}
	f, err := os.OpenFile("/dev/ttyS1", os.O_WRONLY, 0)
	if err != nil {
		fmt.Println("guest:", err)
		return
	}
	defer f.Close()
	f.Write(append(raw, '\n'))
	// The line must be empty before the machine goes: TCSBRK with 1 drains it (ioctl_tty(2)).
	unix.IoctlSetInt(int(f.Fd()), unix.TCSBRK, 1)
}

func run() error {
	raw, err := os.ReadFile("/jobs.json")
	if err != nil {
		return err
	}
	var list jobs
	if err := json.Unmarshal(raw, &list); err != nil {
		return err
	}
	if err := prepare(list.Version1); err != nil {
		return err
	}
	for _, j := range list.Jobs {
		tell(do(j))
	}
	return nil
}

func prepare(version1 bool) error {
	if err := leaveRamfs(); err != nil {
		return fmt.Errorf("new root: %w", err)
	}
	for _, m := range []struct{ typ, at, data string }{
		{"proc", "/proc", ""}, {"sysfs", "/sys", ""}, {"devtmpfs", "/dev", ""},
		{"devpts", "/dev/pts", "ptmxmode=0666"}, {"tmpfs", "/dev/shm", "mode=1777"},
		{"mqueue", "/dev/mqueue", ""}, {"tmpfs", "/tmp", "mode=1777"},
		{"tmpfs", "/run", "mode=755"}, {"tmpfs", "/var", "mode=755"},
		{"securityfs", "/sys/kernel/security", ""}, {"bpf", "/sys/fs/bpf", ""},
	} {
		os.MkdirAll(m.at, 0o755)
		if err := unix.Mount(m.typ, m.at, m.typ, 0, m.data); err != nil && m.typ != "securityfs" &&
			m.typ != "bpf" {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	if err := cgroups(version1); err != nil {
		return err
	}
	os.MkdirAll("/var/tmp", 0o1777)
	unix.Sethostname([]byte("guest"))
	os.Setenv("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
	os.Setenv("HOME", "/tmp")
	os.Setenv("TMPDIR", "/tmp")
	for _, line := range []string{"modprobe -a overlay bridge veth dummy", "ip link set lo up"} {
		if out, err := exec.Command("/bin/sh", "-c", line).CombinedOutput(); err != nil {
			fmt.Printf("guest: %s: %v: %s\n", line, err, out)
		}
	}
	return nil
}

// leaveRamfs moves everything to a tmpfs: on the first file system pivot_root(2) does not work.
func leaveRamfs() error {
	if err := unix.Mkdir("/new", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/new", "tmpfs", 0, "mode=755,size=90%"); err != nil {
		return err
	}
	err := filepath.WalkDir("/", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == "/" {
			return err
		}
		if p == "/new" {
			return fs.SkipDir
		}
		to := "/new" + p
		switch {
		case d.IsDir():
			return os.MkdirAll(to, 0o755)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err == nil {
				err = os.Symlink(target, to)
			}
			return err
		case d.Type().IsRegular():
			if err := copyFile(p, to); err != nil {
				return err
			}
			return os.Remove(p)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := unix.Chdir("/new"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Chdir("/")
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, st.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func cgroups(version1 bool) error {
	if !version1 {
		return unix.Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, "nsdelegate")
	}
	if err := unix.Mount("tmpfs", "/sys/fs/cgroup", "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	for _, c := range []string{
		"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb",
		"name=systemd",
	} {
		dir := filepath.Join("/sys/fs/cgroup", strings.TrimPrefix(c, "name="))
		os.MkdirAll(dir, 0o755)
		data := c
		if strings.HasPrefix(c, "name=") {
			data = "none," + c
		}
		if err := unix.Mount("cgroup", dir, "cgroup", 0, data); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	return nil
}

func do(j job) result {
	var out bytes.Buffer
	cmd := exec.Command(j.Args[0], j.Args[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = &out, &out, j.Dir
	cmd.WaitDelay = 5 * time.Second // a daemon may keep the pipe
	r := result{Name: j.Name}
	if err := cmd.Start(); err != nil {
		r.Status, r.Output = 127, err.Error()
		return r
	}
	late := time.AfterFunc(time.Duration(j.Seconds)*time.Second, func() {
		cmd.Process.Signal(unix.SIGQUIT)
	})
	defer late.Stop()
	if err := cmd.Wait(); err != nil && cmd.ProcessState == nil {
		r.Status = 126
		fmt.Fprintln(&out, err)
	}
	if st := cmd.ProcessState; st != nil {
		if r.Status = st.ExitCode(); r.Status < 0 {
			r.Status = 255
		}
	}
	r.Output = out.String()
	return r
}
