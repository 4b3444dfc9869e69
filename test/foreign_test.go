package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strake/container/capability"
	"strake/internal/testneed"
)

// foreign is an engine of Debian's that runs containers on an OCI runtime: Debian's runc, or
// strake-runtime. The engine has directories and control groups of its own, and containers without
// a network.
type foreign struct {
	t        *testing.T
	dir      string
	root     string       // the tree of the image box, from rootfs on
	all      *confinement // of the engine's daemons, their shims and monitors
	runtimes [2]runtimeUnder
	// command is the engine's command line, which uses the given runtime.
	command func(rt runtimeUnder, args ...string) *exec.Cmd
	// wording finds what the runtime says in an error of the engine: the text between the first two
	// submatches. The rest is the engine's own.
	wording *regexp.Regexp
	// remove removes the container of a scene and what is left of it.
	remove func(s *scene)
	// forgetful is an engine that now and then takes 0 for the exit status of an exec, on runc too.
	forgetful bool
	before    []string
	forgotten []string // paths to remove at the end
}

// runtimeUnder is a runtime that an engine uses.
type runtimeUnder struct{ name, program string }

// newForeign finds the runtimes. At the end of the test what is left of the engine on this host is
// an error.
func newForeign(t *testing.T) *foreign {
	t.Helper()
	bin := os.Getenv("STRAKE_BIN")
	if bin == "" {
		t.Skip("needs STRAKE_BIN, the directory of the built binaries (make test sets it)")
	}
	testneed.Root(t, "makes containers")
	testneed.File(t, "/bin/busybox", "busybox-static")
	runc := testneed.Program(t, "runc", "runc")
	// Socket paths are short by nature (unix(7)), names of test directories are not.
	dir, err := os.MkdirTemp("", "strake-fe-")
	if err != nil {
		t.Fatal(err)
	}
	f := &foreign{t: t, dir: dir, runtimes: [2]runtimeUnder{
		{"runc", runc}, {"strake", filepath.Join(bin, "strake-runtime")},
	}}
	f.before = f.host()
	t.Cleanup(func() {
		os.RemoveAll(dir)
		for _, p := range f.forgotten {
			os.RemoveAll(p)
		}
	})
	f.all = newConfinement(t, dir)
	t.Cleanup(f.checkLeft)
	return f
}

// group is the parent of the containers' control groups.
func (f *foreign) group() string { return "/" + filepath.Base(f.dir) }

// path is a file in the engine's directory.
func (f *foreign) path(name string) string { return filepath.Join(f.dir, name) }

// write makes a file in the engine's directory.
func (f *foreign) write(name, text string, mode fs.FileMode) string {
	f.t.Helper()
	p := f.path(name)
	if err := os.WriteFile(p, []byte(text), mode); err != nil {
		f.t.Fatal(err)
	}
	return p
}

// forget removes, at the end of the test, what an engine makes at a path that no option changes,
// unless something is there already.
func (f *foreign) forget(paths ...string) {
	for _, p := range paths {
		if _, err := os.Lstat(p); errors.Is(err, fs.ErrNotExist) {
			f.forgotten = append(f.forgotten, p)
		}
	}
}

// daemon starts a program that serves until the end of the test, and waits for its socket.
func (f *foreign) daemon(socket string, program ...string) {
	f.t.Helper()
	log, err := os.Create(f.path(filepath.Base(program[0]) + ".log"))
	if err != nil {
		f.t.Fatal(err)
	}
	defer log.Close()
	cmd := f.all.command(program...)
	cmd.Env = append(os.Environ(), "TMPDIR="+f.dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		late := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		defer late.Stop()
		cmd.Wait()
		if f.t.Failed() {
			raw, _ := os.ReadFile(log.Name())
			f.t.Logf("log of %s:\n%s", program[0], tail(string(raw), 3000))
		}
	})
	for end := time.Now().Add(30 * time.Second); ; runtimeYield() {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			return
		}
		if time.Now().After(end) {
			raw, _ := os.ReadFile(log.Name())
			f.t.Fatalf("%s does not listen:\n%s", program[0], tail(string(raw), 3000))
		}
	}
}

// host lists what an engine can leave: mounts, control groups other than the test's own two, and
// links. Processes are in the test's groups.
func (f *foreign) host() (list []string) {
	f.t.Helper()
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		f.t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if m := strings.Fields(line)[4]; strings.HasPrefix(m, f.dir) ||
			strings.HasPrefix(m, "/run/netns") {
			list = append(list, "mount "+m)
		}
	}
	for _, g := range f.groups() {
		// Engines leave the parent that they are given, and podman its monitors' group.
		own := []string{filepath.Base(f.dir), filepath.Base(f.dir) + "-all", "conmon"}
		if !slices.Contains(own, filepath.Base(g)) {
			list = append(list, "cgroup "+g)
		}
	}
	ifs, err := net.Interfaces()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, i := range ifs {
		if regexp.MustCompile(`^(docker|cni|podman|br-)`).MatchString(i.Name) {
			list = append(list, "link "+i.Name)
		}
	}
	return list
}

// groups are the control groups whose path has the name of the engine's directory, deepest first.
func (f *foreign) groups() (list []string) {
	filepath.WalkDir("/sys/fs/cgroup", func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(p, filepath.Base(f.dir)) {
			list = append(list, p)
		}
		return nil
	})
	slices.Reverse(list)
	return list
}

// checkLeft compares the host with what it was, and removes the groups that engines leave.
func (f *foreign) checkLeft() {
	f.all.expectEmpty()
	var left []string
	for end := time.Now().Add(10 * time.Second); ; runtimeYield() {
		left = slices.DeleteFunc(f.host(), func(s string) bool {
			return slices.Contains(f.before, s)
		})
		if len(left) == 0 || time.Now().After(end) {
			break
		}
	}
	if len(left) > 0 {
		f.t.Errorf("left on the host:\n%s", strings.Join(left, "\n"))
	}
	for _, g := range f.groups() {
		if !strings.HasSuffix(g, "-all") {
			err := os.Remove(g)
			if errors.Is(err, unix.ENOTEMPTY) { // a directory in a tmpfs
				err = os.RemoveAll(g)
			}
			if err != nil {
				f.t.Errorf("a group that no process should be in: %v", err)
			}
		}
	}
}

// weaken puts a script before each runtime, where the root of this machine lacks capabilities: the
// script takes them off the configuration. For --privileged dockerd asks for all that the kernel
// knows, and so neither runtime could start such a container.
func (f *foreign) weaken() {
	f.t.Helper()
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		f.t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(raw), "CapEff:")
	var have uint64
	if _, err := fmt.Sscanf(after, "%x", &have); err != nil {
		f.t.Fatal(err)
	}
	var lacking []string
	for n, name := range capability.Names() {
		if have&(1<<n) == 0 {
			lacking = append(lacking, name)
		}
	}
	if len(lacking) == 0 {
		return
	}
	list := strings.Join(lacking, `\|`)
	for i, rt := range f.runtimes {
		f.runtimes[i].program = f.write(rt.name+".sh", `#!/bin/sh
for f in "$@"; do
	for f in "$f" "$f/config.json"; do
		case $f in
		*/config.json | */runc-process*)
			[ ! -f "$f" ] || sed -i -e 's/"\(`+list+`\)",//g' -e 's/,"\(`+list+`\)"\]/]/g' "$f" ;;
		esac
	done
done
exec `+rt.program+` "$@"
`, 0o755)
	}
}

// rootfs makes the tree of the image box and returns its archive.
func (f *foreign) rootfs() string {
	f.t.Helper()
	const script = `
mkdir -p root/bin root/etc root/root root/tmp root/home/bin root/proc root/dev root/sys
chmod 1777 root/tmp
cp /bin/busybox root/bin/
for a in sh true false sleep cat echo ls id stat stty tty ps touch env kill test dd od hostname \
	mkdir rm wc tr grep sort readlink mount umount mknod usleep; do ln -s busybox root/bin/$a; done
printf 'root:x:0:0::/root:/bin/sh\nworker:x:7:8::/home/bin:/bin/sh\n' >root/etc/passwd
printf 'root:x:0:\nworker:x:8:\nextra:x:9:worker\n' >root/etc/group
echo text >root/etc/text
echo kept >root/tmp/kept
tar --numeric-owner --owner=0 --group=0 -C root -cf root.tar .`
	cmd := exec.Command("/bin/sh", "-ec", script)
	cmd.Dir = f.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("make the image: %v\n%s", err, out)
	}
	f.root = f.path("root")
	return f.root + ".tar"
}

// act is something that a user does with an engine.
type act struct {
	name string
	play func(s *scene)
}

// play plays each act on runc and on strake-runtime and compares what the user sees: exit statuses,
// outputs, and of errors what the engine says.
func (f *foreign) play(acts []act) {
	for _, a := range acts {
		f.t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			var seen [2][]string
			for i, rt := range f.runtimes {
				s := &scene{foreign: f, t: t, rt: rt, name: a.name + "-" + rt.name}
				func() {
					defer f.remove(s)
					a.play(s)
				}()
				seen[i] = s.seen
			}
			for i := range min(len(seen[0]), len(seen[1])) {
				if d := differ(seen[0][i], seen[1][i]); d != "" {
					t.Errorf("lines on runc (-) and on strake-runtime (+) of %s", d)
				}
			}
			if len(seen[0]) == 0 || len(seen[0]) != len(seen[1]) {
				t.Errorf("%d outcomes on runc, %d on strake-runtime", len(seen[0]), len(seen[1]))
			}
		})
	}
}

// differ shows the first line of two texts and the lines that only one of them has. It is empty if
// they are equal.
func differ(one, other string) string {
	if one == other {
		return ""
	}
	a, b := strings.Split(one, "\n"), strings.Split(other, "\n")
	text := a[0]
	for _, line := range a {
		if !slices.Contains(b, line) {
			text += "\n-" + line
		}
	}
	for _, line := range b {
		if !slices.Contains(a, line) {
			text += "\n+" + line
		}
	}
	return text
}

// scene is an act on one runtime.
type scene struct {
	*foreign
	t    *testing.T
	rt   runtimeUnder
	name string // of its container
	seen []string
}

// try runs the engine's client to its end.
func (s *scene) try(args ...string) result {
	s.t.Helper()
	cmd := s.command(s.rt, args...)
	cmd.Dir = s.dir // conmon makes a file in its working directory
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	defer stop()
	// What goes on in the background may keep these open, so they are files.
	var files [2]*os.File
	for i := range files {
		file, err := os.CreateTemp(s.dir, "out")
		if err != nil {
			s.t.Fatal(err)
		}
		defer os.Remove(file.Name())
		defer file.Close()
		files[i] = file
	}
	cmd.Stdout, cmd.Stderr = files[0], files[1]
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	var texts [2]string
	for i, file := range files {
		raw, err := os.ReadFile(file.Name())
		if err != nil {
			s.t.Fatal(err)
		}
		texts[i] = string(raw)
	}
	return result{texts[0], texts[1], cmd.ProcessState.ExitCode()}
}

// anyStatus is an exit status that is compared with runc's alone.
const anyStatus = -1

// does runs the client, expects an exit status and remembers what the user saw.
func (s *scene) does(code int, args ...string) result {
	s.t.Helper()
	got := s.try(args...)
	for attempt := 1; s.losesStatus(got.code, code, attempt, args); attempt++ {
		got = s.try(args...)
	}
	if got.code != code && code != anyStatus {
		s.t.Errorf(
			"%s: %s: status %d, want %d\n%s%s", s.rt.name, strings.Join(args, " "), got.code, code,
			got.out, got.err,
		)
	}
	outcome := fmt.Sprintf("%d\n%s%s", got.code, s.own(got.out), s.own(got.err))
	s.saw(strings.Join(args, " "), outcome)
	return got
}

// prints is does of a command that succeeds with an output.
func (s *scene) prints(want string, args ...string) {
	s.t.Helper()
	if got := s.does(0, args...); got.out != want {
		s.t.Errorf(
			"%s: %s: %q, want %q\n%s", s.rt.name, strings.Join(args, " "), got.out, want, got.err,
		)
	}
}

// saw remembers an outcome, without the names that differ from one container to the next.
func (s *scene) saw(what, outcome string) {
	text := strings.ReplaceAll(what+": "+outcome, s.name, "NAME")
	text = regexp.MustCompile(`\b([0-9a-f]{64}|[0-9a-f]{12})\b`).ReplaceAllString(text, "ID")
	s.seen = append(s.seen, text)
}

// own is what the engine itself says of an error: without the words of the runtime, and without
// lines that begin with a time.
func (s *scene) own(text string) string {
	text = s.wording.ReplaceAllString(text, "$1...$2")
	var b bytes.Buffer
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "time=") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// until waits for a condition of another process.
func (s *scene) until(what string, cond func() bool) {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); runtimeYield() {
		if time.Now().After(end) {
			s.t.Fatalf("%s: %s: not within 20 s", s.rt.name, what)
		}
	}
}

// untilPrints waits for the client to succeed with an output.
func (s *scene) untilPrints(want string, args ...string) {
	s.t.Helper()
	s.until(strings.Join(args, " ")+" to print "+want, func() bool {
		got := s.try(args...)
		return got.code == 0 && got.out == want
	})
	s.saw(strings.Join(args, " "), want)
}

// onTerminal runs the client on a terminal of 77 by 33 where a user types, expects an exit status
// and remembers the whole screen.
func (s *scene) onTerminal(code int, use func(p *terminal), args ...string) {
	s.t.Helper()
	for attempt := 1; ; attempt++ {
		cmd := s.command(s.rt, args...)
		cmd.Dir = s.dir
		p := onTerminal(s.t, cmd, 77, 33)
		use(p)
		got := p.ends()
		<-p.done
		if s.losesStatus(got, code, attempt, args) {
			continue
		}
		if got != code {
			s.t.Errorf(
				"%s: %s on a terminal: status %d, want %d", s.rt.name, strings.Join(args, " "), got,
				code,
			)
		}
		s.saw("terminal", fmt.Sprintf("%d\n%q", got, p.screen.String()))
		return
	}
}

// losesStatus says whether an exec is to be tried again because of an engine that forgets exit
// statuses.
func (s *scene) losesStatus(got, want, attempt int, args []string) bool {
	return s.forgetful && args[0] == "exec" && got == 0 && want != 0 && attempt < 5
}
