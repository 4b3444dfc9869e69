package cli_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// now is when every test happens.
var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// engine plays the engine: containers are goroutines that know a few commands.
type engine struct {
	socket string

	mu         sync.Mutex
	containers []*process // guarded by mu
	requests   []string   // guarded by mu
	execs      map[string]*process
	created    int
	pulled     bool
	networks   []map[string]any
	volumes    []map[string]any
}

// process is a container, or an exec in one.
type process struct {
	e          *engine
	id, name   string
	image      string
	cmd        []string
	tty        bool
	openStdin  bool
	autoRemove bool
	conn       net.Conn
	stdin      io.Reader
	state      string
	code       int
	ended      chan struct{}
	signals    chan string
	sizes      chan string
	log        []frame
}

type frame struct {
	stream byte
	text   string
}

func newEngine(t *testing.T) *engine {
	t.Helper()
	e := &engine{socket: filepath.Join(t.TempDir(), "s"), execs: map[string]*process{}}
	e.networks = []map[string]any{
		{"Name": "bridge", "Id": strings.Repeat("b", 64), "Driver": "bridge", "Scope": "local"},
	}
	l, err := net.Listen("unix", e.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: e.handler()}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return e
}

func fail(w http.ResponseWriter, status int, format string, args ...any) {
	answer(w, status, map[string]string{"message": fmt.Sprintf(format, args...)})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func (e *engine) handler() http.Handler {
	mux := http.NewServeMux()
	with := func(f func(http.ResponseWriter, *http.Request, *process)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if p := e.find(r.PathValue("name")); p != nil {
				f(w, r, p)
				return
			}
			fail(w, 404, "No such container: %s", r.PathValue("name"))
		}
	}
	mux.HandleFunc("POST /containers/create", e.create)
	mux.HandleFunc("GET /containers/json", e.list)
	mux.HandleFunc("POST /containers/{name}/attach", with(e.attach))
	mux.HandleFunc("POST /containers/{name}/wait", with(e.wait))
	mux.HandleFunc("POST /containers/{name}/start", with(e.start))
	mux.HandleFunc("POST /containers/{name}/kill", with(e.kill))
	mux.HandleFunc("POST /containers/{name}/stop", with(e.kill))
	mux.HandleFunc("POST /containers/{name}/resize", with(e.resize))
	mux.HandleFunc("POST /containers/{name}/rename", with(
		func(w http.ResponseWriter, r *http.Request, p *process) {
			p.name = r.FormValue("name")
			w.WriteHeader(204)
		}))
	mux.HandleFunc("GET /containers/{name}/json", with(e.inspect))
	mux.HandleFunc("GET /containers/{name}/logs", with(e.logs))
	mux.HandleFunc("GET /containers/{name}/top", with(
		func(w http.ResponseWriter, _ *http.Request, p *process) {
			answer(
				w, 200,
				map[string]any{
					"Titles":    []string{"PID", "CMD"},
					"Processes": [][]string{{"1", strings.Join(p.cmd, " ")}},
				},
			)
		}))
	mux.HandleFunc("GET /containers/{name}/changes", with(
		func(w http.ResponseWriter, _ *http.Request, _ *process) {
			answer(
				w, 200,
				[]map[string]any{
					{"Path": "/etc", "Kind": 0}, {"Path": "/etc/new", "Kind": 1},
					{"Path": "/bin/old", "Kind": 2},
				},
			)
		}))
	mux.HandleFunc("GET /containers/{name}/stats", with(e.stats))
	mux.HandleFunc("DELETE /containers/{name}", with(e.remove))
	mux.HandleFunc("POST /containers/{name}/exec", with(e.createExec))
	mux.HandleFunc("POST /exec/{id}/start", e.startExec)
	mux.HandleFunc("GET /exec/{id}/json", e.inspectExec)
	mux.HandleFunc("GET /images/json", e.images)
	mux.HandleFunc("POST /images/create", e.pull)
	mux.HandleFunc("POST /images/load", func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, `{"stream":"Loaded image: loaded:%d\n"}`, len(raw))
	})
	mux.HandleFunc("GET /images/get", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "archive of %s", r.URL.Query()["names"])
	})
	mux.HandleFunc("GET /networks", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, e.networks)
	})
	mux.HandleFunc("POST /networks/create", func(w http.ResponseWriter, r *http.Request) {
		var n map[string]any
		json.NewDecoder(r.Body).Decode(&n)
		n["Id"], n["Scope"] = strings.Repeat("c", 64), "local"
		e.networks = append(e.networks, n)
		answer(w, 201, n)
	})
	mux.HandleFunc("GET /volumes", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, map[string]any{"Volumes": e.volumes})
	})
	mux.HandleFunc("POST /volumes/create", func(w http.ResponseWriter, r *http.Request) {
		var v map[string]any
		json.NewDecoder(r.Body).Decode(&v)
		if v["Name"] == nil {
			v["Name"] = "anonymous"
		}
		e.volumes = append(e.volumes, v)
		answer(w, 201, v)
	})
	mux.HandleFunc("GET /volumes/{name}", func(w http.ResponseWriter, r *http.Request) {
		fail(w, 404, "get %s: no such volume", r.PathValue("name"))
	})
	mux.HandleFunc("GET /networks/{name}", func(w http.ResponseWriter, r *http.Request) {
		fail(w, 404, "network %s not found", r.PathValue("name"))
	})
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		answer(
			w, 200,
			map[string]any{
				"Version": "9.9", "ApiVersion": "1.51", "Os": "linux", "Arch": "amd64",
				"KernelVersion": "6",
			},
		)
	})
	mux.HandleFunc("GET /info", func(w http.ResponseWriter, _ *http.Request) {
		answer(
			w, 200,
			map[string]any{
				"ServerVersion": "9.9", "IndexServerAddress": "https://index.example/v1/",
				"Containers": len(e.containers), "NCPU": 2, "MemTotal": 1 << 31,
			},
		)
	})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(
			w,
			`{"Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":`+
				`{"name":"web","image":"bb"}},"time":1767323045,"timeNano":1767323045000000001}`,
		)
	})
	mux.HandleFunc("/images/", func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/images/"), "/json")
		if name == "bb" {
			answer(
				w, 200,
				map[string]any{
					"Id": "sha256:" + strings.Repeat("1", 64), "RepoTags": []string{"bb:latest"},
				},
			)
			return
		}
		fail(w, 404, "No such image: %s", name)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		q := r.URL.Query().Encode()
		if q != "" {
			q = "?" + q
		}
		e.requests = append(e.requests, r.Method+" "+r.URL.Path+q)
		e.mu.Unlock()
		w.Header().Set("Api-Version", "1.51")
		mux.ServeHTTP(w, r)
	})
}

// take returns the requests since the last call. Those of attach and wait are made at the same time
// and sorted.
func (e *engine) take() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := e.requests
	e.requests = nil
	for i := 1; i < len(list); i++ {
		if strings.Contains(list[i], "/attach") && strings.Contains(list[i-1], "/wait") {
			list[i], list[i-1] = list[i-1], list[i]
		}
	}
	return list
}

func (e *engine) find(name string) *process {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.IndexFunc(e.containers, func(p *process) bool {
		return p.name == name || strings.HasPrefix(p.id, name)
	})
	if i < 0 {
		return nil
	}
	return e.containers[i]
}

func (e *engine) newProcess() *process {
	return &process{
		e: e, state: "created", ended: make(chan struct{}), signals: make(chan string, 8),
		sizes: make(chan string, 8), stdin: strings.NewReader(""),
	}
}

func (e *engine) create(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Image          string
		Cmd            []string
		Tty, OpenStdin bool
		HostConfig     struct{ AutoRemove bool }
	}
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		fail(w, 400, "%v", err)
		return
	}
	if req.Image != "bb" && !(e.pulled && req.Image == "far") {
		fail(w, 404, "No such image: %s:latest", req.Image)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.created++
	p := e.newProcess()
	p.id, p.name = strings.Repeat(strconv.Itoa(e.created), 64), r.FormValue("name")
	if p.name == "" {
		p.name = fmt.Sprintf("name%d", e.created)
	}
	p.image, p.cmd, p.tty, p.openStdin = req.Image, req.Cmd, req.Tty, req.OpenStdin
	p.autoRemove = req.HostConfig.AutoRemove
	e.containers = append(e.containers, p)
	answer(w, 201, map[string]any{"Id": p.id, "Warnings": []string{}})
}

func hijack(w http.ResponseWriter, tty bool) (net.Conn, *bufio.ReadWriter) {
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	kind := "multiplexed"
	if tty {
		kind = "raw"
	}
	fmt.Fprintf(
		conn,
		"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.%s-stream\r\n"+
			"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
		kind,
	)
	return conn, rw
}

func (e *engine) attach(w http.ResponseWriter, r *http.Request, p *process) {
	// The client starts the container when this is answered: nothing is written before the
	// connection is known.
	e.mu.Lock()
	defer e.mu.Unlock()
	conn, rw := hijack(w, p.tty)
	p.conn = conn
	if r.FormValue("stdin") == "1" {
		p.stdin = rw
	}
}

func (e *engine) wait(w http.ResponseWriter, r *http.Request, p *process) {
	w.Header().Set("Content-Type", "application/json")
	w.(http.Flusher).Flush()
	select {
	case <-p.ended:
	case <-r.Context().Done():
		return
	}
	if p.autoRemove {
		e.forget(p)
	}
	json.NewEncoder(w).Encode(map[string]any{"StatusCode": p.code})
}

func (e *engine) forget(p *process) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.containers = slices.DeleteFunc(e.containers, func(q *process) bool { return q == p })
}

func (e *engine) start(w http.ResponseWriter, _ *http.Request, p *process) {
	if message := p.refuses(); message != "" {
		p.end(127)
		fail(w, 400, "%s", message)
		return
	}
	e.mu.Lock()
	p.state = "running"
	e.mu.Unlock()
	go p.run()
	w.WriteHeader(204)
}

func (p *process) refuses() string {
	switch {
	case len(p.cmd) > 0 && p.cmd[0] == "nosuch":
		return `exec: "nosuch": executable file not found in $PATH`
	case len(p.cmd) > 0 && p.cmd[0] == "denied":
		return `exec: "denied": permission denied`
	}
	return ""
}

func (p *process) end(code int) {
	p.e.mu.Lock()
	defer p.e.mu.Unlock()
	if p.state == "exited" {
		return
	}
	p.state, p.code = "exited", code
	if p.conn != nil {
		p.conn.Close()
	}
	close(p.ended)
}

func (p *process) write(stream byte, text string) {
	p.e.mu.Lock()
	defer p.e.mu.Unlock()
	p.log = append(p.log, frame{stream, text})
	if p.conn == nil {
		return
	}
	if p.tty {
		io.WriteString(p.conn, text)
		return
	}
	p.conn.Write(encode(frame{stream, text}))
}

func encode(f frame) []byte {
	buf := make([]byte, 8, 8+len(f.text))
	buf[0] = f.stream
	binary.BigEndian.PutUint32(buf[4:], uint32(len(f.text)))
	return append(buf, f.text...)
}

// run is what commands do.
func (p *process) run() {
	switch p.cmd[0] {
	case "echo":
		p.write(1, strings.Join(p.cmd[1:], " ")+"\n")
	case "fail":
		code, _ := strconv.Atoi(p.cmd[1])
		p.write(1, "before\n")
		p.write(2, strings.Join(p.cmd[2:], " ")+"\n")
		p.end(code)
	case "cat":
		buf := make([]byte, 4096)
		for {
			n, err := p.stdin.Read(buf)
			if n > 0 {
				p.write(1, string(buf[:n]))
			}
			if err != nil {
				break
			}
		}
	case "size":
		p.write(1, "size "+<-p.sizes+"\n")
	case "trap":
		p.write(1, "ready\n")
		for sig := range p.signals {
			p.write(1, "got "+sig+"\n")
			if sig == "SIGTERM" {
				p.end(5)
				return
			}
		}
	case "sleep":
		<-p.signals
		p.end(137)
		return
	}
	p.end(0)
}

func (e *engine) kill(w http.ResponseWriter, r *http.Request, p *process) {
	if p.state != "running" {
		fail(w, 409, "container %s is not running", p.id)
		return
	}
	p.signals <- r.FormValue("signal")
	if strings.HasSuffix(r.URL.Path, "/stop") {
		<-p.ended
	}
	w.WriteHeader(204)
}

func (e *engine) resize(w http.ResponseWriter, r *http.Request, p *process) {
	select {
	case p.sizes <- r.FormValue("w") + "x" + r.FormValue("h"):
	default:
	}
}

func (e *engine) remove(w http.ResponseWriter, r *http.Request, p *process) {
	if p.state == "running" && r.FormValue("force") == "" {
		fail(w, 409, "container is running: stop the container before removing or force remove")
		return
	}
	p.end(137)
	e.forget(p)
	w.WriteHeader(204)
}

func (e *engine) inspect(w http.ResponseWriter, _ *http.Request, p *process) {
	answer(w, 200, map[string]any{
		"Id": p.id, "Name": "/" + p.name,
		"State": map[string]any{
			"Status": p.state, "Running": p.state == "running", "ExitCode": p.code,
		},
		"Config": map[string]any{"Tty": p.tty, "OpenStdin": p.openStdin, "Cmd": p.cmd},
		"NetworkSettings": map[string]any{
			"Ports": map[string]any{
				"80/tcp": []map[string]string{{"HostIp": "0.0.0.0", "HostPort": "8080"}},
			},
		},
	})
}

func (e *engine) logs(w http.ResponseWriter, _ *http.Request, p *process) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p.tty {
		w.Header().Set("Content-Type", "application/vnd.docker.raw-stream")
	} else {
		w.Header().Set("Content-Type", "application/vnd.docker.multiplexed-stream")
	}
	for _, f := range p.log {
		if p.tty {
			io.WriteString(w, f.text)
		} else {
			w.Write(encode(f))
		}
	}
}

func (e *engine) stats(w http.ResponseWriter, _ *http.Request, p *process) {
	answer(w, 200, map[string]any{
		"id": p.id, "name": "/" + p.name, "pids_stats": map[string]any{"current": 3},
		"cpu_stats": map[string]any{
			"cpu_usage": map[string]any{"total_usage": 300}, "system_cpu_usage": 2000,
			"online_cpus": 2,
		},
		"precpu_stats": map[string]any{
			"cpu_usage": map[string]any{"total_usage": 100}, "system_cpu_usage": 1000,
			"online_cpus": 2,
		},
		"memory_stats": map[string]any{
			"usage": 3 << 20, "limit": 8 << 20, "stats": map[string]any{"inactive_file": 1 << 20},
		},
		"networks": map[string]any{"eth0": map[string]any{"rx_bytes": 1500, "tx_bytes": 10}},
	})
}

func (e *engine) list(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := []map[string]any{}
	for i := len(e.containers) - 1; i >= 0; i-- {
		p := e.containers[i]
		if p.state != "running" && r.FormValue("all") == "" {
			continue
		}
		var f struct{ Status map[string]bool }
		json.Unmarshal([]byte(r.FormValue("filters")), &f)
		if f.Status != nil && !f.Status[p.state] {
			continue
		}
		out = append(out, map[string]any{
			"Id": p.id, "Names": []string{"/" + p.name}, "Image": p.image,
			"Command": strings.Join(p.cmd, " "), "Created": now.Add(-5 * time.Minute).Unix(),
			"State": p.state, "Status": "Is " + p.state,
			"Labels": map[string]string{"tier": "front"},
			"Ports": []map[string]any{
				{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
			},
		})
	}
	answer(w, 200, out)
}

func (e *engine) createExec(w http.ResponseWriter, r *http.Request, p *process) {
	var req struct {
		Cmd         []string
		Tty         bool
		AttachStdin bool
	}
	json.NewDecoder(r.Body).Decode(&req)
	if p.state != "running" {
		fail(w, 409, "container %s is not running", p.id)
		return
	}
	x := e.newProcess()
	x.cmd, x.tty, x.openStdin = req.Cmd, req.Tty, req.AttachStdin
	e.mu.Lock()
	defer e.mu.Unlock()
	x.id = fmt.Sprintf("exec%d", len(e.execs)+1)
	e.execs[x.id] = x
	answer(w, 201, map[string]string{"Id": x.id})
}

func (e *engine) startExec(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	x := e.execs[r.PathValue("id")]
	e.mu.Unlock()
	var req struct{ Detach bool }
	json.NewDecoder(r.Body).Decode(&req)
	if message := x.refuses(); message != "" {
		fail(w, 400, "%s", message)
		return
	}
	if req.Detach {
		w.WriteHeader(200)
	} else {
		conn, rw := hijack(w, x.tty)
		e.mu.Lock()
		x.conn = conn
		if x.openStdin {
			x.stdin = rw
		}
		e.mu.Unlock()
	}
	go x.run()
}

func (e *engine) inspectExec(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.execs[r.PathValue("id")]
	answer(w, 200, map[string]any{"Running": x.state != "exited", "ExitCode": x.code})
}

func (e *engine) images(w http.ResponseWriter, _ *http.Request) {
	list := []map[string]any{
		{
			"Id": "sha256:" + strings.Repeat("1", 64), "RepoTags": []string{"bb:latest", "bb:1"},
			"RepoDigests": []string{"bb@sha256:" + strings.Repeat("d", 64)},
			"Created":     now.Add(-72 * time.Hour).Unix(), "Size": 1980000, "Containers": -1,
		},
		{
			"Id": "sha256:" + strings.Repeat("2", 64), "RepoTags": []string{}, "RepoDigests": nil,
			"Created": int64(0), "Size": 123456789, "Containers": -1,
		},
	}
	sort.Slice(list, func(i, j int) bool {
		return list[i]["Created"].(int64) > list[j]["Created"].(int64)
	})
	answer(w, 200, list)
}

func (e *engine) pull(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("fromSrc") != "" {
		raw, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, `{"status":"sha256:%064d"}`, len(raw))
		return
	}
	if name := r.FormValue("fromImage"); name != "far" {
		fail(w, 404, "pull access denied for %s", name)
		return
	}
	if r.FormValue("tag") == "broken" {
		io.WriteString(
			w,
			`{"status":"Pulling","id":"broken"}`+
				`{"errorDetail":{"message":"layer is damaged"},"error":"layer is damaged"}`,
		)
		return
	}
	e.pulled = true
	io.WriteString(w, `{"status":"Pulling from far","id":"latest"}`+
		`{"status":"Pulling fs layer","progressDetail":{},"id":"aaaa"}`+
		`{"status":"Downloading","progressDetail":{"current":5,"total":10},"id":"aaaa"}`+
		`{"status":"Pull complete","progressDetail":{},"id":"aaaa"}{"status":"Digest: sha256:1"}`)
}
