package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// system is a container that boots a Debian: by strake-lxc or by LXC.
type system struct {
	name  string
	verbs func(verb string, args ...string) *exec.Cmd
	tree  string
}

// systems measures containers that boot a whole Debian: until its last unit is up, until it is down
// again, and the memory of what keeps it running beside its own processes.
func (b *bench) systems(string) error {
	if b.debian == "" {
		return errors.New("systems: want -debian")
	}
	var list []*system
	for _, name := range []string{"strake-lxc", "lxc-start"} {
		s := &system{name: name, tree: filepath.Join(b.dir, name+"-root")}
		if out, err := exec.Command("cp", "-a", b.debian, s.tree).CombinedOutput(); err != nil {
			return fmt.Errorf("cp: %w: %s", err, out)
		}
		if err := bootEnd(s.tree); err != nil {
			return err
		}
		containers := filepath.Join(b.dir, name+"-containers")
		if err := os.MkdirAll(filepath.Join(containers, "deb"), 0o755); err != nil {
			return err
		}
		config := "lxc.rootfs.path = dir:" + s.tree + systemConfig
		file := filepath.Join(containers, "deb", "config")
		if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
			return err
		}
		s.verbs = func(verb string, args ...string) *exec.Cmd {
			argv := []string{"lxc-" + verb, "-P", containers}
			if name == "strake-lxc" {
				argv = []string{
					filepath.Join(b.bin, "strake-lxc"), "lxc", verb, "-P", containers, "--run",
					filepath.Join(b.dir, "run"),
				}
			}
			return exec.Command(argv[0], append(argv[1:], args...)...)
		}
		list = append(list, s)
	}
	defer list[0].verbs("teardown").Run()
	boots, stops := make([][]time.Duration, len(list)), make([][]time.Duration, len(list))
	memory := make([][]int, len(list))
	for round := range max(b.rounds/4, 3) {
		for i := range list {
			k := (i + round) % len(list)
			boot, stop, kib, err := list[k].round()
			if err != nil {
				return fmt.Errorf("%s: %w", list[k].name, err)
			}
			boots[k], stops[k] = append(boots[k], boot), append(stops[k], stop)
			memory[k] = append(memory[k], kib)
		}
	}
	for _, m := range []struct {
		what   string
		values [][]time.Duration
	}{{"boot of a Debian 12 until its last unit is up", boots}, {"its stop", stops}} {
		for k, s := range list {
			v := median(m.values[k])
			ratio := ""
			if k > 0 {
				ratio = fmt.Sprintf("%.2f", float64(v)/float64(median(m.values[0])))
			}
			fmt.Printf("| %s: %s | %.0f ms | %s |\n", m.what, s.name, v.Seconds()*1e3, ratio)
		}
	}
	for k, s := range list {
		slices.Sort(memory[k])
		fmt.Printf(
			"| memory of what keeps one such system running: %s | %d KiB | |\n", s.name,
			memory[k][len(memory[k])/2],
		)
	}
	return nil
}

func median(list []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}

// systemConfig is what both are given beside the root.
const systemConfig = `
lxc.uts.name = deb
lxc.tty.max = 0
lxc.pty.max = 1024
lxc.cap.drop = mac_admin mac_override sys_time sys_module sys_rawio
lxc.mount.auto = cgroup:mixed proc:mixed sys:mixed
lxc.net.0.type = empty
`

// booted is made by the last unit of the boot.
const booted = "booted"

// bootEnd adds a unit to a Debian that makes a file when all others are up.
func bootEnd(tree string) error {
	units := filepath.Join(tree, "etc/systemd/system")
	unit := "[Unit]\nAfter=multi-user.target getty.target\n[Service]\nType=oneshot\n" +
		"ExecStart=/bin/touch /" + booted + "\n[Install]\nWantedBy=graphical.target\n"
	if err := os.WriteFile(filepath.Join(units, "booted.service"), []byte(unit), 0o644); err != nil {
		return err
	}
	wants := filepath.Join(units, "graphical.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	return os.Symlink("../booted.service", filepath.Join(wants, "booted.service"))
}

// round boots the system and stops it.
func (s *system) round() (boot, stop time.Duration, kib int, err error) {
	file := filepath.Join(s.tree, booted)
	os.Remove(file)
	began := time.Now()
	if out, err := s.verbs("start", "-n", "deb").CombinedOutput(); err != nil {
		return 0, 0, 0, fmt.Errorf("start: %w: %s", err, out)
	}
	for {
		if _, err := os.Stat(file); err == nil {
			break
		}
		if time.Since(began) > time.Minute {
			return 0, 0, 0, errors.New("the system does not come up")
		}
		time.Sleep(time.Millisecond)
	}
	boot = time.Since(began)
	if kib, err = s.keepers(); err != nil {
		return 0, 0, 0, err
	}
	began = time.Now()
	if out, err := s.verbs("stop", "-n", "deb").CombinedOutput(); err != nil {
		return 0, 0, 0, fmt.Errorf("stop: %w: %s", err, out)
	}
	return boot, time.Since(began), kib, nil
}

// keepers is the memory of the processes that keep the system running and are none of its own: their
// proportional share (PSS), in KiB.
func (s *system) keepers() (kib int, err error) {
	list, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, name := range list {
		raw, err := os.ReadFile(name)
		dir := filepath.Dir(name)
		if err != nil || !s.keeps(raw, dir) {
			continue
		}
		rollup, err := os.ReadFile(filepath.Join(dir, "smaps_rollup"))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(rollup), "\nPss:")
		if f := strings.Fields(rest); len(f) > 0 {
			n, _ := strconv.Atoi(f[0])
			kib += n
		}
	}
	return kib, nil
}

// keeps says whether a process is a keeper, a guard, or one of LXC's monitors, of this benchmark: it
// is in the same mount namespace.
func (s *system) keeps(cmdline []byte, dir string) bool {
	own, _ := os.Readlink("/proc/self/ns/mnt")
	if theirs, _ := os.Readlink(filepath.Join(dir, "ns/mnt")); theirs != own {
		return false
	}
	var id unix.Stat_t
	if unix.Stat(dir, &id) != nil {
		return false
	}
	if s.name == "lxc-start" {
		return bytes.Contains(cmdline, []byte("[lxc monitor]")) ||
			bytes.HasPrefix(cmdline, []byte("lxc-start"))
	}
	comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
	return strings.HasPrefix(string(comm), "strake-")
}
