package test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"strake/internal/testneed"
)

// daemon is a program that serves until the test ends. Whatever it still writes afterwards is lost.
func daemon(t *testing.T, ready func() bool, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	var log lockedBuffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			cmd.Process.Kill()
			<-ended
		}
		if t.Failed() {
			t.Logf("%s:\n%s", program, tail(log.String(), 3000))
		}
	})
	for end := time.Now().Add(60 * time.Second); !ready(); runtimeYield() {
		select {
		case <-ended:
			t.Fatalf("%s has ended:\n%s", program, tail(log.String(), 3000))
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not get ready:\n%s", program, tail(log.String(), 3000))
		}
	}
}

// dockerd starts a Docker engine of Debian's without networks, and returns a client of it.
func dockerd(t *testing.T, r *rig) *client {
	t.Helper()
	program := testneed.Program(t, "dockerd", "docker.io")
	cli := dockerClient("20.10.")
	if cli == "" {
		testneed.Lack(t, "the docker client of Debian 12 (package docker.io)")
	}
	dir := filepath.Join(r.dir, "moby")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(
		config, []byte(`{"deprecated-key-path": "`+filepath.Join(dir, "key.json")+`"}`), 0o600,
	); err != nil {
		t.Fatal(err)
	}
	moby := &rig{t: t, dir: dir, bin: r.bin}
	d := &client{rig: moby, t: t, name: "dockerd", program: cli}
	daemon(t, func() bool { return d.do("version").code == 0 }, program,
		"--config-file", config, "--data-root", filepath.Join(dir, "data"), "--exec-root",
		filepath.Join(dir, "run"), "--pidfile", filepath.Join(dir, "pid"),
		"-H", "unix://"+moby.socket(), "--bridge=none", "--iptables=false", "--ip-forward=false", "--storage-driver=vfs")
	return d
}

// registry starts Debian's docker-registry on loopback and returns its address. users is a file of
// htpasswd, or empty.
func registry(t *testing.T, r *rig, users string) string {
	t.Helper()
	program := testneed.Program(t, "docker-registry", "docker-registry")
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	config := "version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: " + dir + "/data}, delete: {enabled: true}}\nhttp: {addr: '" + addr + "'}\n"
	if users != "" {
		if err := os.WriteFile(dir+"/users", []byte(users), 0o600); err != nil {
			t.Fatal(err)
		}
		config += "auth: {htpasswd: {realm: tests, path: " + dir + "/users}}\n"
	}
	if err := os.WriteFile(dir+"/config.yml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	daemon(t, func() bool {
		resp, err := http.Get("http://" + addr + "/v2/")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil
	}, program, "serve", dir+"/config.yml")
	return addr
}

// manifestDigest is the digest of the bytes that a registry has for a tag or digest, as anybody can
// compute it.
func manifestDigest(t *testing.T, addr, repo, ref string) string {
	t.Helper()
	req, err := http.NewRequest("GET", "http://"+addr+"/v2/"+repo+"/manifests/"+ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []string{
		"application/vnd.docker.distribution.manifest.v2+json",
		"application/vnd.oci.image.manifest.v1+json",
	} {
		req.Header.Add("Accept", m)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("manifest %s:%s: %s, %v", repo, ref, resp.Status, err)
	}
	got := fmt.Sprintf("sha256:%x", sha256.Sum256(body))
	if sent := resp.Header.Get("Docker-Content-Digest"); sent != got {
		t.Errorf("the registry's digest %s is not that of its bytes %s", sent, got)
	}
	return got
}

// imageID is the digest of an image's configuration, on which every engine agrees.
func (c *client) imageID(ref string) string {
	c.t.Helper()
	return strings.TrimSpace(
		c.ok(
			"inspect", "--type", "image", "-f",
			"{{.Id}} {{.RootFS.Layers}} {{.Config.Cmd}} {{.Config.Env}}", ref,
		),
	)
}

// layered makes an image of several layers and a configuration from box: name.
func (c *client) layered(name string) {
	c.t.Helper()
	c.ok(
		"run", "--name", "base", "box", "sh", "-c",
		"echo layer > /two; rm /etc/passwd; mkdir /dir; echo x > /dir/x",
	)
	out := c.with(c.t)
	out.program = dockerOf(c) // commit is not among strake's verbs
	out.ok(
		"commit", "-c", "ENV KEY=value", "-c", `CMD ["cat", "/two"]`, "-c", "WORKDIR /dir", "base",
		name,
	)
	c.ok("rm", "base")
}

func dockerOf(c *client) string {
	if c.name == "strake" {
		p, _ := exec.LookPath("docker")
		return p
	}
	return c.program
}

// TestExchange: archives go from strake to dockerd and back, by save and load; the images are the
// same ones.
func TestExchange(t *testing.T) {
	r := start(t)
	d := dockerd(t, r)
	archive := filepath.Join(r.dir, "archive.tar")
	build := d.command("build", "-q", "-t", "built", "-")
	build.Env = append(build.Env, "DOCKER_BUILDKIT=0")
	build.Stdin = bytes.NewReader(buildContext(t))
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("docker build: %v\n%s", err, out)
	}
	eachClient(t, r, func(t *testing.T, c *client) {
		d := d.with(t)
		c.layered("made:v1")
		c.ok("tag", "made:v1", "other/name:v2")
		want := c.imageID("made:v1")
		c.ok("save", "-o", archive, "made:v1", "other/name:v2", "box")
		if got := d.ok(
			"load", "-i", archive,
		); loaded(got) != "Loaded image: box:latest\nLoaded image: made:v1\nLoaded image: other/name:v2\n" {
			t.Errorf("dockerd loaded %q", got)
		}
		if got := d.imageID("made:v1"); got != want {
			t.Errorf("in dockerd it is\n%s, here\n%s", got, want)
		}
		if got, want := d.ok(
			"history", "--no-trunc", "--format", "{{.CreatedBy}} {{.Comment}}", "made:v1",
		), c.ok(
			"history", "--no-trunc", "--format", "{{.CreatedBy}} {{.Comment}}", "made:v1",
		); got != want {
			t.Errorf("history in dockerd:\n%swant\n%s", got, want)
		}
		// An image of dockerd's own making comes here and runs.
		save := d.command("save", "built", "made:v1")
		raw, err := save.Output()
		if err != nil {
			t.Fatal(err)
		}
		c.ok("rmi", "made:v1", "other/name:v2")
		if got := c.feed(string(raw), "load"); got.code != 0 ||
			loaded(got.out) != "Loaded image: built:latest\nLoaded image: made:v1\n" {
			t.Errorf("load: %+v", got)
		}
		if got, want := c.imageID("built"), d.imageID("built"); got != want {
			t.Errorf("here it is\n%s, in dockerd\n%s", got, want)
		}
		if got := c.imageID("made:v1"); got != want {
			t.Errorf("after the round trip it is\n%s, was\n%s", got, want)
		}
		c.eq(
			"layer\n/dir\nvalue\n", "run", "--rm", "made:v1", "sh", "-c",
			"cat /two; pwd; echo $KEY; test ! -e /etc/passwd",
		)
		c.eq("from the build\nset\n", "run", "--rm", "built")
		// And what was loaded goes back as it came.
		c.ok("save", "-o", archive, "built")
		was := d.imageID("built")
		d.ok("rmi", "built")
		if got := c.feed("", "load", "-q", "-i", archive); got.code != 0 {
			t.Errorf("load -q: %+v", got)
		}
		d.ok("load", "-q", "-i", archive)
		if got := d.imageID("built"); got != was {
			t.Errorf("back in dockerd it is\n%s, was\n%s", got, was)
		}
		d.ok("rmi", "made:v1", "other/name:v2")
		c.ok("rmi", "built", "made:v1")

		// A tree of files: import, here and there.
		tree := c.file("tree.tar", string(buildContext(t)))
		id := strings.TrimSpace(c.ok("import", "-m", "a tree", "-c", "ENV A=b", tree, "tree:v1"))
		c.eq(
			id+" [A=b] a tree\n", "inspect", "-f", "{{.Id}} {{.Config.Env}} {{.Comment}}",
			"tree:v1",
		)
		c.ok("rmi", "tree:v1")
		c.refused(1, "", "load", "-i", filepath.Join(r.dir, "absent.tar"))
		c.refused(1, "", "import", filepath.Join(r.dir, "absent.tar"))
		c.refused(1, "No such image: absent", "save", "-o", archive, "absent")
	})
}

// loaded are the lines of load's output that name what came, sorted.
func loaded(out string) string {
	var l strings.Builder
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "Loaded image") {
			l.WriteString(line)
		}
	}
	return sorted(l.String())
}

// buildContext has a Dockerfile that needs no container to be run.
func buildContext(t *testing.T) []byte {
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range []struct {
		name string
		mode int64
		body []byte
	}{
		{
			"Dockerfile", 0o644,
			[]byte("FROM scratch\nCOPY busybox /bin/\nCOPY file /etc/\nENV FROM=set\nLABEL a=b\nENTRYPOINT [\"/bin/busybox\", \"sh\", \"-c\"]\nCMD [\"busybox cat /etc/file; echo $FROM\"]\n"),
		},
		{"busybox", 0o755, box}, {"file", 0o644, []byte("from the build\n")},
	} {
		if err := w.WriteHeader(
			&tar.Header{
				Name: f.name, Mode: f.mode, Size: int64(len(f.body)), Typeflag: tar.TypeReg,
			},
		); err != nil {
			t.Fatal(err)
		}
		w.Write(f.body)
	}
	w.Close()
	return b.Bytes()
}

// TestRegistry pushes to and pulls from a registry that others wrote.
func TestRegistry(t *testing.T) {
	r := start(t)
	addr := registry(t, r, "")
	eachClient(t, r, func(t *testing.T, c *client) {
		repo := "deep/" + strings.NewReplacer(" ", "-", ".", "-").Replace(c.name)
		name := addr + "/" + repo
		c.layered(name + ":v1")
		want := c.imageID(name + ":v1")
		pushed := regexp.MustCompile(
			`(?m)^v1: digest: (sha256:[0-9a-f]{64}) size: \d+\r?$`,
		).FindStringSubmatch(c.ok("push", name+":v1"))
		if pushed == nil {
			t.Fatal("push does not say the digest")
		}
		digest := pushed[1]
		if got := manifestDigest(t, addr, repo, "v1"); got != digest {
			t.Errorf("pushed %s, the registry has %s", digest, got)
		}
		c.eq(name+"@"+digest+"\n", "inspect", "-f", "{{index .RepoDigests 0}}", name+":v1")
		c.ok("tag", name+":v1", name+":v2")
		if got := c.ok("push", "-q", name+":v2"); strings.TrimSpace(got) != name+":v2" {
			t.Errorf("push -q: %q", got)
		}
		if got := manifestDigest(t, addr, repo, "v2"); got != digest {
			t.Errorf("pushed again, the digest is %s, was %s", got, digest)
		}
		c.ok("rmi", name+":v1", name+":v2")
		if got := c.do("inspect", name+":v1"); got.code != 1 || got.out != "[]\n" ||
			!strings.Contains(strings.ToLower(got.err), "no such object: "+name) {
			t.Errorf("inspect of what was removed: %+v", got)
		}

		// strake's progress goes to stderr, its result to stdout; docker's client has all on
		// stdout.
		if got := c.do("pull", name+":v1"); got.code != 0 ||
			!strings.Contains(got.out+got.err, "Digest: "+digest) ||
			!strings.Contains(got.out+got.err, "Downloaded newer image for "+name+":v1") {
			t.Errorf("pull: %+v", got)
		}
		if got := c.imageID(name + ":v1"); got != want {
			t.Errorf("pulled\n%s, pushed\n%s", got, want)
		}
		if got := c.do("pull", name+":v1"); !strings.Contains(
			got.out+got.err, "Image is up to date for "+name+":v1",
		) {
			t.Errorf("pull again: %+v", got)
		}
		c.eq(digest+"\n", "images", "--digests", "--format", "{{.Digest}}", name)
		c.eq("layer\n", "run", "--rm", name+":v1")
		c.ok("rmi", name+":v1")

		// By digest, and by run.
		c.ok("pull", "-q", name+"@"+digest)
		c.eq("layer\n", "run", "--rm", name+"@"+digest)
		c.ok("rmi", name+"@"+digest)
		if got := c.do("run", "--rm", name+":v2"); got.out != "layer\n" || got.code != 0 ||
			!strings.Contains(got.err, "Unable to find image '"+name+":v2' locally") {
			t.Errorf("run of an image that is not here: %+v", got)
		}
		c.eq("layer\n", "run", "--rm", "--pull", "always", name+":v2")
		if got := c.do("pull", "-a", name); got.code != 0 {
			t.Errorf("pull -a: %+v", got)
		}
		c.ok("inspect", name+":v1")
		c.ok("tag", name+":v1", name+":v3")
		if got := c.do("push", "-a", name); got.code != 0 ||
			manifestDigest(t, addr, repo, "v3") != digest {
			t.Errorf("push -a: %+v", got)
		}
		c.ok("rmi", name+":v1", name+":v2", name+":v3")

		for _, e := range []struct {
			args []string
			code int
			text string
		}{
			{[]string{"pull", name + ":absent"}, 1, "not found"},
			{[]string{"pull", addr + "/no/such"}, 1, "not found"},
			{[]string{"pull", name + "@sha256:" + strings.Repeat("0", 64)}, 1, "not found"},
			{[]string{"pull", name + "@sha256:short"}, 1, "invalid reference format"},
			{[]string{"pull", "127.0.0.1:1/nobody:listens"}, 1, "connection refused"},
			{[]string{"run", "--rm", name + ":absent"}, 125, "not found"},
			{[]string{"push", name + ":absent"}, 1, "does not exist locally"},
		} {
			got := c.do(e.args...)
			if got.code != e.code || !strings.Contains(got.err, e.text) ||
				strings.Count(got.err, "\n") > 5 {
				t.Errorf(
					"%s: status %d, %q; want %d with %q", strings.Join(e.args, " "), got.code,
					got.err, e.code, e.text,
				)
			}
		}
	})
}

// TestRegistryBetween: dockerd pulls what strake pushed, and the other way around, and both have
// the same image under the same digest.
func TestRegistryBetween(t *testing.T) {
	r := start(t)
	addr := registry(t, r, "")
	d := dockerd(t, r)
	c := &client{rig: r, t: t, name: "strake", program: filepath.Join(r.bin, "strake")}
	name := addr + "/between"
	c.layered(name + ":v1")
	c.ok("push", name+":v1")
	d.ok("pull", name+":v1")
	if got, want := d.imageID(name+":v1"), c.imageID(name+":v1"); got != want {
		t.Errorf("dockerd pulled\n%s, strake pushed\n%s", got, want)
	}
	const digests = "{{.RepoDigests}}"
	d.eq(c.ok("inspect", "-f", digests, name+":v1"), "inspect", "-f", digests, name+":v1")

	build := d.command("build", "-q", "-t", name+":v2", "-")
	build.Env = append(build.Env, "DOCKER_BUILDKIT=0")
	build.Stdin = bytes.NewReader(buildContext(t))
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("docker build: %v\n%s", err, out)
	}
	d.ok("push", name+":v2")
	c.ok("pull", name+":v2")
	if got, want := c.imageID(name+":v2"), d.imageID(name+":v2"); got != want {
		t.Errorf("strake pulled\n%s, dockerd pushed\n%s", got, want)
	}
	c.eq(d.ok("inspect", "-f", digests, name+":v2"), "inspect", "-f", digests, name+":v2")
	c.eq("from the build\nset\n", "run", "--rm", name+":v2")
	// Pushed on from here it is still the same manifest.
	was := manifestDigest(t, addr, "between", "v2")
	c.ok("tag", name+":v2", name+":v3")
	c.ok("push", name+":v3")
	if got := manifestDigest(t, addr, "between", "v3"); got != was {
		t.Errorf("pushed on it is %s, was %s", got, was)
	}
	c.ok("rmi", name+":v1", name+":v2", name+":v3")
}

// TestLogin: a registry that wants a password.
func TestLogin(t *testing.T) {
	r := start(t)
	// The password is "secret".
	addr := registry(t, r, "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n")
	eachClient(t, r, func(t *testing.T, c *client) {
		name := addr + "/private/" + strings.NewReplacer(" ", "-").Replace(c.name)
		c.ok("tag", "box", name)
		for _, args := range [][]string{{"push", name}, {"pull", name}} {
			got := c.do(args...)
			if text := strings.ToLower(got.err); got.code != 1 ||
				!strings.Contains(text, "unauthorized") &&
					!strings.Contains(text, "no basic auth credentials") &&
					!strings.Contains(text, "authentication required") {
				t.Errorf("%s without a password: %+v", args[0], got)
			}
		}
		if got := c.feed("wrong\n", "login", "-u", "me", "--password-stdin", addr); got.code != 1 ||
			!strings.Contains(strings.ToLower(got.err), "unauthorized") {
			t.Errorf("login with a wrong password: %+v", got)
		}
		if got := c.feed(
			"secret\n", "login", "-u", "me", "--password-stdin", addr,
		); got.code != 0 || !strings.Contains(got.out, "Login Succeeded") {
			t.Errorf("login: %+v", got)
		}
		c.ok("push", name)
		c.ok("rmi", name)
		c.ok("pull", name)
		c.ok("rmi", name)
		c.ok("logout", addr)
		c.ok("tag", "box", name)
		if got := c.do("push", name); got.code != 1 {
			t.Errorf("push after logout: %+v", got)
		}
		c.ok("rmi", name)
	})
}

// cutter is a proxy in front of a registry that breaks connections: of each blob's first cuts
// transfers, after half of its bytes.
type cutter struct {
	backend *httputil.ReverseProxy
	cuts    int

	mu     sync.Mutex
	seen   map[string]int // guarded by mu; by path
	ranges []string       // guarded by mu; the Range headers of blobs
	sent   int64          // guarded by mu; bytes of blobs sent to the client
}

func (c *cutter) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	blob := strings.Contains(req.URL.Path, "/blobs/sha256:") && req.Method == http.MethodGet
	upload := strings.Contains(req.URL.Path, "/blobs/uploads/") &&
		(req.Method == http.MethodPatch || req.Method == http.MethodPut)
	c.mu.Lock()
	key := req.Method + req.URL.Path
	if upload {
		key = "upload"
	}
	c.seen[key]++
	cut := c.seen[key] <= c.cuts
	if blob {
		c.ranges = append(c.ranges, req.Header.Get("Range"))
	}
	c.mu.Unlock()
	switch {
	case blob:
		out := &cutWriter{ResponseWriter: w, left: 1 << 62}
		if cut {
			out.left = 4 << 20
		}
		defer func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.sent += out.sent
		}()
		c.backend.ServeHTTP(out, req)
	case upload && cut:
		io.CopyN(io.Discard, req.Body, 2<<20)
		panic(http.ErrAbortHandler)
	default:
		c.backend.ServeHTTP(w, req)
	}
}

// cutWriter breaks the connection when left bytes have gone.
type cutWriter struct {
	http.ResponseWriter
	left, sent int64
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if int64(len(p)) > w.left {
		n, _ := w.ResponseWriter.Write(p[:w.left])
		w.sent += int64(n)
		http.NewResponseController(w.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	n, err := w.ResponseWriter.Write(p)
	w.left, w.sent = w.left-int64(n), w.sent+int64(n)
	return n, err
}

// through puts a cutter in front of a registry.
func through(t *testing.T, addr string, cuts int) (*cutter, string) {
	t.Helper()
	c := &cutter{cuts: cuts, seen: map[string]int{}}
	c.backend = &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(&url.URL{Scheme: "http", Host: addr})
		p.Out.Host = p.In.Host // the registry names itself in Location
	}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: c}
	done := make(chan struct{})
	go func() { srv.Serve(l); close(done) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return c, l.Addr().String()
}

// TestResume pulls and pushes over connections that break half way.
func TestResume(t *testing.T) {
	r := start(t)
	addr := registry(t, r, "")
	const size = 10 << 20
	var tree bytes.Buffer
	w := tar.NewWriter(&tree)
	w.WriteHeader(&tar.Header{Name: "noise", Mode: 0o644, Size: size, Typeflag: tar.TypeReg})
	noise := make([]byte, size)
	src := rand.NewChaCha8([32]byte{1})
	src.Read(noise)
	w.Write(noise)
	w.Close()
	imp := r.command("import", "-", "noise")
	imp.Stdin = &tree
	if out, err := imp.CombinedOutput(); err != nil {
		t.Fatalf("import: %v\n%s", err, out)
	}

	t.Run("push", func(t *testing.T) {
		_, front := through(t, addr, 1)
		name := front + "/noise"
		r.ok("tag", "noise", name)
		if got := r.docker("push", name); got.code != 0 {
			t.Errorf("push: %+v", got)
		}
		manifestDigest(t, addr, "noise", "latest")
		r.ok("rmi", name)
	})
	id := r.ok("inspect", "-f", "{{.Id}}", "noise")
	direct := addr + "/noise"
	r.ok("tag", "noise", direct)
	r.ok("push", direct)
	r.ok("rmi", direct, "noise")

	t.Run("pull", func(t *testing.T) {
		c, front := through(t, addr, 2)
		name := front + "/noise"
		if got := r.docker("pull", name); got.code != 0 {
			t.Fatalf("pull: %+v", got)
		}
		if got := r.ok("inspect", "-f", "{{.Id}}", name); got != id {
			t.Errorf("pulled %s, want %s", got, id)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if all := strings.Join(c.ranges, " "); !strings.Contains(all, "bytes=") ||
			c.sent > size*5/4 {
			t.Errorf(
				"%d bytes for a layer of %d, ranges asked for: %q; want that the transfer goes on where it broke",
				c.sent, size, all,
			)
		}
		r.ok("rmi", name)
	})
	t.Run("pull that fails and is asked for again", func(t *testing.T) {
		c, front := through(t, addr, 1000)
		name := front + "/noise"
		c.mu.Lock()
		c.cuts = 0
		c.mu.Unlock()
		l := &limited{cutter: c, whole: 3 << 20}
		srv := &http.Server{Handler: l}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { srv.Serve(ln); close(done) }()
		t.Cleanup(func() { srv.Close(); <-done })
		broken := ln.Addr().String() + "/noise"
		got := r.docker("pull", broken)
		if got.code != 1 || strings.Count(strings.TrimSpace(got.err), "\n") > 1 || got.err == "" {
			t.Errorf("pull over a line that always breaks: %+v", got)
		}
		if got := r.docker("images", "-q", broken); got.out != "" {
			t.Errorf("half of an image is listed: %q", got.out)
		}
		// What came is not fetched again: by another name, as blobs belong to no name.
		r.ok("pull", name)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.sent >= size {
			t.Errorf("%d bytes the second time, want fewer than %d", c.sent, size)
		}
		r.ok("rmi", name)
	})
}

// limited lets the first bytes of every blob through, and no more of them ever.
type limited struct {
	cutter *cutter
	whole  int64
}

func (l *limited) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if !strings.Contains(req.URL.Path, "/blobs/sha256:") {
		l.cutter.backend.ServeHTTP(w, req)
		return
	}
	left := l.whole
	var from int64
	if _, err := fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-", &from); err == nil {
		left = max(0, l.whole-from)
	}
	l.cutter.backend.ServeHTTP(&cutWriter{ResponseWriter: w, left: left}, req)
}
