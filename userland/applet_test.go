package userland

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// result is what a call printed and returned.
type result struct {
	out, err string
	status   int
}

// run makes a call in a directory.
func run(t *testing.T, dir, stdin, name string, args ...string) result {
	t.Helper()
	return runContext(t.Context(), t, dir, stdin, name, args...)
}

func runContext(ctx context.Context, t *testing.T, dir, stdin, name string, args ...string) result {
	t.Helper()
	a, ok := Lookup(name)
	if !ok {
		t.Fatalf("no applet %q", name)
	}
	var stdout, stderr bytes.Buffer
	status := a.Run(
		ctx,
		&Call{
			Name: name, Args: args, Stdin: strings.NewReader(stdin), Stdout: &stdout,
			Stderr: &stderr, Dir: dir, Env: []string{"PATH=/bin", "TZ=UTC"},
		},
	)
	return result{stdout.String(), stderr.String(), status}
}

func TestEveryAppletRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	// The words of these are operands.
	free := []string{"[", "test", "echo", "expr", "printf", "true", "false", "yes", "dd", "seq"}
	for _, a := range Applets() {
		if slices.Contains(free, a.Name) {
			continue
		}
		t.Run(a.Name, func(t *testing.T) {
			t.Parallel()
			r := run(t, t.TempDir(), "", a.Name, "--no-such-option")
			if r.status == exitOK || !strings.HasPrefix(r.err, a.Name+": ") ||
				!strings.Contains(r.err, "no-such-option") || r.out != "" ||
				strings.Count(r.err, "\n") != 1 {
				t.Errorf("got %+v; want one message that names the option, and a status", r)
			}
		})
	}
}

func TestEveryAppletHelps(t *testing.T) {
	t.Parallel()
	free := []string{"[", "test", "echo", "expr", "printf", "true", "false", "yes", "dd", "seq"}
	for _, a := range Applets() {
		if slices.Contains(free, a.Name) {
			continue
		}
		if r := run(t, t.TempDir(), "", a.Name, "--help"); r.status != exitOK ||
			!strings.HasPrefix(r.out, "usage: "+a.Name) || r.err != "" {
			t.Errorf("%s --help: %+v", a.Name, r)
		}
	}
}

func TestAppletsAreSorted(t *testing.T) {
	t.Parallel()
	if !slices.IsSortedFunc(
		Applets(), func(a, b Applet) int { return strings.Compare(a.Name, b.Name) },
	) {
		t.Error("the list is not sorted by name")
	}
	if _, ok := Lookup("nosuch"); ok {
		t.Error("Lookup finds what is not there")
	}
}

// TestWorld covers what tells of the machine, which no file of expected output can hold.
func TestWorld(t *testing.T) {
	t.Parallel()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	self := strconv.Itoa(os.Getpid())
	for _, tc := range []struct {
		name string
		args []string
		want string // regular expression
	}{
		{"hostname", nil, "^" + regexp.QuoteMeta(host) + "\n$"},
		{"uname", []string{"-a"}, `^Linux ` + regexp.QuoteMeta(host)},
		{"id", nil, fmt.Sprintf(`^uid=%d.* gid=%d.*\n$`, os.Geteuid(), os.Getegid())},
		{"ps", nil, `(?m)^ *PID .*COMMAND?.*\n(.*\n)*.*\b` + self + `\b`},
		{"ps", []string{"aux"}, `^USER +PID`},
		{"ps", []string{"-ef"}, `^USER +PID +PPID`},
		{"ps", []string{"-o", "pid,comm", "-p", self}, `^ *PID +COMMAND\n *` + self + ` `},
		{"free", nil, `^ +total +used +free.*\nMem: +\d+ +\d+`},
		{"free", []string{"-h"}, `Mem: +[\d.]+[KMGT]i?`},
		{"df", []string{"-h", "/"}, `^Filesystem +Size +Used.*\n.* /\n$`},
		{"df", nil, `^Filesystem +1K-blocks`},
		{
			"top", nil,
			`^Memory: .* available\nCPU: \d+% busy, load average \d.*processes\n +PID +PPID USER ` +
				`+STAT +RSS %CPU COMMAND\n(.*\n)*`,
		},
		{"top", []string{"-b", "-n", "2", "-d", "0.01"}, `(?s)Memory: .*Memory: `},
		{"uptime", nil, `up .*load average: \d`},
		{"nproc", nil, `^[1-9]\d*\n$`},
		{"date", []string{"+%Y"}, `^\d{4}\n$`},
		{"mount", nil, `(?m)^.* on /proc type proc \(`},
		{"ip", []string{"addr"}, `(?m)^\d+: lo: <LOOPBACK.*\n(.*\n)* +inet 127\.0\.0\.1/8`},
		{"ip", []string{"a"}, `1: lo`},
		{"ip", []string{"-4", "addr", "show", "dev", "lo"}, `^1: lo(.*\n)+ +inet 127`},
		{"ip", []string{"link"}, `(?m)^1: lo: `},
		{"ip", []string{"route"}, `(?s)^.*$`},
		{
			"ping", []string{"-c", "1", "127.0.0.1"},
			`(?m)^1 packets transmitted, 1 (packets )?received, 0% packet loss`,
		},
		{"pidof", []string{"no-such-program"}, `^$`},
		{"kill", []string{"-l"}, `(?m)^ 9\) SIGKILL$`},
	} {
		t.Run(tc.name+" "+strings.Join(tc.args, " "), func(t *testing.T) {
			t.Parallel()
			r := run(t, "", "", tc.name, tc.args...)
			if tc.name == "ping" && strings.Contains(r.err, "not permitted") {
				t.Skip("echo requests need CAP_NET_RAW or net.ipv4.ping_group_range")
			}
			if !regexp.MustCompile(tc.want).MatchString(r.out) {
				t.Errorf("got %+v, want a match of %q", r, tc.want)
			}
		})
	}
}

// freePort is a port of the loopback address on which no process listens. It is below the range
// from which the kernel takes ports by itself (ip(7), ip_local_port_range): no other connection
// gets it, and a client cannot connect to itself.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(20_000 + rand.IntN(10_000))
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free port from 20000 to 30000")
	return ""
}

// serve runs an applet that listens on a port until the test ends, and waits until it does.
func serve(t *testing.T, port, dir, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan result, 1)
	go func() { done <- runContext(ctx, t, dir, "", name, args...) }()
	t.Cleanup(func() { cancel(); <-done })
	if !waitFor(t, func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
		}
		return err == nil
	}) {
		t.Fatalf("%s does not listen", name)
	}
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	root, dir := fixture(t), t.TempDir()
	if err := os.Symlink("/etc/passwd", filepath.Join(root, "outside")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(
		filepath.Join(root, "big"), bytes.Repeat([]byte("0123456789abcdef"), 1<<16), 0o644,
	); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	serve(t, port, root, "httpd", "-f", "-p", "127.0.0.1:"+port)
	at := "http://127.0.0.1:" + port
	for _, tc := range []struct {
		name   string
		args   []string
		out    string
		status int
		err    string
	}{
		{"a file", []string{"-q", "-O", "-", at + "/fruit"}, "pear\napple\nfig\napple\n", 0, ""},
		{"without a scheme", []string{"-qO-", "127.0.0.1:" + port + "/d/inner"}, "inside\n", 0, ""},
		{"a name with a blank", []string{"-qO-", at + "/spaced%20out"}, "a b\n", 0, ""},
		{"not there", []string{"-qO-", at + "/nothing"}, "", 1, "404"},
		{"out by dots", []string{"-qO-", at + "/../../etc/passwd"}, "", 1, "404"},
		{"out by a link", []string{"-qO-", at + "/outside"}, "", 1, "40"},
		{"only asked for", []string{"-q", "--spider", at + "/fruit"}, "", 0, ""},
		{"no server", []string{"-qO-", "http://127.0.0.1:1/"}, "", 1, "refused"},
		{"TLS", []string{"-qO-", "https://127.0.0.1/"}, "", 1, "https"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := run(t, dir, "", "wget", tc.args...)
			if r.out != tc.out || (r.status == 0) != (tc.status == 0) ||
				!strings.Contains(r.err, tc.err) {
				t.Errorf(
					"got %+v, want %q, status %d, message with %q", r, tc.out, tc.status, tc.err,
				)
			}
		})
	}
	if r := run(t, dir, "", "wget", "-q", at+"/big"); r.status != 0 {
		t.Fatal(r)
	}
	if st, err := os.Stat(filepath.Join(dir, "big")); err != nil || st.Size() != 1<<20 {
		t.Errorf("the file kept: %v, %v", st, err)
	}
}

func TestNetcat(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	done := make(chan result, 1)
	go func() {
		done <- run(t, "", "from the server\n", "nc", "-l", "-s", "127.0.0.1", "-p", port)
	}()
	var client result
	if !waitFor(t, func() bool {
		client = run(t, "", "from the client\n", "nc", "127.0.0.1", port)
		return client.status == 0
	}) {
		t.Fatal(client)
	}
	server := <-done
	if client.out != "from the server\n" || server.out != "from the client\n" ||
		server.status != 0 {
		t.Errorf("client %+v, server %+v", client, server)
	}
	if r := run(t, "", "", "nc", "-z", "127.0.0.1", port); r.status == 0 ||
		!strings.Contains(r.err, "refused") {
		t.Errorf("a closed port: %+v", r)
	}
	if r := run(t, "", "", "nc", "127.0.0.1", "99999"); r.status != exitUsage ||
		!strings.Contains(r.err, "99999") {
		t.Errorf("a bad port: %+v", r)
	}
}

func TestContextEndsWhatWaits(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		args []string
	}{
		{"sleep", []string{"1000"}}, {"yes", nil},
		{"nc", []string{"-l", "-s", "127.0.0.1", "-p", "0"}},
		{"httpd", []string{"-p", "127.0.0.1:0"}},
		{"sh", []string{"-c", "while :; do :; done"}}, {"ping", []string{"127.0.0.1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan result, 1)
			go func() { done <- runContext(ctx, t, t.TempDir(), "", tc.name, tc.args...) }()
			cancel()
			<-done // the test's own limit is the assertion
		})
	}
}

func TestEqualFileSystemsShownOnce(t *testing.T) {
	t.Parallel()
	list := parseMounts(`1 0 0:5 / / rw - overlay overlay rw
2 1 8:1 /a /etc/hosts rw - ext4 /dev/sda rw
3 1 8:1 /b /etc/hostname rw - ext4 /dev/sda rw
4 1 0:7 / /proc/one rw - tmpfs tmpfs rw
5 1 0:7 / /proc/two rw - tmpfs tmpfs rw
`)
	var got []string
	for i, m := range list {
		if !covered(list, i) {
			got = append(got, m.point)
		}
	}
	if want := []string{"/", "/etc/hosts", "/proc/one"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTopTable(t *testing.T) {
	t.Parallel()
	made := func(pid int, cpu uint64) process {
		return process{
			pid: pid, ppid: 1, state: "S", comm: "c", cmdline: fmt.Sprintf("program %d", pid),
			cpu: cpu, rss: 1 << 20,
		}
	}
	before := topSample{processes: []process{made(1, 100), made(2, 50)}, busy: 1000, total: 2000}
	now := topSample{
		processes: []process{made(1, 100), made(2, 75), made(3, 10)}, busy: 1050, total: 2100,
		load: "0.1 0.2 0.3", memory: map[string]uint64{"MemTotal": 1 << 30},
	}
	var b strings.Builder
	w := bufio.NewWriter(&b)
	writeTop(w, now, before, accounts{}, 6, 60, true)
	w.Flush()
	want := "Memory: 1.0G, 0 free, 0 available\r\n" +
		"CPU: 50% busy, load average 0.1 0.2 0.3, 3 processes\r\n" +
		"  PID  PPID USER     STAT   RSS %CPU COMMAND\r\n" +
		"    2     1 0        S     1.0M   25 program 2\r\n" +
		"    3     1 0        S     1.0M   10 program 3\r\n"
	if b.String() != want {
		t.Errorf("got:\n%q\nwant:\n%q", b.String(), want)
	}
	if busy, total := processorTime("cpu 1 2 3 4 5 6 7 8 9 10\ncpu0 1\n"); busy != 1+2+3+6+7+8 ||
		total != busy+4+5 {
		t.Errorf("processor time: %d of %d", busy, total)
	}
}

// TestFindSize has the units of -size, and values that are none.
func TestFindSize(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), make([]byte, 1025), 0o644); err != nil {
		t.Fatal(err)
	}
	for size, found := range map[string]bool{
		"3": true, "1025c": true, "1024c": false, "513w": true, "2k": true, "1M": true, "+1k": true,
		"-3": false,
	} {
		r := run(t, dir, "", "find", ".", "-type", "f", "-size", size)
		if (r.out == "./f\n") != found || r.status != exitOK {
			t.Errorf("-size %s: %+v; want found %v", size, r, found)
		}
	}
	for _, size := range []string{"", "x", "1x"} {
		if r := run(t, dir, "", "find", ".", "-size", size); r.status == exitOK || r.err == "" {
			t.Errorf("-size %q: %+v, want an error", size, r)
		}
	}
}
