package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strake/container/cgroup"
	"strake/internal/testneed"
	"strake/network/link"
)

// faultDir names, to a process of the test binary, the directory by which it is told where to die:
// it then is straked.
const faultDir = "STRAKE_TEST_FAULTS"

func TestMain(m *testing.M) {
	if dir := os.Getenv(faultDir); dir != "" {
		os.Exit(faultyEngine(dir))
	}
	os.Exit(m.Run())
}

// faultyEngine is straked with a hook at its fault points.
func faultyEngine(dir string) int {
	s, err := parse(os.Args[1:], os.Stdout)
	if err == nil {
		s.fault = faultHook(dir)
		s.owners, s.services = []string{podOwner}, podServices
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		log := slog.New(slog.NewTextHandler(os.Stderr, nil))
		if s.Teardown {
			err = teardown(ctx, s, log)
		} else {
			err = serve(ctx, s, log)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// order is what the engine has been told to do at its fault points, in the file "order" while an
// operation under test goes on.
type order struct {
	// Number tells orders apart.
	Number int
	// Step is the one at which to act, the Nth time; empty for none. Points reached are always
	// written down.
	Step string
	N    int
	// Fail lets the step return an error instead of ending the process.
	Fail bool
}

func faultHook(dir string) func(step string) error {
	var mu sync.Mutex
	seen, number := map[string]int{}, 0
	return func(step string) error {
		mu.Lock()
		defer mu.Unlock()
		raw, err := os.ReadFile(filepath.Join(dir, "order"))
		if err != nil {
			return nil
		}
		var o order
		if err := json.Unmarshal(raw, &o); err != nil {
			return nil // being written
		}
		if o.Number != number {
			seen, number = map[string]int{}, o.Number
		}
		seen[step]++
		f, err := os.OpenFile(
			filepath.Join(dir, "reached"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600,
		)
		if err == nil {
			fmt.Fprintln(f, step)
			f.Close()
		}
		switch {
		case step != o.Step || seen[step] != o.N:
			return nil
		case o.Fail:
			return errors.New("injected fault")
		}
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

// faultRig is an instance of straked in a network namespace of its own.
type faultRig struct {
	t      *testing.T
	dir    string
	tag    string
	ns     *os.File
	groups []string // where control groups are mounted
	engine *exec.Cmd
	ended  chan struct{} // closed when engine has ended
	number int
	client *http.Client
	pods   *http.Client // of the front end beside Docker's
}

func newFaultRig(t *testing.T) *faultRig {
	t.Helper()
	testneed.Root(t, "makes containers")
	// The image is made from busybox, go builds the keeper, and nft lists the packet filter.
	testneed.File(t, "/bin/busybox", "busybox-static")
	testneed.Program(t, "nft", "nftables")
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs go in PATH")
	}
	// Socket paths are short by nature (unix(7)), names of test directories are not.
	dir, err := os.MkdirTemp("", "strake-ft-")
	if err != nil {
		t.Fatal(err)
	}
	r := &faultRig{t: t, dir: dir, tag: tag(filepath.Join(dir, "run"))}
	t.Cleanup(r.end)
	for _, d := range []string{"bin", "bound"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(exe); err != nil {
		t.Fatal(err)
	} else if err := os.WriteFile(r.path("bin/straked"), raw, 0o755); err != nil {
		t.Fatal(err)
	}
	buildRuntime(t, r.path("bin/strake-runtime"), "test")
	host, err := cgroup.Detect("")
	if err != nil {
		t.Skipf("needs control groups: %v", err)
	}
	for _, h := range host.Hierarchies() {
		r.groups = append(r.groups, h.Mount)
		// The user's group exists before: the engine neither makes nor removes it.
		if err := os.Mkdir(h.Mount+r.foreignParent(), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.ns, err = link.Create(func(*os.File) error {
		rt, err := link.Open()
		if err != nil {
			return err
		}
		defer rt.Close()
		return rt.Do(link.SetUp(1))
	})
	if err != nil {
		t.Skipf("needs network namespaces: %v", err)
	}
	r.client, r.pods = clientOf(r.path("s.sock")), clientOf(r.path("p.sock"))
	r.makePodRoot()
	return r
}

// clientOf is a client that speaks to a unix socket, on a new connection for each request.
func clientOf(socket string) *http.Client {
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
}

// makePodRoot makes the root file system of the pods' tasks.
func (r *faultRig) makePodRoot() {
	r.t.Helper()
	for _, d := range []string{"bin", "proc", "dev/shm", "sys"} {
		if err := os.MkdirAll(filepath.Join(r.path("podroot"), d), 0o755); err != nil {
			r.t.Fatal(err)
		}
	}
	raw, err := os.ReadFile("/bin/busybox")
	if err == nil {
		err = os.WriteFile(r.path("podroot/bin/busybox"), raw, 0o755)
	}
	for _, name := range []string{"sh", "sleep"} {
		err = errors.Join(err, os.Symlink("busybox", r.path("podroot/bin/"+name)))
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// buildRuntime builds the keeper's program with a version.
func buildRuntime(t *testing.T, out, version string) {
	t.Helper()
	cmd := exec.Command(
		"go", "build", "-ldflags", "-X main.version="+version, "-o", out,
		"strake/cmd/strake-runtime",
	)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build strake-runtime: %v\n%s", err, msg)
	}
}

func (r *faultRig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *faultRig) args(more ...string) []string {
	return append(
		[]string{
			"--data-root", r.path("data"), "--exec-root", r.path("run"), "-H",
			"unix://" + r.path("s.sock"), "--config-file", r.path("none.json"),
		},
		more...,
	)
}

// launch starts the engine and says whether it got ready.
func (r *faultRig) launch() bool {
	r.t.Helper()
	if err := os.WriteFile(r.path("none.json"), []byte("{}"), 0o600); err != nil {
		r.t.Fatal(err)
	}
	log, err := os.OpenFile(r.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	defer log.Close()
	rd, wr, err := os.Pipe()
	if err != nil {
		r.t.Fatal(err)
	}
	defer rd.Close()
	cmd := exec.Command(r.path("bin/straked"), r.args("--ready-fd", "3")...)
	cmd.Env = append(os.Environ(), faultDir+"="+r.dir)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{wr}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = link.Enter(r.ns, cmd.Start)
	wr.Close()
	if err != nil {
		r.t.Fatal(err)
	}
	r.engine, r.ended = cmd, make(chan struct{})
	go func() { cmd.Wait(); close(r.ended) }()
	rd.SetReadDeadline(time.Now().Add(30 * time.Second))
	n, _ := rd.Read(make([]byte, 1))
	return n == 1
}

func (r *faultRig) mustLaunch() {
	r.t.Helper()
	if !r.launch() {
		r.t.Fatalf("the engine does not get ready:\n%s", r.log())
	}
}

// kill ends the engine without warning, if it has not ended.
func (r *faultRig) kill() {
	r.engine.Process.Kill()
	<-r.ended
}

func (r *faultRig) dead() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

func (r *faultRig) log() string {
	raw, _ := os.ReadFile(r.path("log"))
	return string(raw[max(0, len(raw)-4000):])
}

// end takes everything down.
func (r *faultRig) end() {
	if r.engine != nil {
		r.kill()
		r.forget()
		cmd := exec.Command(r.path("bin/straked"), r.args("--teardown")...)
		cmd.Env = append(os.Environ(), faultDir+"="+r.dir)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := link.Enter(r.ns, cmd.Run); err != nil {
			r.t.Errorf("teardown: %v\n%s", err, out.String())
		}
	}
	for _, mount := range r.groups {
		os.Remove(mount + r.foreignParent())
	}
	if r.t.Failed() {
		r.t.Logf("log of the engine:\n%s", r.log())
	}
	if r.ns != nil {
		r.ns.Close()
	}
	os.RemoveAll(r.dir)
}

// order tells the engine what to do; forget that nothing is to be done any more.
func (r *faultRig) order(o order) {
	r.t.Helper()
	r.number++
	o.Number = r.number
	raw, err := json.Marshal(o)
	if err == nil {
		err = errors.Join(
			os.WriteFile(r.path("order.new"), raw, 0o600),
			os.WriteFile(r.path("reached"), nil, 0o600),
			os.Rename(r.path("order.new"), r.path("order")),
		)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *faultRig) forget() { os.Remove(r.path("order")) }

// reached lists the points since the last order.
func (r *faultRig) reached() []string {
	raw, _ := os.ReadFile(r.path("reached"))
	return strings.Split(strings.TrimSpace(string(raw)), "\n")
}

// call sends a request. The error is that of the connection, or a status of 300 and more.
func (r *faultRig) call(method, path string, body any) ([]byte, error) {
	return r.send(r.client, method, path, body)
}

func (r *faultRig) send(
	client *http.Client, method, path string, body any,
) ([]byte, error) {
	var rd io.Reader
	typ := "application/json"
	switch b := body.(type) {
	case nil:
	case []byte:
		rd, typ = bytes.NewReader(b), "application/x-tar"
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			return nil, err
		}
		rd = bytes.NewReader(raw)
	}
	req, err := http.NewRequest(method, "http://strake"+path, rd)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", typ)
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return raw, err
	}
	if resp.StatusCode >= 300 && resp.StatusCode != http.StatusNotModified {
		text := fmt.Sprintf("%s %s: %s %s", method, path, resp.Status, raw)
		return raw, &refusal{resp.StatusCode, text}
	}
	if bytes.Contains(raw, []byte(`"errorDetail"`)) {
		return raw, fmt.Errorf("%s %s: %s", method, path, raw)
	}
	return raw, nil
}

// refusal is an answer of the engine that is no success.
type refusal struct {
	status int
	text   string
}

func (e *refusal) Error() string { return e.text }

// answered says whether the engine has answered with one of some statuses.
func answered(err error, statuses ...int) bool {
	var r *refusal
	return errors.As(err, &r) && slices.Contains(statuses, r.status)
}

func (r *faultRig) must(method, path string, body any) []byte {
	r.t.Helper()
	raw, err := r.call(method, path, body)
	if err != nil {
		r.t.Fatalf("%v\n%s", err, r.log())
	}
	return raw
}

// inspected is the part of a container's description that the tests look at.
type inspected struct {
	ID    string `json:"Id"`
	State struct {
		Status   string
		Pid      int
		ExitCode int
	}
	NetworkSettings struct {
		Networks map[string]struct{ IPAddress string }
		Ports    map[string][]struct{ HostIP, HostPort string }
	}
}

// inspect returns nil for a container that does not exist.
func (r *faultRig) inspect(name string) *inspected {
	r.t.Helper()
	raw, err := r.call("GET", "/containers/"+name+"/json", nil)
	if err != nil {
		if !strings.Contains(err.Error(), "No such container") {
			r.t.Fatal(err)
		}
		return nil
	}
	var in inspected
	if err := json.Unmarshal(raw, &in); err != nil {
		r.t.Fatal(err)
	}
	return &in
}

// host lists everything that an engine can leave behind. What differs from time to time without
// meaning is left out of the names.
func (r *faultRig) host() []string {
	r.t.Helper()
	var list []string
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) > 4 && strings.Contains(line, r.dir) {
			list = append(list, "mount "+f[4])
		}
	}
	for _, mount := range r.groups {
		list = append(list, directories(mount+"/"+r.tag)...)
		// Those below a parent that a user chose.
		list = append(list, directories(mount+r.foreignParent())...)
	}
	for _, root := range []string{"data", "run", "bound"} {
		filepath.WalkDir(r.path(root), func(p string, d fs.DirEntry, err error) error {
			if err == nil {
				list = append(list, "file "+p)
			}
			return nil
		})
	}
	list = append(list, r.network()...)
	return append(list, r.processes()...)
}

var (
	drawn  = regexp.MustCompile(`^(` + `s[0-9a-f]{5}` + `[-vrsuw])[0-9a-f]{8}$`)
	handle = regexp.MustCompile(`[\s,]+`)
)

// network lists interfaces by class, the words of the packet filter, and ports that are taken.
func (r *faultRig) network() (list []string) {
	r.t.Helper()
	err := link.Enter(r.ns, func() error {
		rt, err := link.Open()
		if err != nil {
			return err
		}
		defer rt.Close()
		links, err := rt.Links()
		if err != nil {
			return err
		}
		for _, l := range links {
			list = append(list, "interface "+drawn.ReplaceAllString(l.Name, "$1"))
		}
		out, err := exec.Command("nft", "-s", "-n", "list", "ruleset").Output()
		if err != nil {
			return fmt.Errorf("nft: %w", err)
		}
		for _, w := range handle.Split(string(out), -1) {
			list = append(list, "packet filter "+w)
		}
		for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
			raw, err := os.ReadFile("/proc/thread-self/net/" + table)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(raw)) {
				// A listening TCP socket, or an unconnected UDP one (proc_pid_net(5)).
				if f := strings.Fields(line); len(f) > 3 && (f[3] == "0A" || f[3] == "07") {
					list = append(list, "port "+table+" "+f[1])
				}
			}
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return list
}

// foreignParent is a group that is not the engine's, for containers with a cgroup-parent.
func (r *faultRig) foreignParent() string { return "/" + r.tag + "-foreign" }

// directories lists a tree of control groups.
func directories(root string) (list []string) {
	filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			list = append(list, "control group "+p)
		}
		return nil
	})
	return list
}

// processes lists the keeper and what descends from it, dead ones that nobody reaped included.
func (r *faultRig) processes() (list []string) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	parent, name := map[int]int{}, map[int]string{}
	keeper := 0
	for _, p := range stats {
		raw, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(p, "/")[2])
		rest := string(raw[bytes.LastIndexByte(raw, ')')+1:])
		f := strings.Fields(rest)
		parent[pid], _ = strconv.Atoi(f[1])
		name[pid] = string(
			raw[bytes.IndexByte(raw, '('):bytes.LastIndexByte(raw, ')')+1],
		) + " " + f[0]
		cmdline, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if bytes.Contains(cmdline, []byte(r.dir)) &&
			bytes.Contains(cmdline, []byte("\x00keeper\x00")) {
			keeper = pid
			list = append(list, "process keeper")
		}
	}
	for pid := range parent {
		for up, depth := parent[pid], 0; up > 1 && depth < 20; up, depth = parent[up], depth+1 {
			if up == keeper {
				state := name[pid]
				// Asleep, running or waiting for the disk: the same.
				for _, s := range []string{" R", " D", " S"} {
					state = strings.TrimSuffix(state, s)
				}
				list = append(list, "process "+state)
			}
		}
	}
	return list
}

// differences counts what is in one list only.
func differences(before, now []string) (out []string) {
	count := map[string]int{}
	for _, x := range now {
		count[x]++
	}
	for _, x := range before {
		count[x]--
	}
	for x, n := range count {
		switch {
		case n > 0:
			out = append(out, fmt.Sprintf("left over (%d): %s", n, x))
		case n < 0:
			out = append(out, fmt.Sprintf("missing (%d): %s", -n, x))
		}
	}
	slices.Sort(out)
	return out
}

// settles waits until the host is as it was: network namespaces and prepared ones come and go in
// the background.
func (r *faultRig) settles(before []string) []string {
	r.t.Helper()
	var diff []string
	for end := time.Now().Add(10 * time.Second); ; {
		if diff = differences(before, r.host()); len(diff) == 0 || time.Now().After(end) {
			return diff
		}
		unix.Select(0, nil, nil, nil, &unix.Timeval{Usec: 20000})
	}
}

// calm waits until nothing changes any more, which is when the prepared namespaces are all there.
func (r *faultRig) calm() []string {
	r.t.Helper()
	list, since := r.host(), time.Now()
	for end := time.Now().Add(15 * time.Second); time.Since(since) < 500*time.Millisecond &&
		time.Now().Before(end); {
		unix.Select(0, nil, nil, nil, &unix.Timeval{Usec: 20000})
		if now := r.host(); len(differences(list, now)) > 0 {
			list, since = now, time.Now()
		}
	}
	return list
}

// until polls what another process does.
func (r *faultRig) until(what string, cond func() bool) {
	r.t.Helper()
	for end := time.Now().Add(15 * time.Second); !cond(); {
		if time.Now().After(end) {
			r.t.Fatalf("%s: not within 15 s\n%s", what, r.log())
		}
		unix.Select(0, nil, nil, nil, &unix.Timeval{Usec: 10000})
	}
}

// tree is a root file system with busybox and a directory for volumes to be filled from.
func tree(t *testing.T, extra string) []byte {
	t.Helper()
	bin, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(h tar.Header, data []byte) {
		h.Size = int64(len(data))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		w.Write(data)
	}
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc", "data"} {
		add(tar.Header{Name: d + "/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	add(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, bin)
	for _, a := range []string{
		"sh", "sleep", "nc", "echo", "true", "mkdir", "mv", "cat", "ls", "touch", "rm",
	} {
		add(tar.Header{Name: "bin/" + a, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
	}
	add(tar.Header{Name: "data/seed", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("seed"))
	add(tar.Header{Name: "extra", Typeflag: tar.TypeReg, Mode: 0o644}, []byte(extra))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}
