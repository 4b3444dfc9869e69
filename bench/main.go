// Command bench measures strake beside crun, runc and dockerd, all in one interleaved run on one
// machine, with the bare system calls as the floor. It prints medians and ratios; absolute times
// belong to the machine.
//
// Everything runs in a network namespace of its own, so that no daemon touches the host's rules,
// and in a mount namespace without the cgroup2 tree of a hybrid host, which old versions of crun
// refuse.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

type bench struct {
	bin, dir     string
	floor, hello string // programs
	debian       string // the tree of a Debian 12
	state        string // a tmpfs
	only         string
	rounds       int
	children     []*exec.Cmd
}

func main() {
	var b bench
	flag.StringVar(&b.bin, "bin", "bin", "`directory` of strake's binaries")
	flag.StringVar(&b.floor, "floor", "", "the floor `program`")
	flag.StringVar(&b.hello, "hello", "", "a Go `program` that says hello")
	flag.StringVar(&b.dir, "dir", "", "an empty work `directory`, to mount on")
	flag.StringVar(&b.debian, "debian", "", "the `directory` of a Debian 12 with systemd")
	flag.StringVar(&b.only, "only", "", "measure one `part`: runtimes, execs, limit, engines or systems")
	flag.IntVar(&b.rounds, "rounds", 40, "interleaved `rounds` of each comparison")
	inside := flag.Bool("inside", false, "used by the program itself")
	flag.Parse()
	if !*inside {
		os.Exit(reexec())
	}
	err := b.run()
	b.end()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// reexec runs the program again in a mount namespace of its own.
func reexec() int {
	cmd := exec.Command("/proc/self/exe", append([]string{"-inside"}, os.Args[1:]...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET}
	if err := cmd.Run(); err != nil {
		var ee *exec.ExitError
		if errors.As(err, &ee) {
			return ee.ExitCode()
		}
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

func (b *bench) run() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH)
	// All contenders keep everything in memory, so that no disk decides.
	if err := unix.Mount("tmpfs", b.dir, "tmpfs", 0, ""); err != nil {
		return err
	}
	b.state = filepath.Join(b.dir, "state")
	var err error
	if b.bin, err = filepath.Abs(b.bin); err != nil {
		return err
	}
	root := filepath.Join(b.dir, "rootfs")
	if err := makeRoot(root); err != nil {
		return err
	}
	fmt.Println("| what | median | ratio to strake |\n| --- | --- | --- |")
	for _, part := range []struct {
		name string
		run  func(string) error
	}{
		{"runtimes", b.runtimes}, {"execs", b.execs}, {"limit", b.limit}, {"engines", b.engines},
		{"systems", b.systems},
	} {
		if b.only != "" && b.only != part.name {
			continue
		}
		if err := part.run(root); err != nil {
			return err
		}
	}
	return nil
}

// makeRoot is a root filesystem of a static busybox.
func makeRoot(root string) error {
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	raw, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), raw, 0o755); err != nil {
		return err
	}
	for _, a := range []string{"true", "sh", "sleep"} {
		os.Symlink("busybox", filepath.Join(root, "bin", a))
	}
	return nil
}

// bundle writes a configuration with the standard mounts and namespaces.
func (b *bench) bundle(root, name, args, resources string) (string, error) {
	dir := filepath.Join(b.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	config := `{"ociVersion":"1.0.2","process":{"user":{"uid":0,"gid":0},"args":[` + args + `],"env":["PATH=/bin"],"cwd":"/",
"capabilities":{"bounding":["CAP_KILL"],"effective":["CAP_KILL"],"permitted":["CAP_KILL"]},"noNewPrivileges":true},
"root":{"path":"` + root + `"},"hostname":"bench","mounts":[
{"destination":"/proc","type":"proc","source":"proc"},
{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","strictatime","mode=755","size=65536k"]},
{"destination":"/dev/pts","type":"devpts","source":"devpts","options":["nosuid","noexec","newinstance","ptmxmode=0666","mode=0620"]},
{"destination":"/dev/shm","type":"tmpfs","source":"shm","options":["nosuid","noexec","nodev","mode=1777","size=65536k"]},
{"destination":"/dev/mqueue","type":"mqueue","source":"mqueue","options":["nosuid","noexec","nodev"]},
{"destination":"/sys","type":"sysfs","source":"sysfs","options":["nosuid","noexec","nodev","ro"]}],
"linux":{"cgroupsPath":"/strake-bench/` + name + `","resources":{` + resources + `},"namespaces":[{"type":"pid"},{"type":"network"},{"type":"ipc"},{"type":"uts"},{"type":"mount"},{"type":"cgroup"}],
"maskedPaths":["/proc/kcore","/proc/keys","/proc/timer_list","/sys/firmware"],"readonlyPaths":["/proc/bus","/proc/fs","/proc/irq","/proc/sys","/proc/sysrq-trigger"]}}`
	return dir, os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o644)
}

// timed is one command to measure; its function returns what one run took.
type timed struct {
	name string
	run  func() (time.Duration, error)
	got  []time.Duration
}

func command(argv ...string) func() (time.Duration, error) {
	return func() (time.Duration, error) {
		cmd := exec.Command(argv[0], argv[1:]...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		begin := time.Now()
		err := cmd.Run()
		took := time.Since(begin)
		if err != nil {
			return 0, fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out.String())
		}
		return took, nil
	}
}

// quiet is how long nothing runs before each command. The kernel takes down in the background what
// a command has left (network namespaces above all), which the next command would pay for; and
// who moves processes between groups soon after another has done so does not wait for the grace
// period of its own that it would wait for alone.
const quiet = 50 * time.Millisecond

// compare runs the commands round after round, each round in an order of its own, and prints
// medians and ratios to the first one.
func (b *bench) compare(title string, rounds int, list ...*timed) error {
	for round := range rounds + 2 {
		for _, at := range rand.Perm(len(list)) {
			t := list[at]
			time.Sleep(quiet)
			d, err := t.run()
			if err != nil {
				return err
			}
			if round >= 2 { // two to warm up
				t.got = append(t.got, d)
			}
		}
	}
	for i, t := range list {
		slices.Sort(t.got)
		median := t.got[len(t.got)/2]
		text := ""
		if i > 0 {
			text = fmt.Sprintf("%.2f", float64(median)/float64(list[0].got[len(list[0].got)/2]))
		}
		fmt.Printf(
			"| %s: %s | %.2f ms | %s |\n", title, t.name, float64(median.Microseconds())/1000, text,
		)
	}
	return nil
}

// runtimes measures a whole `run` of true.
func (b *bench) runtimes(root string) error {
	dir, err := b.bundle(root, "true", `"/bin/true"`, "")
	if err != nil {
		return err
	}
	state := b.state
	floor := func() (time.Duration, error) {
		out, err := exec.Command(b.floor, root, "3", "6e020000", "10", "9").Output()
		if err != nil {
			return 0, err
		}
		f := strings.Fields(string(out))
		ms, err := strconv.ParseFloat(f[slices.Index(f, "ms")-1], 64)
		return time.Duration(ms * float64(time.Millisecond)), err
	}
	list := []*timed{
		{
			name: "strake-runtime",
			run: command(
				filepath.Join(b.bin, "strake-runtime"), "--root", state, "run", "-b", dir,
				"bench-a",
			),
		},
		{name: "the system calls alone", run: floor},
		{
			name: "strake-runtime --version",
			run:  command(filepath.Join(b.bin, "strake-runtime"), "--version"),
		},
		{name: "strake --version", run: command(filepath.Join(b.bin, "strake"), "--version")},
		{name: "a Go program that says hello", run: command(b.hello)},
	}
	for _, peer := range []string{"crun", "runc"} {
		if path, err := exec.LookPath(peer); err == nil {
			list = append(
				list,
				&timed{
					name: peer,
					run:  command(path, "--root", state+"/"+peer, "run", "-b", dir, "bench-"+peer),
				},
			)
		}
	}
	return b.compare("run of true, with network namespace and cgroups", b.rounds, list...)
}

// execs measures a process added to a running container.
func (b *bench) execs(root string) error {
	dir, err := b.bundle(root, "sleep", `"/bin/sleep","1000"`, "")
	if err != nil {
		return err
	}
	state := b.state
	var list []*timed
	for _, rt := range []string{filepath.Join(b.bin, "strake-runtime"), "crun", "runc"} {
		path, err := exec.LookPath(rt)
		if err != nil {
			continue
		}
		name := filepath.Base(path)
		own := []string{path, "--root", state + "/" + name}
		start := exec.Command(own[0], append(own[1:], "run", "-d", "-b", dir, "bench-"+name)...)
		// Not into a pipe: the container keeps its end.
		if err := start.Run(); err != nil {
			return fmt.Errorf("%s run -d: %w", name, err)
		}
		defer exec.Command(own[0], append(own[1:], "delete", "-f", "bench-"+name)...).Run()
		list = append(
			list,
			&timed{name: name, run: command(append(own, "exec", "bench-"+name, "/bin/true")...)},
		)
		// One group for each: they share a name otherwise.
		if dir, err = b.bundle(root, "sleep-"+name, `"/bin/sleep","1000"`, ""); err != nil {
			return err
		}
	}
	return b.compare("exec of true in a running container", b.rounds, list...)
}

// limit finds the smallest memory limit under which a container starts.
func (b *bench) limit(root string) error {
	state := b.state
	for _, rt := range []string{filepath.Join(b.bin, "strake-runtime"), "crun", "runc"} {
		path, err := exec.LookPath(rt)
		if err != nil {
			continue
		}
		smallest := "over 16 MiB"
		for kib := 256; kib <= 16<<10; kib *= 2 {
			dir, err := b.bundle(
				root, "limit", `"/bin/true"`, fmt.Sprintf(`"memory":{"limit":%d}`, kib<<10),
			)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			err = exec.CommandContext(
				ctx, path, "--root", state, "run", "-b", dir, "bench-limit",
			).Run()
			cancel()
			if err == nil {
				smallest = fmt.Sprintf("%d KiB", kib)
				break
			}
			exec.Command(path, "--root", state, "delete", "-f", "bench-limit").Run()
		}
		fmt.Printf(
			"| smallest memory limit of a container that runs true: %s | %s | |\n",
			filepath.Base(path), smallest,
		)
	}
	return nil
}

// start runs a daemon and waits for its socket.
func (b *bench) start(socket string, argv ...string) error {
	log, err := os.Create(filepath.Join(b.dir, filepath.Base(argv[0])+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	b.children = append(b.children, cmd)
	for range 300 {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return nil
		}
		// why: a foreign daemon has no other way to say that it is ready
		time.Sleep(100 * time.Millisecond)
	}
	raw, _ := os.ReadFile(log.Name())
	return fmt.Errorf("%s does not listen:\n%s", argv[0], raw)
}

func (b *bench) end() {
	for _, c := range b.children {
		c.Process.Signal(syscall.SIGTERM)
		c.Wait()
	}
	exec.Command(filepath.Join(b.bin, "straked"), append(b.roots(), "--teardown")...).Run()
	for _, dir := range []string{
		"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd",
		"unified",
	} {
		inner, _ := filepath.Glob("/sys/fs/cgroup/" + dir + "/strake-bench/*")
		for _, d := range append(inner, "/sys/fs/cgroup/"+dir+"/strake-bench") {
			os.Remove(d)
		}
	}
}

func (b *bench) roots() []string {
	return []string{
		"--data-root", b.dir + "/data", "--exec-root", b.dir + "/run", "-H",
		"unix://" + b.dir + "/strake.sock",
	}
}

// engines measures whole commands, rates and memory of the engines.
func (b *bench) engines(root string) error {
	if err := b.start(
		b.dir+"/strake.sock", append([]string{filepath.Join(b.bin, "straked")}, b.roots()...)...,
	); err != nil {
		return err
	}
	strake := "unix://" + b.dir + "/strake.sock"
	hosts := []string{strake}
	if path, err := exec.LookPath("dockerd"); err == nil {
		sock := b.dir + "/docker.sock"
		err := b.start(
			sock, path, "--data-root", b.dir+"/docker", "--exec-root", b.dir+"/docker-run", "-H",
			"unix://"+sock, "--pidfile", b.dir+"/docker.pid",
		)
		if err != nil {
			return err
		}
		hosts = append(hosts, "unix://"+sock)
	}
	var list []*timed
	for _, h := range hosts {
		tar := exec.Command(
			"sh", "-c",
			"tar -C "+root+" -c . | "+filepath.Join(b.bin, "strake")+" -H "+h+" import - bench",
		)
		if out, err := tar.CombinedOutput(); err != nil {
			return fmt.Errorf("import: %w: %s", err, out)
		}
		client := []string{filepath.Join(b.bin, "strake"), "-H", h, "run", "--rm", "bench", "true"}
		name := "strake"
		if h != strake {
			client = []string{"docker", "-H", h, "run", "--rm", "bench", "true"}
			name = "docker"
		}
		list = append(list, &timed{name: name, run: command(client...)})
	}
	// First, while the engine has not worked yet.
	if err := b.memory(strings.TrimPrefix(strake, "unix://")); err != nil {
		return err
	}
	if err := b.compare(
		"run --rm of true through the engine, with network", b.rounds/2, list...,
	); err != nil {
		return err
	}
	for _, h := range hosts {
		rate, err := cycleRate(strings.TrimPrefix(h, "unix://"))
		if err != nil {
			return err
		}
		fmt.Printf(
			"| create, start, wait and remove through the API, with network, 4 clients: %s | %.0f a second | |\n",
			filepath.Base(strings.TrimSuffix(h, ".sock")), rate,
		)
	}
	return nil
}

// memory measures what the engine and the keeper need for each idle container.
func (b *bench) memory(socket string) error {
	const n = 100
	pss := func() (total int) {
		for _, pid := range ours(b.dir) {
			raw, err := os.ReadFile("/proc/" + pid + "/smaps_rollup")
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(raw)) {
				if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
					kib, _ := strconv.Atoi(f[1])
					total += kib
				}
			}
		}
		return total
	}
	c := client(socket)
	before := pss()
	var ids []string
	for range n {
		id, err := c.create(`{"Image":"bench","Cmd":["sleep","1000"]}`)
		if err == nil {
			err = c.post("/containers/" + id + "/start")
		}
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	after := pss()
	fmt.Printf(
		"| memory of engine and keeper for each of %d idle containers | %d KiB | |\n", n,
		(after-before)/n,
	)
	fmt.Printf("| memory of engine and keeper with %d idle containers | %d MiB | |\n", n, after>>10)
	for _, id := range ids {
		if err := c.remove(id); err != nil {
			return err
		}
	}
	return nil
}

// ours lists the processes that have the work directory in their command line.
func ours(dir string) (pids []string) {
	list, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range list {
		raw, err := os.ReadFile(f)
		if err == nil && bytes.Contains(raw, []byte(dir)) &&
			bytes.Contains(raw, []byte("strake")) && !bytes.Contains(raw, []byte("-inside")) {
			pids = append(pids, filepath.Base(filepath.Dir(f)))
		}
	}
	return pids
}

// cycleRate runs whole lives of containers from four clients for five seconds.
func cycleRate(socket string) (float64, error) {
	const clients, period = 4, 5 * time.Second
	var wg sync.WaitGroup
	counts := make([]int, clients)
	errs := make([]error, clients)
	begin := time.Now()
	for i := range clients {
		wg.Go(func() {
			c := client(socket)
			for time.Since(begin) < period {
				if errs[i] = c.cycle(); errs[i] != nil {
					return
				}
				counts[i]++
			}
		})
	}
	wg.Wait()
	total := 0
	for _, n := range counts {
		total += n
	}
	return float64(total) / time.Since(begin).Seconds(), errors.Join(errs...)
}

// api is a client of one engine's socket.
type api struct{ http.Client }

func client(socket string) *api {
	return &api{http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}}
}
