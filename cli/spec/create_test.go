package spec_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"strake/cli/api"
	"strake/cli/internal/verbtest"
	"strake/cli/spec"
	"strake/internal/testneed"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// scenario is one command of testdata/create.txt.
type scenario struct{ command, want string }

func read(t *testing.T) (head string, list []scenario) {
	t.Helper()
	raw, err := os.ReadFile("testdata/create.txt")
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(raw), "$ ")
	for _, block := range strings.Split(rest, "\n$ ") {
		command, want, _ := strings.Cut(block, "\n")
		list = append(list, scenario{command, strings.TrimSpace(want)})
	}
	return head, list
}

// create does what the verbs do with flags.
func create(t *testing.T, command string) (*api.CreateRequest, error) {
	t.Helper()
	args := verbtest.Words(command)
	fs := pflag.NewFlagSet("create", pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.String("name", "", "")
	f := spec.Register(fs)
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	return f.Create(fs.Arg(0), fs.Args()[1:], spec.Source{
		LookupEnv: func(name string) (string, bool) {
			v, ok := map[string]string{"HOME": "/home/me"}[name]
			return v, ok
		},
		ReadFile: os.ReadFile,
		Dir:      "/work dir",
	})
}

func TestRequests(t *testing.T) {
	t.Parallel()
	head, list := read(t)
	var out strings.Builder
	out.WriteString(head)
	for _, s := range list {
		req, err := create(t, s.command)
		got := ""
		if err != nil {
			got = "error: " + err.Error()
		} else {
			var b bytes.Buffer
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			e.SetIndent("", "  ")
			if err := e.Encode(req); err != nil {
				t.Fatal(err)
			}
			got = strings.TrimSpace(b.String())
		}
		fmt.Fprintf(&out, "$ %s\n%s\n\n", s.command, got)
		if got != s.want && !*update {
			t.Errorf("%s\ngot:\n%s\nwant:\n%s", s.command, got, s.want)
		}
	}
	if *update {
		if err := os.WriteFile(
			"testdata/create.txt", []byte(strings.TrimSpace(out.String())+"\n"), 0o644,
		); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSameAsDocker compares the requests with those of Docker's own client, where there is one.
func TestSameAsDocker(t *testing.T) {
	t.Parallel()
	docker := testneed.Program(t, "docker", "docker.io")
	requests := make(chan map[string]any, 1)
	host := serve(t, requests)
	// Where ours differs, and why.
	different := map[string]string{
		"-v ./here": "the working directory is another one",
		"-e HOME":   "so is the environment",
		"host_ip=":  "Docker's client loses the address",
		"label:":    "we write the newer form",
	}
	config := t.TempDir()
	for _, s := range func() []scenario { _, l := read(t); return l }() {
		if strings.HasPrefix(s.want, "error:") || slices.ContainsFunc(
			keys(different), func(k string) bool { return strings.Contains(s.command, k) },
		) {
			continue
		}
		t.Run(s.command, func(t *testing.T) {
			args := verbtest.Words(s.command)
			cmd := exec.Command(docker, append([]string{"create"}, args...)...)
			cmd.Env = []string{"DOCKER_HOST=" + host, "DOCKER_CONFIG=" + config, "HOME=/home/me"}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("docker refuses it: %v: %s", err, out)
			}
			want := <-requests
			req, err := create(t, s.command)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := json.Marshal(req)
			if err != nil {
				t.Fatal(err)
			}
			var got map[string]any
			if err := json.Unmarshal(raw, &got); err != nil {
				t.Fatal(err)
			}
			normalize(got)
			normalize(want)
			if !reflect.DeepEqual(got, want) {
				g, _ := json.MarshalIndent(got, "", " ")
				w, _ := json.MarshalIndent(want, "", " ")
				t.Errorf("got:\n%s\ndocker's:\n%s", g, w)
			}
		})
	}
}

func keys(m map[string]string) []string {
	var l []string
	for k := range m {
		l = append(l, k)
	}
	return l
}

// serve is an engine that accepts every container and hands on its request.
func serve(t *testing.T, requests chan<- map[string]any) (host string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Api-Version", "1.50")
		w.Header().Set("Ostype", "linux")
	})
	mux.HandleFunc(
		"POST /{version}/containers/create",
		func(w http.ResponseWriter, r *http.Request) {
			var body map[string]any
			if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			requests <- body
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusCreated)
			io.WriteString(w, `{"Id":"0123456789abcdef","Warnings":[]}`)
		},
	)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return "tcp://" + l.Addr().String()
}

// normalize removes what says nothing: Docker's client writes every field, with the engine's
// defaults for some.
func normalize(m map[string]any) {
	host, _ := m["HostConfig"].(map[string]any)
	defaults := map[string]any{"MemorySwappiness": -1.0, "NetworkMode": "default"}
	for k, v := range defaults {
		if host[k] == v {
			delete(host, k)
		}
	}
	if p, _ := host["RestartPolicy"].(map[string]any); p["Name"] == "no" {
		delete(host, "RestartPolicy")
	}
	if size, _ := host["ConsoleSize"].([]any); len(size) == 2 && size[0] == 0.0 {
		delete(host, "ConsoleSize")
	}
	strip(m)
	// One network without wishes is said by the mode.
	if n, _ := m["NetworkingConfig"].(map[string]any); n != nil {
		if ends, _ := n["EndpointsConfig"].(map[string]any); len(ends) == 1 {
			for _, e := range ends {
				if e == nil || len(e.(map[string]any)) == 0 {
					delete(m, "NetworkingConfig")
				}
			}
		}
	}
}

// strip removes null, zero, false and empty from objects. Named things without content (ports,
// volumes, networks) stay.
func strip(m map[string]any) {
	for k, v := range m {
		switch v := v.(type) {
		case map[string]any:
			strip(v)
			if len(v) == 0 && !strings.ContainsAny(k, "/") {
				delete(m, k)
			}
		case []any:
			for _, e := range v {
				if o, ok := e.(map[string]any); ok {
					strip(o)
				}
			}
			if len(v) == 0 && k != "MaskedPaths" && k != "ReadonlyPaths" {
				delete(m, k)
			}
		case nil:
			delete(m, k)
		case string:
			if v == "" {
				delete(m, k)
			}
		case float64:
			if v == 0 {
				delete(m, k)
			}
		case bool:
			if !v {
				delete(m, k)
			}
		}
	}
}
