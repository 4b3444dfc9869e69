// Package test drives the built binaries as their users do: with the docker client, over the
// socket, with kill -9. It needs root, the binaries in $STRAKE_BIN, /bin/busybox, and a docker
// client.
package test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"strake/internal/testneed"
)

// rig is an engine with roots of its own.
type rig struct {
	t      testing.TB
	dir    string
	bin    string
	engine *exec.Cmd
	all    *confinement // of the engine, its keepers and their guards
	before []string
}

// start makes an engine with an image called box. Whatever is left on the host at the end fails the
// test.
func start(t testing.TB) *rig {
	t.Helper()
	return startOn(t, func(string) {})
}

// startOn is start with a directory that is prepared before the engine comes up in it.
func startOn(t testing.TB, prepare func(dir string)) *rig {
	t.Helper()
	bin := os.Getenv("STRAKE_BIN")
	if bin == "" {
		t.Skip("needs STRAKE_BIN, the directory of the built binaries (make test sets it)")
	}
	testneed.Root(t, "makes containers")
	testneed.File(t, "/bin/busybox", "busybox-static")
	testneed.Program(t, "docker", "docker.io")
	// Socket paths are short by nature (unix(7)), names of test directories are not.
	dir, err := os.MkdirTemp("", "strake-it-")
	if err != nil {
		t.Fatal(err)
	}
	prepare(dir)
	r := &rig{t: t, dir: dir, bin: bin, before: host(t, dir)}
	r.all = newConfinement(t, dir)
	t.Cleanup(r.end)
	r.launch()
	r.importImage()
	return r
}

func (r *rig) socket() string { return filepath.Join(r.dir, "s.sock") }

// launch starts the engine and waits until it listens.
func (r *rig) launch() {
	r.t.Helper()
	log, err := os.OpenFile(filepath.Join(r.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	defer log.Close()
	rd, wr, err := os.Pipe()
	if err != nil {
		r.t.Fatal(err)
	}
	defer rd.Close()
	straked := filepath.Join(r.bin, "straked")
	cmd := r.all.command(append([]string{straked}, r.roots("--ready-fd", "3")...)...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{wr}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	wr.Close()
	rd.SetReadDeadline(time.Now().Add(30 * time.Second))
	if n, err := rd.Read(make([]byte, 1)); n != 1 {
		r.t.Fatalf("the engine does not get ready: %v\n%s", err, r.log())
	}
	r.engine = cmd
}

func (r *rig) roots(more ...string) []string {
	return append(
		[]string{
			"--data-root", filepath.Join(r.dir, "data"), "--exec-root", filepath.Join(r.dir, "run"),
			"-H", "unix://" + r.socket(),
		},
		more...,
	)
}

func (r *rig) log() string {
	raw, _ := os.ReadFile(filepath.Join(r.dir, "log"))
	return string(raw)
}

// kill ends the engine without warning.
func (r *rig) kill() {
	r.t.Helper()
	r.engine.Process.Kill()
	r.engine.Wait()
}

// end takes everything down and compares the host with what it was.
func (r *rig) end() {
	if r.engine != nil {
		r.engine.Process.Signal(syscall.SIGTERM)
		done := make(chan struct{})
		go func() { r.engine.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			r.engine.Process.Kill()
			<-done
		}
	}
	straked := filepath.Join(r.bin, "straked")
	down := r.all.command(append([]string{straked}, r.roots("--teardown")...)...)
	if out, err := down.CombinedOutput(); err != nil {
		r.t.Errorf("teardown: %v\n%s", err, out)
	}
	if r.t.Failed() {
		r.t.Logf("log of the engine:\n%s", tail(r.log(), 4000))
	}
	deadline := time.Now().Add(10 * time.Second)
	var left []string
	for {
		left = slices.DeleteFunc(host(r.t, r.dir), func(s string) bool {
			return slices.Contains(r.before, s)
		})
		if len(left) == 0 || time.Now().After(deadline) {
			break
		}
		runtimeYield()
	}
	r.all.expectEmpty()
	if len(left) > 0 {
		r.t.Errorf("left on the host:\n%s", strings.Join(left, "\n"))
	}
	os.RemoveAll(r.dir)
}

// runtimeYield lets the kernel finish what it does in the background (network namespaces end in a
// worker).
func runtimeYield() { exec.Command("/bin/busybox", "usleep", "50000").Run() }

func tail(s string, n int) string {
	if len(s) > n {
		return s[len(s)-n:]
	}
	return s
}

// host lists what a container engine can leave on a machine.
func host(t testing.TB, dir string) (list []string) {
	t.Helper()
	// The names of what the engine in dir makes in the kernel, beside those of engines that others
	// run on this machine.
	sum := sha256.Sum256([]byte(filepath.Join(dir, "run")))
	tag := "s" + hex.EncodeToString(sum[:])[:5]
	ours := func(name string) bool { return name == "strake" || strings.Contains(name, tag) }
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) > 4 &&
			(strings.Contains(line, dir) || !strings.Contains(line, "/strake-")) {
			list = append(list, "mount "+f[4])
		}
	}
	filepath.WalkDir("/sys/fs/cgroup", func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && ours(d.Name()) {
			list = append(list, "cgroup "+p)
		}
		return nil
	})
	if ifs, err := net.Interfaces(); err == nil {
		for _, i := range ifs {
			if ours(i.Name) {
				list = append(list, "interface "+i.Name)
			}
		}
	}
	if out, err := exec.Command("nft", "list", "tables").Output(); err == nil {
		for line := range strings.Lines(string(out)) {
			if f := strings.Fields(line); len(f) == 3 && ours(f[2]) {
				list = append(list, "nftables "+f[2])
			}
		}
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		raw, err := os.ReadFile(p)
		// Engines that other people run on this machine are none of ours.
		if err == nil && bytes.Contains(raw, []byte(dir)) &&
			(bytes.Contains(raw, []byte("straked")) ||
				bytes.Contains(raw, []byte("strake-runtime"))) {
			list = append(list, "process "+strings.ReplaceAll(string(raw), "\x00", " "))
		}
	}
	return list
}

// importImage makes box from busybox.
func (r *rig) importImage() {
	r.t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		r.t.Fatal(err)
	}
	add := func(h tar.Header, body []byte) {
		h.Size = int64(len(body))
		if err := w.WriteHeader(&h); err != nil {
			r.t.Fatal(err)
		}
		w.Write(body)
	}
	for _, d := range []string{"bin", "proc", "sys", "dev", "tmp", "etc", "root"} {
		add(tar.Header{Name: d + "/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	add(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, box)
	add(
		tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644},
		[]byte("root:x:0:0::/root:/bin/sh\n1000:x:0:0::/:/bin/sh\n"),
	)
	for _, a := range strings.Fields(
		"sh cat ls true false id hostname sleep echo stat seq wc head grep " +
			"nc ip mount touch env wget nslookup ps kill mkdir rm test stty tty od mknod",
	) {
		add(tar.Header{Name: "bin/" + a, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
	}
	w.Close()
	cmd := r.command("import", "--change", `CMD ["sh"]`, "-", "box")
	cmd.Stdin = &b
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("import: %v\n%s\n%s", err, out, r.log())
	}
}

func (r *rig) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	r.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+r.socket(), "DOCKER_CONFIG="+r.dir)
	return cmd
}

// result is what a command printed and how it ended.
type result struct {
	out, err string
	code     int
}

// docker runs the client.
func (r *rig) docker(args ...string) result {
	r.t.Helper()
	cmd := r.command(args...)
	var out, errw bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errw
	err := cmd.Run()
	if err != nil && cmd.ProcessState == nil {
		r.t.Fatal(err)
	}
	return result{out.String(), errw.String(), cmd.ProcessState.ExitCode()}
}

// ok runs the client and expects success.
func (r *rig) ok(args ...string) string {
	r.t.Helper()
	got := r.docker(args...)
	if got.code != 0 {
		r.t.Fatalf(
			"docker %s: status %d\n%s%s", strings.Join(args, " "), got.code, got.out, got.err,
		)
	}
	return got.out
}

// keeper is the keeper's pid.
func (r *rig) keeper() int {
	r.t.Helper()
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		raw, err := os.ReadFile(p)
		if err == nil && bytes.Contains(raw, []byte("keeper")) &&
			bytes.Contains(raw, []byte(r.dir)) {
			if m := regexp.MustCompile(`/proc/(\d+)/`).FindStringSubmatch(p); m != nil {
				pid, _ := strconv.Atoi(m[1])
				return pid
			}
		}
	}
	r.t.Fatal("no keeper runs")
	return 0
}

// until waits for a condition of another process.
func (r *rig) until(what string, limit time.Duration, cond func() bool) {
	r.t.Helper()
	for end := time.Now().Add(limit); !cond(); runtimeYield() {
		if time.Now().After(end) {
			r.t.Fatalf("%s: not within %s", what, limit)
		}
	}
}

func lines(prefix string, n int) string {
	var b strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, "%s%d\n", prefix, i)
	}
	return b.String()
}
