package test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// linkedProc: /proc of the image is a link into a volume, so that what the runtime writes and masks
// below /proc goes to files of the container's choice.
func linkedProc(r *ociRig) string {
	volume := r.made("volume")
	r.link("data", "proc")
	os.MkdirAll(filepath.Join(r.rootfs, "data"), 0o755)
	r.write(func(config map[string]any) {
		shell("cat /proc/mark")(config)
		mount(config, [2]string{volume, "/data"})
	})
	r.file(0o644, "FALSE", volume, "mark")
	got := r.do("run", "c")
	r.end()
	if strings.Contains(got.out, "FALSE") {
		return "a container runs on a false /proc"
	}
	return ""
}

func mountedProc(r *ociRig) string {
	volume := r.made("volume")
	r.link("data", "proc")
	os.MkdirAll(filepath.Join(r.rootfs, "data"), 0o755)
	r.file(0o644, "FALSE", volume, "mark")
	return r.mounted(`mount --bind "$0/../../volume" "$0/data" && chroot "$0" /bin/cat /proc/mark`)
}

// mounted runs a script of the host in a mount namespace where procfs is on /proc of the root, $0.
func (r *ociRig) mounted(script string) string {
	r.t.Helper()
	out, err := output(exec.Command("/usr/bin/unshare", "-m", "/bin/sh", "-c",
		`mount -t proc proc "$0/proc" && `+script, r.rootfs))
	if err != nil {
		r.t.Errorf("%v: %s", err, out)
	}
	return out
}

// foreignNull: /dev/null of the image is a link, so that masks show what it leads to.
func foreignNull(r *ociRig) string {
	os.MkdirAll(filepath.Join(r.rootfs, "dev"), 0o755)
	r.link("/proc/sys/kernel/domainname", "dev/null")
	r.write(func(config map[string]any) {
		shell("busybox stat -c %F /proc/keys; cat /proc/keys")(config)
		unmount(config, "/dev")
	})
	got := r.do("run", "c")
	r.end()
	if got.code == 0 && !strings.HasPrefix(got.out, "character special file\n") {
		return fmt.Sprintf("the mask of /proc/keys: %q", got.out)
	}
	return ""
}

func carelessNull(r *ociRig) string {
	os.MkdirAll(filepath.Join(r.rootfs, "dev"), 0o755)
	r.link("/proc/sys/kernel/domainname", "dev/null")
	return r.mounted(`mount --bind "$0/dev/null" "$0/proc/keys" && chroot "$0" /bin/cat /proc/keys`)
}

// linkedDev: /dev of the image is a link to a directory of the host, in which devices, links and
// ptmx are made and removed.
func linkedDev(r *ociRig) string {
	outside := r.made("outside")
	for _, to := range []string{outside, "../../../../../.." + outside} {
		r.file(0o644, "host", outside, "ptmx")
		r.link(to, "dev")
		r.write(func(config map[string]any) {
			shell("true")(config)
			unmount(config, "/dev")
			unmount(config, "/sys")
			config["linux"].(map[string]any)["maskedPaths"] = []string{}
		})
		r.do("run", "c")
		r.end()
		raw, err := os.ReadFile(filepath.Join(outside, "ptmx"))
		entries, _ := os.ReadDir(outside)
		if err != nil || string(raw) != "host" || len(entries) != 1 {
			return fmt.Sprintf("the host's directory has changed: %q, %v", entries, err)
		}
	}
	return ""
}

func carelessDev(r *ociRig) string {
	outside := r.made("outside")
	r.link(outside, "dev")
	os.Symlink("pts/ptmx", filepath.Join(r.rootfs, "dev/ptmx"))
	return r.holds(outside)
}

// nestedProc: a user namespace made in the container mounts a procfs of its own, past the masks.
func nestedProc(r *ociRig, masked bool) (effect string) {
	r.link("busybox", "bin/unshare")
	for _, pivot := range [][]string{nil, {"--no-pivot"}} {
		r.write(func(config map[string]any) {
			capable(config, "CAP_SETFCAP", "CAP_SETUID", "CAP_SETGID")
			shell("unshare -m -U -r -p -f sh -c " +
				"'busybox mount -t proc none /tmp 2>/dev/null && echo MOUNTED; echo tried'")(config)
			if !masked {
				linux := config["linux"].(map[string]any)
				linux["maskedPaths"], linux["readonlyPaths"] = []string{}, []string{}
			}
		})
		got := r.do(append(append([]string{"run"}, pivot...), "c")...)
		r.end()
		if !strings.Contains(got.out, "tried") {
			r.t.Errorf("%v: %+v", pivot, got)
		}
		if strings.Contains(got.out, "MOUNTED") {
			effect = fmt.Sprintf("mounted a procfs with the options %q", pivot)
		}
	}
	return effect
}

const noneInheritable = "CapInh:\t0000000000000000"

// inheritable: processes that are added have capabilities in the inheritable set, which a program
// with file capabilities takes into its permitted set.
func inheritable(r *ociRig) string {
	r.running()
	got := r.do("exec", "--cap", "CAP_NET_RAW", "c", "busybox", "grep", "CapInh", "/proc/self/status")
	r.end()
	if strings.TrimSpace(got.out) != noneInheritable {
		return fmt.Sprintf("%q", got.out)
	}
	return ""
}

func inheriting(r *ociRig) string {
	r.write(func(config map[string]any) {
		shell("busybox grep CapInh /proc/self/status")(config)
		config["process"].(map[string]any)["capabilities"].(map[string]any)["inheritable"] =
			[]string{"CAP_KILL"}
	})
	got := r.do("run", "c")
	if strings.TrimSpace(got.out) == noneInheritable {
		return ""
	}
	return got.out
}

// linkedConsole: /dev/console of the image is a link, so that the terminal is mounted on what it
// leads to.
func linkedConsole(r *ociRig) (effect string) {
	t := r.t.(*testing.T)
	os.MkdirAll(filepath.Join(r.rootfs, "dev"), 0o755)
	for _, to := range []string{"/proc/version", "/proc/sys/kernel/domainname"} {
		r.link(to, "dev/console")
		r.write(func(config map[string]any) {
			shell("busybox stat -c %F " + to + "; exec sleep 1000")(config)
			config["process"].(map[string]any)["terminal"] = true
			config["mounts"] = slices.DeleteFunc(config["mounts"].([]any), func(m any) bool {
				return m.(map[string]any)["destination"] == "/dev"
			})
		})
		socket := filepath.Join(r.dir, "console")
		got := receive(t, socket)
		started := r.do("run", "-d", "--console-socket", socket, "c")
		if started.code != 0 {
			t.Log(started)
			continue
		}
		out, err := bufio.NewReader((<-got).check(t).file).ReadString('\n')
		if err != nil {
			t.Error(err)
		}
		r.end()
		if strings.Contains(out, "character") {
			effect = fmt.Sprintf("%s is a %s", to, out)
		}
	}
	return effect
}

func carelessConsole(r *ociRig) string {
	os.MkdirAll(filepath.Join(r.rootfs, "dev"), 0o755)
	r.link("/proc/version", "dev/console")
	out := r.mounted(`mount --bind /dev/null "$0/dev/console" && stat -c %F /proc/version`)
	if !strings.Contains(out, "character") {
		return ""
	}
	return out
}

// falseProc: /proc of the image has files and no procfs is mounted on it, so that a sysctl is
// written to a file of the container's choice.
func falseProc(r *ociRig) string {
	mark, _ := r.falseSysctl()
	r.write(func(config map[string]any) {
		shell("true")(config)
		unmount(config, "/proc")
		linux := config["linux"].(map[string]any)
		linux["sysctl"] = map[string]any{"kernel.domainname": "written"}
		linux["maskedPaths"], linux["readonlyPaths"] = []string{}, []string{}
	})
	r.do("run", "c")
	r.end()
	return written(mark)
}

func carelessSysctl(r *ociRig) string {
	mark, sysctl := r.falseSysctl()
	r.file(0o644, "written", sysctl)
	return written(mark)
}

// falseSysctl makes a file of the image, and the path of a sysctl that leads to it.
func (r *ociRig) falseSysctl() (mark, sysctl string) {
	r.t.Helper()
	const name = "proc/sys/kernel/domainname"
	if err := os.MkdirAll(filepath.Dir(filepath.Join(r.rootfs, name)), 0o755); err != nil {
		r.t.Fatal(err)
	}
	r.link("../../../mark", name)
	return r.file(0o644, "untouched", r.rootfs, "mark"), filepath.Join(r.rootfs, name)
}

func written(mark string) string {
	raw, err := os.ReadFile(mark)
	if err != nil || string(raw) != "untouched" {
		return fmt.Sprintf("the sysctl went to a file: %q, %v", raw, err)
	}
	return ""
}
