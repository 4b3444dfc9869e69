package test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strake/internal/testneed"
)

// recipe is a published escape from containers. attack plays it against the runtime of a rig and
// returns what came of it on the host or beyond the container's bounds, "" if nothing did. careless
// does what the runtimes did that had the defect, in a few lines of its own: where every runtime
// here is mended, it is what shows that the recipe attacks.
type recipe struct {
	name     string
	attack   func(r *ociRig) string
	careless func(r *ociRig) string
}

// TestEscapes plays the published escapes against strake-runtime, where none may have an effect, and
// against Debian's runc and crun and the careless programs, of which at least one must fall to each
// recipe: one that nothing falls to proves nothing. Since the peers fall, what a recipe aims at is in
// the directory of its rig or belongs to a namespace of the container: never the host's own.
func TestEscapes(t *testing.T) {
	runc := testneed.Program(t, "runc", "runc")
	crun := testneed.Program(t, "crun", "crun")
	peers := map[string][]string{
		"runc": {runc},
		// crun refuses version 1 groups with a version 2 tree beside them.
		"crun": {
			"/usr/bin/unshare", "-m", "/bin/sh", "-c",
			`umount -l /sys/fs/cgroup/unified 2>/dev/null; exec "$0" "$@"`, crun,
		},
	}
	for _, c := range recipes() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if effect := c.attack(newOCIRig(t)); effect != "" {
				t.Errorf("strake-runtime: %s", effect)
			}
			var fell []string
			for name, peer := range peers {
				r := newOCIRig(t)
				r.peer = peer
				if effect := c.attack(r); effect != "" {
					fell = append(fell, name+": "+effect)
				}
			}
			if c.careless != nil {
				if effect := c.careless(newOCIRig(t)); effect != "" {
					fell = append(fell, "a careless program: "+effect)
				}
			}
			if len(fell) == 0 {
				t.Error("nothing falls to the recipe")
			}
			slices.Sort(fell)
			t.Log(strings.Join(fell, "\n"))
		})
	}
}

// output runs a command to its end and returns what it wrote.
func output(cmd *exec.Cmd) (out string, err error) {
	raw, err := cmd.CombinedOutput()
	return string(raw), err
}

// end removes the container.
func (r *ociRig) end() { r.do("delete", "--force", "c") }

// made is a directory of the rig that no container is given.
func (r *ociRig) made(name string) string {
	r.t.Helper()
	dir := filepath.Join(r.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	return dir
}

// file writes a file.
func (r *ociRig) file(mode os.FileMode, text string, path ...string) string {
	r.t.Helper()
	name := filepath.Join(path...)
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		r.t.Fatal(err)
	}
	return name
}

// link replaces a path of the container's root by a symbolic link.
func (r *ociRig) link(to string, path ...string) {
	r.t.Helper()
	name := filepath.Join(append([]string{r.rootfs}, path...)...)
	os.RemoveAll(name)
	if err := os.Symlink(to, name); err != nil {
		r.t.Fatal(err)
	}
}

// holds tells what is in a directory of the host that must be empty.
func (r *ociRig) holds(dir string) string {
	r.t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		r.t.Fatal(err)
	}
	if len(entries) == 0 {
		return ""
	}
	return fmt.Sprint("the host's directory holds ", entries)
}

// mount appends mounts to a configuration; a source makes it a bind mount, none a tmpfs.
func mount(config map[string]any, list ...[2]string) {
	mounts := config["mounts"].([]any)
	for _, m := range list {
		entry := map[string]any{
			"destination": m[1], "type": "bind", "source": m[0], "options": []string{"bind"},
		}
		if m[0] == "" {
			entry = map[string]any{"destination": m[1], "type": "tmpfs", "source": "tmpfs"}
		}
		mounts = append(mounts, entry)
	}
	config["mounts"] = mounts
}

// unmount takes mounts out of a configuration, with what is below them.
func unmount(config map[string]any, destination string) {
	config["mounts"] = slices.DeleteFunc(config["mounts"].([]any), func(m any) bool {
		at := m.(map[string]any)["destination"].(string)
		return at == destination || strings.HasPrefix(at, destination+"/")
	})
}

// capable gives the process capabilities in the sets that count without a program's own.
func capable(config map[string]any, names ...string) {
	config["process"].(map[string]any)["capabilities"] = map[string]any{
		"bounding": names, "effective": names, "permitted": names,
	}
}

// enter runs a program in the mount and PID namespaces of a process as nsenter(1) does, which
// guards against nothing, with a descriptor 3.
func enter(pid int, held *os.File, script string) *exec.Cmd {
	cmd := exec.Command(
		"/usr/bin/nsenter", "-t", strconv.Itoa(pid), "-m", "-p", "--", "/bin/sh", "-c", script,
	)
	cmd.ExtraFiles = []*os.File{held}
	return cmd
}

// running starts a container that sleeps.
func (r *ociRig) running() (pid int) {
	r.t.Helper()
	r.write(shell("exec sleep 1000"))
	r.ok("run", "-d", "c")
	return r.state("c").Pid
}

func recipes() []recipe {
	return []recipe{
		{name: "CVE-2019-5736 own executable", attack: selfExe},
		{name: "CVE-2024-21626 working directory", attack: leakedDirectory, careless: enterDirectory},
		{name: "descriptors of a created container", attack: createdHolds, careless: enteredHolds},
		{
			name:   "CVE-2016-9962 descriptors of a joining process",
			attack: func(r *ociRig) string { return watch(r, joinByExec) },
			careless: func(r *ociRig) string {
				return watch(r, joinByEntering)
			},
		},
		{
			name: "CVE-2019-18837 links at mount targets", attack: linkedTargets,
			careless: func(r *ociRig) string {
				outside := r.made("outside")
				r.link(outside, "target")
				os.MkdirAll(filepath.Join(r.rootfs, "target", "below"), 0o755)
				return r.holds(outside)
			},
		},
		{
			name:   "CVE-2021-30465 and 2024-45310 racing mount targets",
			attack: func(r *ociRig) string { return race(r, raceRun) },
			careless: func(r *ociRig) string {
				return race(r, func(r *ociRig, volume string) {
					os.MkdirAll(filepath.Join(volume, "dir/made/by/mount"), 0o755)
				})
			},
		},
		{name: "CVE-2019-19921 proc is a link", attack: linkedProc, careless: mountedProc},
		{
			name: "CVE-2025-31133 null device of the image", attack: foreignNull,
			careless: carelessNull,
		},
		{name: "CVE-2026-41579 dev is a link", attack: linkedDev, careless: carelessDev},
		{
			name:     "nested procfs without pivot_root",
			attack:   func(r *ociRig) string { return nestedProc(r, true) },
			careless: func(r *ociRig) string { return nestedProc(r, false) },
		},
		{name: "CVE-2022-29162 inheritable capabilities", attack: inheritable, careless: inheriting},
		{name: "CVE-2025-52565 console is a link", attack: linkedConsole, careless: carelessConsole},
		{name: "CVE-2025-52881 sysctl in a false proc", attack: falseProc, careless: carelessSysctl},
	}
}

// libraries gives a container what the runtimes of the host are linked to; an attacker's image has
// libraries of its own.
func libraries(config map[string]any) {
	for _, dir := range []string{"/usr/lib", "/lib", "/lib64"} {
		if _, err := os.Stat(dir); err == nil {
			mount(config, [2]string{dir, dir})
		}
	}
}

// selfExe: an entrypoint, or the interpreter of a script, that leads through /proc/self/exe to the
// runtime's own executable, which runs in the container then and can be written from there.
func selfExe(r *ociRig) (effect string) {
	program := r.program
	if len(r.peer) > 0 {
		program = r.peer[len(r.peer)-1]
	}
	sum := func() [32]byte {
		raw, err := os.ReadFile(program)
		if err != nil {
			r.t.Fatal(err)
		}
		return sha256.Sum256(raw)
	}
	before := sum()
	r.file(0o755, "#!/proc/self/exe --version\n", r.rootfs, "bin/script")
	ran := func(args ...string) {
		if got := r.do(args...); strings.Contains(got.out, "version") {
			effect = fmt.Sprintf("%s in the container printed %q", program, got.out)
		}
	}
	for _, args := range [][]string{
		{"/proc/self/exe", "--version"}, {"/proc/1/exe", "--version"}, {"/bin/script"},
	} {
		r.write(func(config map[string]any) {
			config["process"].(map[string]any)["args"] = args
			libraries(config)
		})
		ran("run", "c")
		r.end()
	}
	r.write(func(config map[string]any) {
		shell("exec sleep 1000")(config)
		libraries(config)
	})
	r.ok("run", "-d", "c")
	ran("exec", "c", "/bin/script")
	r.end()
	if sum() != before {
		effect = program + " has changed"
	}
	return effect
}

// leakedDirectory: a working directory that is a descriptor which the runtime or its caller left
// open on a directory of the host.
func leakedDirectory(r *ociRig) (effect string) {
	outside := r.made("outside")
	r.file(0o644, "MARK", outside, "mark")
	dir, err := os.Open(outside)
	if err != nil {
		r.t.Fatal(err)
	}
	defer dir.Close()
	r.link("/proc/self/fd/3", "link")
	cwds := []string{"/link"}
	for fd := 3; fd < 16; fd++ {
		cwds = append(cwds, "/proc/self/fd/"+strconv.Itoa(fd))
	}
	for _, cwd := range cwds {
		r.write(func(config map[string]any) {
			shell("cat ./mark")(config)
			config["process"].(map[string]any)["cwd"] = cwd
		})
		cmd := r.command("run", "c")
		cmd.ExtraFiles = []*os.File{dir}
		if out, _ := output(cmd); strings.Contains(out, "MARK") {
			effect = fmt.Sprintf("with %s: %q", cwd, out)
		}
		r.end()
	}
	return effect
}

func enterDirectory(r *ociRig) string {
	outside := r.made("outside")
	r.file(0o644, "MARK", outside, "mark")
	dir, err := os.Open(outside)
	if err != nil {
		r.t.Fatal(err)
	}
	defer dir.Close()
	out, _ := output(enter(r.running(), dir, "cd /proc/self/fd/3 && cat mark"))
	r.end()
	return out
}

// beyond are the links in a listing of /proc/PID that lead to what processes of a container have no
// business to hold: files of the host, and of a procfs that was opened before it was masked.
func beyond(listing string) string {
	var list []string
	for line := range strings.Lines(listing) {
		_, to, _ := strings.Cut(strings.TrimSpace(line), " -> ")
		switch {
		case !strings.HasPrefix(to, "/"), to == "/", to == "/null", to == "/dev/null",
			strings.HasPrefix(to, "/bin/"), strings.HasPrefix(to, "/memfd:"):
		case strings.HasPrefix(to, "/proc/") && strings.HasSuffix(to, "/fd"): // the watcher's own
		default:
			if !slices.Contains(list, to) {
				list = append(list, to)
			}
		}
	}
	return strings.Join(list, " ")
}

// createdHolds: what the first process of a container that waits to be started has open can be
// reached through /proc/1/fd by one that is added to it.
func createdHolds(r *ociRig) string {
	r.write(shell("exec sleep 1000"))
	if err := r.command("create", "c").Run(); err != nil {
		r.t.Fatal(err)
	}
	out, err := output(
		r.command("exec", "c", "sh", "-c", "busybox ls -l /proc/[0-9]*/fd; true"),
	)
	if err != nil {
		r.t.Fatalf("exec: %v: %s", err, out)
	}
	r.end()
	return beyond(out)
}

func enteredHolds(r *ociRig) string {
	pid := r.running()
	host, err := os.Open("/etc/passwd")
	if err != nil {
		r.t.Fatal(err)
	}
	defer host.Close()
	out, _ := output(enter(pid, host, "busybox ls -l /proc/[0-9]*/fd; true"))
	r.end()
	return beyond(out)
}

// watch: a process of the container that may ptrace looks at those which join it, and finds what
// they have open before they execute.
func watch(r *ociRig, join func(r *ociRig, pid int, host *os.File)) string {
	host, err := os.Open("/etc/passwd")
	if err != nil {
		r.t.Fatal(err)
	}
	defer host.Close()
	r.write(func(config map[string]any) {
		capable(config, "CAP_SYS_PTRACE")
		shell("while true; do for p in /proc/[0-9]*; do test $p = /proc/1 && continue; " +
			"busybox ls -l $p/fd $p/cwd $p/root $p/exe 2>/dev/null; done; done")(config)
	})
	in, out, err := os.Pipe()
	if err != nil {
		r.t.Fatal(err)
	}
	defer in.Close()
	cmd := r.command("run", "-d", "c")
	cmd.Stdout = out
	err = cmd.Run()
	out.Close()
	if err != nil {
		r.t.Fatal(err)
	}
	seen := make(chan string)
	go func() {
		raw, _ := io.ReadAll(in)
		seen <- string(raw)
	}()
	pid := r.state("c").Pid
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		join(r, pid, host)
	}
	r.end()
	return beyond(<-seen)
}

func joinByExec(r *ociRig, _ int, _ *os.File) {
	if err := r.command("exec", "c", "true").Run(); err != nil {
		r.t.Fatal(err)
	}
}

func joinByEntering(_ *ociRig, pid int, host *os.File) {
	enter(pid, host, "busybox usleep 10000").Run()
}

// linkedTargets: mount targets in the image that are links to the host.
func linkedTargets(r *ociRig) string {
	outside, src := r.made("outside"), r.made("src")
	r.file(0o644, "", src, "mark")
	for _, to := range []string{
		outside, "../../../../../../.." + outside, "/proc/1/root" + outside,
	} {
		r.link(to, "target")
		for _, at := range []string{"/target", "/target/below"} {
			r.write(func(config map[string]any) {
				shell("true")(config)
				mount(config, [2]string{src, at})
			})
			r.do("run", "c") // may start or not: what counts is the host
			r.end()
		}
	}
	return r.holds(outside)
}

// race: somebody who shares a volume swaps a directory on the path of a mount target with a link to
// the host while targets are made.
func race(r *ociRig, target func(r *ociRig, volume string)) string {
	volume, outside := r.made("volume"), r.made("outside")
	dir, link := filepath.Join(volume, "dir"), filepath.Join(volume, "link")
	if err := os.Mkdir(dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Symlink(outside, link); err != nil {
		r.t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
			}
		}
	}()
	effect := ""
	for end := time.Now().Add(2 * time.Second); effect == "" && time.Now().Before(end); {
		target(r, volume)
		effect = r.holds(outside)
	}
	close(stop)
	<-stopped
	return effect
}

func raceRun(r *ociRig, volume string) {
	r.write(func(config map[string]any) {
		shell("true")(config)
		mount(config, [2]string{volume, "/data"},
			[2]string{r.made("src"), "/data/dir/made/by/mount"}, [2]string{"", "/data/dir/tmp"})
	})
	r.do("run", "c")
	r.end()
}
