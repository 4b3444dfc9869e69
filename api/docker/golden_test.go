package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"strake/engine"
	"strake/engine/volume"
	"strake/image"
)

var update = flag.Bool("update", false, "rewrite the golden files; read the difference before you commit it")

// then is when everything in these tests happened.
var then = time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)

// stillEngine has one container, of which nothing ever changes.
type stillEngine struct {
	Engine
	info engine.Info
}

func (e *stillEngine) List(context.Context) ([]engine.Info, error) { return []engine.Info{e.info}, nil }
func (e *stillEngine) Inspect(context.Context, string) (engine.Info, error) {
	return e.info, nil
}
func (e *stillEngine) Usage(context.Context, string) (rw, root int64, err error) {
	return 10, 1000, nil
}
func (e *stillEngine) Stats(context.Context, string) (engine.Stats, error) {
	return engine.Stats{
		Time: then, CPU: engine.CPUStats{TotalNanos: 5, UserNanos: 3, KernelNanos: 2, SystemNanos: 100, OnlineCPUs: 2},
		Memory: engine.MemoryStats{Usage: 11, Limit: 12, MaxUsage: 13, Stat: map[string]uint64{"cache": 1}}, Pids: 4, PidsMax: 9,
		IO: []engine.IOEntry{{Major: 8, Op: "read", Bytes: 512, Count: 1}}, Networks: map[string]engine.NetworkStats{"eth0": {RxBytes: 1, TxBytes: 2}},
	}, nil
}
func (e *stillEngine) Events(engine.EventQuery) ([]engine.Event, <-chan engine.Event, func()) {
	live := make(chan engine.Event)
	close(live)
	return []engine.Event{{Type: "container", Action: "start", ID: e.info.ID, Attributes: map[string]string{"image": "one", "name": "web"}, Time: then}}, live, func() {}
}

// stillNetworks has the bridge.
type stillNetworks struct{ Networks }

func (stillNetworks) List(context.Context) ([]NetworkInfo, error) {
	return []NetworkInfo{{ID: strings.Repeat("b", 64), Created: then, NetworkSpec: NetworkSpec{
		Name: "bridge", Driver: "bridge", Subnets: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16"), netip.MustParsePrefix("fd00::/64")},
		Gateways: []netip.Addr{netip.MustParseAddr("172.17.0.1"), netip.MustParseAddr("fd00::1")}, EnableIPv6: true,
	}}}, nil
}

// still is an API over things that do not change.
func still(t *testing.T) http.Handler {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: layers keep owners")
	}
	dir := t.TempDir()
	images, err := image.Open(image.Config{Root: filepath.Join(dir, "image")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { images.Close() })
	id, err := images.Import(t.Context(), strings.NewReader(strings.Repeat("\x00", 1024)), image.ImportOptions{
		Ref: "one:latest", Created: then, Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, Config: image.RunConfig{ImageConfig: ocispec.ImageConfig{Cmd: []string{"sh"}, Env: []string{"PATH=/bin"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	volumes, err := volume.Open(volume.Config{Root: filepath.Join(dir, "volumes")})
	if err != nil {
		t.Fatal(err)
	}
	umask := uint32(0o77)
	f, err := json.Marshal(front{
		&container.Config{Image: "one", Cmd: []string{"httpd"}, Labels: map[string]string{"a": "b"}},
		&container.HostConfig{NetworkMode: "bridge", Annotations: map[string]string{"note": "x"}, Umask: &umask}, &network.NetworkingConfig{},
	})
	if err != nil {
		t.Fatal(err)
	}
	info := engine.Info{
		ID: strings.Repeat("c", 64), Created: then, ImageID: id.String(), Path: "httpd",
		Spec:  engine.Spec{Name: "web", Image: "one", Network: "bridge", Labels: map[string]string{"a": "b"}, Front: f},
		State: engine.State{Status: engine.Running, Pid: 77, StartedAt: then},
		Networks: map[string]engine.EndpointInfo{"bridge": {
			NetworkID: strings.Repeat("b", 64), EndpointID: strings.Repeat("e", 64), IPv4: netip.MustParsePrefix("172.17.0.2/16"), IPv6: netip.MustParsePrefix("fd00::2/64"),
			GatewayIPv4: netip.MustParseAddr("172.17.0.1"), GatewayIPv6: netip.MustParseAddr("fd00::1"), MAC: "02:42:ac:11:00:02",
		}},
		Ports: []engine.BoundPort{{Proto: "tcp", ContainerPort: 80, HostIP: netip.MustParseAddr("0.0.0.0"), HostPort: 8080}},
	}
	return Handler(Backend{
		Engine: &stillEngine{info: info}, Images: images, Networks: stillNetworks{}, Volumes: volumes, Log: slog.New(slog.DiscardHandler),
		Version: "0.0.0", Name: "host", Root: "/data", LogDriver: "json-file",
	})
}

// machineBound is what differs from machine to machine and from run to run.
var machineBound = regexp.MustCompile(`"(KernelVersion|OperatingSystem|Architecture|Arch|NCPU|MemTotal|NGoroutines|NFd|SystemTime|GoVersion|CgroupVersion|OomKillDisable|LastTagTime|SecurityOptions|LayersSize|TotalSize|Size|SharedSize|Reclaimable|Status|UpperDir|LowerDir)":("[^"]*"|\[[^]]*\]|[0-9]+|true|false)`)

// TestGolden compares answers of the versions whose forms differ with golden files. A file has every answer once, with the versions that give it.
func TestGolden(t *testing.T) {
	t.Parallel()
	h := still(t)
	versions := []string{"1.24", "1.40", "1.44", "1.50", "1.51", "1.52", "1.53", "1.56"}
	for name, path := range map[string]string{
		"version": "/version", "info": "/info", "containers": "/containers/json?size=1", "container": "/containers/web/json?size=1", "events": "/events?since=1",
		"stats": "/containers/web/stats?stream=0&one-shot=1", "df": "/system/df", "df-verbose": "/system/df?verbose=1", "images": "/images/json", "image": "/images/one/json",
		"history": "/images/one/history", "network": "/networks/bridge", "networks": "/networks", "volumes": "/volumes", "annotation": `/containers/json?filters={"annotation":["note=x"]}`,
		"no-annotation": `/containers/json?filters={"annotation":["note=y"]}`, "attestations": "/images/one/attestations", "other-platform": "/images/one/get?platform=linux/mips",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var answers, given []string
			for _, v := range versions {
				w := httptest.NewRecorder()
				r := httptest.NewRequest(http.MethodGet, "/v"+v+strings.NewReplacer("{", "%7B", "}", "%7D", `"`, "%22").Replace(path), nil)
				h.ServeHTTP(w, r)
				body := machineBound.ReplaceAllString(strings.TrimSpace(w.Body.String()), `"$1":"*"`)
				var b bytes.Buffer
				if err := json.Indent(&b, []byte(body), "", "  "); err != nil {
					t.Fatalf("%s: %v: %s", v, err, body)
				}
				answer := fmt.Sprintf("%d %s\n%s\n", w.Code, w.Header().Get("Content-Type"), b.String())
				if n := len(answers); n > 0 && answers[n-1] == answer {
					given[n-1] += " " + v
				} else {
					answers, given = append(answers, answer), append(given, v)
				}
			}
			var got strings.Builder
			for i := range answers {
				fmt.Fprintf(&got, "== %s: %s", given[i], answers[i])
			}
			file := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.MkdirAll("testdata", 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Errorf("%s differs; run go test -update and read the difference\ngot:\n%s", file, got.String())
			}
		})
	}
}

// TestEventStreams: which form a stream of events has is the client's choice, as far as its version knows it.
func TestEventStreams(t *testing.T) {
	t.Parallel()
	h := still(t)
	for _, c := range []struct{ version, accept, want, first string }{
		{"1.51", "application/json-seq", "application/json", "{"}, {"1.52", "", "application/json", "{"}, {"1.52", "*/*", "application/json", "{"},
		{"1.52", "application/json-seq;q=0.9", "application/json-seq", "\x1e{"}, {"1.52", "text/html, application/x-ndjson", "application/x-ndjson", "{"},
		{"1.52", "application/jsonl", "application/json", "{"}, {"1.53", "application/jsonl", "application/jsonl", "{"},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/v"+c.version+"/events?since=1", nil)
		r.Header.Set("Accept", c.accept)
		h.ServeHTTP(w, r)
		if got := w.Header().Get("Content-Type"); got != c.want || !strings.HasPrefix(w.Body.String(), c.first) || !strings.HasSuffix(w.Body.String(), "}\n") {
			t.Errorf("%s, %q: %s, %q", c.version, c.accept, got, w.Body.String())
		}
	}
}
