package test

import (
	"bufio"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"strake/internal/testneed"
)

// suite is the release that the tree is made of.
const suite = "bookworm"

// TestDebian makes a whole Debian 12 with debootstrap, imports it, and works in it at a terminal:
// with packages from a mirror, through the NAT.
func TestDebian(t *testing.T) {
	r := start(t)
	debootstrap := testneed.Program(t, "debootstrap", "debootstrap")
	mirror := hostMirror()
	if mirror == "" {
		t.Skipf("needs a mirror of Debian with the suite %s in this host's apt sources", suite)
	}
	tree := filepath.Join(r.dir, "debian")
	began := time.Now()
	if out, err := exec.Command(
		debootstrap, "--variant=minbase", suite, tree, mirror,
	).CombinedOutput(); err != nil {
		if strings.Contains(string(out), "Couldn't resolve") ||
			strings.Contains(string(out), "Failed getting release file") {
			t.Skipf(
				"needs the mirror in this host's apt sources to answer: %s", tail(string(out), 300),
			)
		}
		t.Fatalf("debootstrap: %v\n%s", err, tail(string(out), 3000))
	}
	t.Logf("debootstrap: %s", time.Since(began).Round(time.Second))
	// What somebody does whose machine reaches its mirror in a way of its own.
	for name, text := range map[string]string{
		"etc/apt/sources.list":         "deb " + mirror + " " + suite + " main\n",
		"etc/apt/apt.conf.d/90network": hostAptConfig(),
	} {
		if err := os.WriteFile(filepath.Join(tree, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	archive := filepath.Join(r.dir, "debian.tar")
	if out, err := exec.Command(
		"tar", "-C", tree, "--numeric-owner", "-cf", archive, ".",
	).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	ids := map[string]string{}
	eachClient(t, r, func(t *testing.T, c *client) {
		// Each imports it itself; the same tree is one layer for all of them.
		began := time.Now()
		c.ok(
			"import", "-c", `CMD ["bash"]`, "-c", "ENV DEBIAN_FRONTEND=noninteractive", archive,
			"debian:12",
		)
		t.Logf("import: %s", time.Since(began).Round(10*time.Millisecond))
		ids[c.name] = strings.TrimSpace(c.ok("inspect", "-f", "{{.RootFS.Layers}}", "debian:12"))
		args := []string{"run", "-it", "--name", "deb", "--hostname", "deb"}
		if line := hostsEntry(mirror); line != "" {
			args = append(args, "--add-host", line)
		}
		began = time.Now()
		p := onTerminal(t, c.command(append(args, "debian:12")...), 120, 30)
		p.expect("root@deb:/# ")
		p.write("cut -d. -f1 /etc/debian_version; stty size\n")
		p.expect("12\r\n")
		p.expect("30 120")
		p.write("apt-get update && apt-get install -y hello && hello; echo status=$?\n")
		p.expectWithin("Hello, world!", 50*time.Second)
		p.expect("status=0")
		t.Logf("apt-get update and install: %s", time.Since(began).Round(10*time.Millisecond))
		p.write("su -s /bin/bash nobody -c 'id -un'; exit 3\n")
		p.expect("nobody")
		if code := p.ends(); code != 3 {
			t.Errorf("the shell's status is %d, want 3", code)
		}
		if got := c.ok("logs", "--tail", "20", "deb"); !strings.Contains(got, "Hello, world!") {
			t.Errorf("logs: %q", got)
		}
		// What was installed is in the container alone, and still there when it starts again.
		q := onTerminal(t, c.command("start", "-ai", "deb"), 80, 24)
		c.until("the shell", func() bool {
			q.write("\n")
			return strings.Contains(q.screen.String(), "# ")
		})
		q.write("hello -t; exit\n")
		q.expect("hello, world")
		if code := q.ends(); code != 0 {
			t.Errorf("start -ai: status %d", code)
		}
		c.refused(127, "executable file not found", "run", "--rm", "debian:12", "hello")
		c.ok("rm", "deb")
		c.ok("rmi", "debian:12")
	})
	for name, id := range ids {
		if other := ids["strake"]; id != other {
			t.Errorf("imported by %s it is %s, by strake %s", name, id, other)
		}
	}
}

// source is an entry of apt's list of sources (sources.list(5)).
type source struct {
	uri                string
	suites, components []string
}

// hostMirror finds the mirror from which this host gets the suite.
func hostMirror() string {
	files := []string{"/etc/apt/sources.list"}
	for _, pattern := range []string{
		"/etc/apt/sources.list.d/*.list", "/etc/apt/sources.list.d/*.sources",
	} {
		more, _ := filepath.Glob(pattern)
		files = append(files, more...)
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for _, s := range parseSources(string(raw), strings.HasSuffix(name, ".sources")) {
			if slices.Contains(s.suites, suite) && slices.Contains(s.components, "main") {
				return s.uri
			}
		}
	}
	return ""
}

// parseSources reads both forms of sources.list(5): lines, and stanzas as in RFC 822.
func parseSources(text string, stanzas bool) (list []source) {
	if !stanzas {
		for line := range strings.Lines(text) {
			line, _, _ = strings.Cut(line, "#")
			if before, rest, ok := strings.Cut(line, "["); ok {
				_, after, _ := strings.Cut(rest, "]")
				line = before + after
			}
			if f := strings.Fields(line); len(f) >= 4 && f[0] == "deb" {
				list = append(list, source{f[1], f[2:3], f[3:]})
			}
		}
		return list
	}
	fields := map[string]string{}
	last := ""
	flush := func() {
		if slices.Contains(strings.Fields(fields["types"]), "deb") && fields["enabled"] != "no" {
			for _, uri := range strings.Fields(fields["uris"]) {
				list = append(
					list,
					source{
						uri, strings.Fields(fields["suites"]), strings.Fields(fields["components"]),
					},
				)
			}
		}
		fields, last = map[string]string{}, ""
	}
	for sc := bufio.NewScanner(strings.NewReader(text)); sc.Scan(); {
		switch line := sc.Text(); {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			flush()
		case line[0] == ' ' || line[0] == '\t':
			fields[last] += " " + strings.TrimSpace(line)
		default:
			key, value, _ := strings.Cut(line, ":")
			last = strings.ToLower(key)
			fields[last] = strings.TrimSpace(value)
		}
	}
	flush()
	return list
}

// hostAptConfig is how this host's apt reaches its mirror: proxies and the like, and what it thinks
// of dates.
func hostAptConfig() string {
	out, err := exec.Command("apt-config", "dump").Output()
	if err != nil {
		return ""
	}
	var b strings.Builder
	for line := range strings.Lines(string(out)) {
		for _, prefix := range []string{
			"Acquire::http::", "Acquire::https::", "Acquire::Check-", "Acquire::Force",
			"Acquire::Retries",
		} {
			if strings.HasPrefix(line, prefix) {
				b.WriteString(line)
			}
		}
	}
	return b.String()
}

// hostsEntry is what --add-host needs for a mirror that this host knows from its own /etc/hosts
// alone.
func hostsEntry(mirror string) string {
	u, err := url.Parse(mirror)
	raw, rerr := os.ReadFile("/etc/hosts")
	if err != nil || rerr != nil || u.Hostname() == "" {
		return ""
	}
	for line := range strings.Lines(string(raw)) {
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) > 1 && slices.Contains(f[1:], u.Hostname()) {
			return u.Hostname() + ":" + f[0]
		}
	}
	return ""
}

func TestParseSources(t *testing.T) {
	t.Parallel()
	lines := `# deb http://comment.invalid/debian bookworm main
deb [arch=amd64 signed-by=/k] http://one.invalid/debian bookworm main contrib # tail
deb-src http://src.invalid/debian bookworm main
deb http://two.invalid/debian bookworm-updates main
`
	stanzas := `Types: deb deb-src
# a comment
URIs: http://three.invalid/debian
 http://four.invalid/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://off.invalid/debian
Suites: bookworm
Components: main
Enabled: no

types: deb-src
URIs: http://src.invalid/debian
Suites: bookworm
`
	show := func(list []source) (out string) {
		for _, s := range list {
			out += s.uri + " " + strings.Join(s.suites, ",") + " " + strings.Join(
				s.components, ",",
			) + "\n"
		}
		return out
	}
	if got, want := show(
		parseSources(lines, false),
	), "http://one.invalid/debian bookworm main,contrib\nhttp://two.invalid/debian bookworm-updates main\n"; got != want {
		t.Errorf("lines: got %q, want %q", got, want)
	}
	if got, want := show(
		parseSources(stanzas, true),
	), "http://three.invalid/debian bookworm,bookworm-updates main\nhttp://four.invalid/debian bookworm,bookworm-updates main\n"; got != want {
		t.Errorf("stanzas: got %q, want %q", got, want)
	}
}
