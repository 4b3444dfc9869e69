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
	"strake/image"
	"strake/volume"
)

var update = flag.Bool(
	"update", false, "rewrite the golden files; read the difference before you commit it",
)

// then is when everything in these tests happened.
var then = time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)

// stillEngine has one container, of which nothing ever changes.
type stillEngine struct {
	Engine
	info engine.Info
}

func (e *stillEngine) List(context.Context) ([]engine.Info, error) {
	return []engine.Info{e.info}, nil
}
func (e *stillEngine) Inspect(context.Context, string) (engine.Info, error) {
	return e.info, nil
}
func (e *stillEngine) Usage(context.Context, string) (rw, root int64, err error) {
	return 10, 1000, nil
}
func (e *stillEngine) Stats(context.Context, string) (engine.Stats, error) {
	return engine.Stats{
		Time: then,
		CPU: engine.CPUStats{
			TotalNanos: 5, UserNanos: 3, KernelNanos: 2, SystemNanos: 100, OnlineCPUs: 2,
		},
		Memory: engine.MemoryStats{
			Usage: 11, Limit: 12, MaxUsage: 13, Stat: map[string]uint64{"cache": 1},
		},
		Pids: 4, PidsMax: 9,
		IO:       []engine.IOEntry{{Major: 8, Op: "read", Bytes: 512, Count: 1}},
		Networks: map[string]engine.NetworkStats{"eth0": {RxBytes: 1, TxBytes: 2}},
	}, nil
}
func (e *stillEngine) Events(engine.EventQuery) ([]engine.Event, <-chan engine.Event, func()) {
	live := make(chan engine.Event)
	close(live)
	return []engine.Event{
		{
			Type: "container", Action: "start", ID: e.info.ID,
			Attributes: map[string]string{"image": "one", "name": "web"}, Time: then,
		},
	}, live, func() {}
}

// stillNetworks has the bridge and another one.
type stillNetworks struct{ Networks }

func (stillNetworks) List(context.Context) ([]NetworkInfo, error) {
	return []NetworkInfo{{ID: strings.Repeat("d", 64), Created: then, NetworkSpec: NetworkSpec{
		Name: "net", Driver: "bridge",
		Subnets: []netip.Prefix{
			netip.MustParsePrefix("172.18.0.0/16"), netip.MustParsePrefix("fd01::/64"),
			netip.MustParsePrefix("fd02::/48"),
		},
		Gateways: []netip.Addr{
			netip.MustParseAddr("172.18.0.1"), netip.MustParseAddr("fd01::1"),
			netip.MustParseAddr("fd02::1"),
		},
		IPRanges: []netip.Prefix{netip.MustParsePrefix("172.18.5.0/24")}, EnableIPv6: true,
		Reserved: []map[string]netip.Addr{{"router": netip.MustParseAddr("172.18.5.254")}},
	}}, {ID: strings.Repeat("b", 64), Created: then, NetworkSpec: NetworkSpec{
		Name: "bridge", Driver: "bridge",
		Subnets: []netip.Prefix{
			netip.MustParsePrefix("172.17.0.0/16"), netip.MustParsePrefix("fd00::/64"),
		},
		Gateways:   []netip.Addr{netip.MustParseAddr("172.17.0.1"), netip.MustParseAddr("fd00::1")},
		EnableIPv6: true,
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
	id, err := images.Import(t.Context(), strings.NewReader(
		strings.Repeat("\x00", 1024),
	), image.ImportOptions{
		Ref: "one:latest", Created: then,
		Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		Config: image.RunConfig{
			ImageConfig: ocispec.ImageConfig{Cmd: []string{"sh"}, Env: []string{"PATH=/bin"}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	volumes, err := volume.Open(volume.Config{Root: filepath.Join(dir, "volumes")})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := volumes.Create(
		volume.CreateOptions{Name: "data", Labels: map[string]string{"k": "v"}},
	); err != nil {
		t.Fatal(err)
	}
	data, err := volumes.Get("data")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data.Path, "file"), []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(
		filepath.Join(data.Path, "file"), filepath.Join(data.Path, "again"),
	); err != nil {
		t.Fatal(err)
	}
	return Handler(Backend{
		Engine: &stillEngine{info: stillInfo(t, id.String())},
		Images: images, Networks: stillNetworks{},
		Volumes: volumes, Log: slog.New(slog.DiscardHandler),
		Version: "0.0.0", Name: "host", Root: "/data", LogDriver: "json-file",
	})
}

// stillInfo is the container of still.
func stillInfo(t *testing.T, imageID string) engine.Info {
	t.Helper()
	umask := uint32(0o77)
	f, err := json.Marshal(front{
		&container.Config{
			Image: "one", Cmd: []string{"httpd"}, Labels: map[string]string{"a": "b"},
		},
		&container.HostConfig{
			NetworkMode: "net", Annotations: map[string]string{"note": "x"}, Umask: &umask,
		},
		&network.NetworkingConfig{
			EndpointsConfig: map[string]*network.EndpointSettings{
				"net": {MacAddress: network.HardwareAddr{2, 0x42, 0xac, 0x12, 0, 2}},
			},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return engine.Info{
		ID: strings.Repeat("c", 64), Created: then, ImageID: imageID, Path: "httpd",
		Spec: engine.Spec{
			Name: "web", Image: "one", Network: "net", Labels: map[string]string{"a": "b"},
			Front: f,
			Endpoints: map[string]engine.EndpointSpec{
				"net": {Aliases: []string{"www"}, MAC: "02:42:ac:12:00:02"}, "bridge": {},
			},
		},
		State: engine.State{Status: engine.Running, Pid: 77, StartedAt: then},
		Networks: map[string]engine.EndpointInfo{"bridge": {
			NetworkID: strings.Repeat("b", 64), EndpointID: strings.Repeat("e", 64),
			IPv4: netip.MustParsePrefix("172.17.0.2/16"), IPv6: netip.MustParsePrefix("fd00::2/64"),
			GatewayIPv4: netip.MustParseAddr("172.17.0.1"),
			GatewayIPv6: netip.MustParseAddr("fd00::1"), MAC: "02:42:ac:11:00:02",
		}, "net": {
			NetworkID: strings.Repeat("d", 64), EndpointID: strings.Repeat("f", 64),
			IPv4: netip.MustParsePrefix("172.18.0.2/16"), MAC: "02:42:ac:12:00:02",
			Aliases: []string{"www"}, DNSNames: []string{"web", "www", "cccccccccccc"},
		}},
		Ports: []engine.BoundPort{
			{
				Proto: "tcp", ContainerPort: 80, HostIP: netip.MustParseAddr("0.0.0.0"),
				HostPort: 8080,
			},
		},
	}
}

// varying is what differs from machine to machine and from run to run, by the name of the golden
// file; "" is for all of them.
var varying = map[string]*regexp.Regexp{
	"": regexp.MustCompile(
		`"(Status|LastTagTime|CreatedAt|UpperDir|Mountpoint)":("Up [^"]*"|"20[^"]*"|"/[^"]*")`,
	),
	"version": regexp.MustCompile(`"(KernelVersion|Arch|GoVersion)":("[^"]*")`),
	"info": regexp.MustCompile(`"(KernelVersion|OperatingSystem|Architecture|NCPU|MemTotal|` +
		`NGoroutines|NFd|SystemTime|CgroupVersion|OomKillDisable|SecurityOptions)":` +
		`("[^"]*"|\[[^]]*\]|[0-9]+|true|false)`),
}

// answer is what an endpoint answers in the versions from first to last: a line about the form, and
// the body.
type answer struct {
	first, last version
	head, body  string
}

// answers asks for a path in every version.
func answers(t *testing.T, h http.Handler, name, path string) (list []answer) {
	t.Helper()
	for v := mustVersion(MinVersion); v <= mustVersion(MaxVersion); v++ {
		w := httptest.NewRecorder()
		h.ServeHTTP(
			w,
			httptest.NewRequest(
				http.MethodGet,
				"/v"+v.String()+strings.NewReplacer(
					"{", "%7B", "}", "%7D", `"`, "%22",
				).Replace(path),
				nil,
			),
		)
		kind := w.Header().Get("Content-Type")
		head, body := fmt.Sprintf("%d %s", w.Code, kind), ""
		if strings.Contains(kind, "json") {
			body = strings.TrimSpace(w.Body.String())
			for _, key := range []string{"", name} {
				if re := varying[key]; re != nil {
					body = re.ReplaceAllString(body, `"$1":"*"`)
				}
			}
			if !json.Valid([]byte(body)) {
				t.Fatalf("%s: no JSON: %s", v, body)
			}
		}
		if n := len(list); n > 0 && list[n-1].head == head && list[n-1].body == body {
			list[n-1].last = v
			continue
		}
		list = append(list, answer{v, v, head, body})
	}
	return list
}

// golden writes the first answer out, and of each later one what is not as in the one before it.
func golden(list []answer) string {
	var out strings.Builder
	for i, a := range list {
		fmt.Fprintf(&out, "== %s to %s: %s\n", a.first, a.last, a.head)
		if i == 0 {
			var b bytes.Buffer
			if a.body != "" && json.Indent(&b, []byte(a.body), "", "  ") == nil {
				out.WriteString(b.String() + "\n")
			}
			continue
		}
		was, is := leaves(list[i-1].body), leaves(a.body)
		gone := ""
		for _, key := range sortedKeys(was) {
			if is[key] == was[key] {
				continue
			}
			if above := goneWith(key, is); above == key {
				fmt.Fprintf(&out, "- %s: %s\n", key, was[key])
			} else if above != gone {
				fmt.Fprintf(&out, "- %s\n", above)
				gone = above
			}
		}
		for _, key := range sortedKeys(is) {
			if is[key] != was[key] {
				fmt.Fprintf(&out, "+ %s: %s\n", key, is[key])
			}
		}
	}
	return out.String()
}

// goneWith is the first part of a key below which there is nothing any more.
func goneWith(key string, is map[string]string) string {
	for i := range key {
		if i == 0 || key[i] != '.' && key[i] != '[' {
			continue
		}
		left := false
		for k := range is {
			left = left || k == key[:i] || strings.HasPrefix(k, key[:i]+".") ||
				strings.HasPrefix(k, key[:i]+"[")
		}
		if !left {
			return key[:i]
		}
	}
	return key
}

// leaves are the values of a JSON document, by where they are.
func leaves(text string) map[string]string {
	out := map[string]string{}
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, value := range v {
				walk(at+"."+key, value)
			}
			if len(v) > 0 {
				return
			}
		case []any:
			for i, value := range v {
				walk(fmt.Sprintf("%s[%d]", at, i), value)
			}
			if len(v) > 0 {
				return
			}
		}
		raw, err := json.Marshal(v)
		if err != nil {
			raw = []byte(err.Error())
		}
		out[strings.TrimPrefix(at, ".")] = string(raw)
	}
	var doc any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if d.Decode(&doc) == nil {
		walk("", doc)
	}
	return out
}

// TestGolden compares the answers of all versions with golden files.
func TestGolden(t *testing.T) {
	t.Parallel()
	h := still(t)
	for name, path := range map[string]string{
		"version": "/version", "info": "/info", "containers": "/containers/json?size=1",
		"container": "/containers/web/json?size=1", "events": "/events?since=1",
		"stats": "/containers/web/stats?stream=0&one-shot=1", "df": "/system/df",
		"df-verbose": "/system/df?verbose=1", "df-type": "/system/df?type=volume",
		"images": "/images/json", "image": "/images/one/json", "history": "/images/one/history",
		"network": "/networks/net", "networks": "/networks",
		"volumes": "/volumes", "annotation": `/containers/json?filters={"annotation":["note=x"]}`,
		"no-annotation": `/containers/json?filters={"annotation":["note=y"]}`,
		"attestations":  "/images/one/attestations", "identity": "/images/json?identity=1",
		"platform-get":     "/images/one/get?platform=linux/mips",
		"platform-get-two": "/images/one/get?platform=linux/amd64&platform=linux/mips",
		"platform-json":    "/images/one/json?platform=linux/mips",
		"platform-history": "/images/one/history?platform=linux/mips",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := golden(answers(t, h, name, path))
			file := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf(
					"%s differs; run go test -update and read the difference\ngot:\n%s", file, got,
				)
			}
		})
	}
}

// TestEventStreams: which form a stream of events has is the client's choice, as far as its version
// knows it.
func TestEventStreams(t *testing.T) {
	t.Parallel()
	h := still(t)
	for _, c := range []struct{ version, accept, want, first string }{
		{"1.51", "application/json-seq", "application/json", "{"},
		{"1.52", "", "application/x-ndjson", "{"}, {"1.52", "*/*", "application/x-ndjson", "{"},
		{"1.53", "", "application/jsonl", "{"},
		{
			"1.56", "application/x-ndjson;q=0.5, application/json-seq", "application/json-seq",
			"\x1e{",
		},
		{"1.56", "application/x-ndjson;q=0", "application/jsonl", "{"},
		{"1.56", "application/json", "application/jsonl", "{"},
		{"1.52", "application/json-seq;q=0.9", "application/json-seq", "\x1e{"},
		{"1.52", "text/html, application/x-ndjson", "application/x-ndjson", "{"},
		{"1.52", "application/jsonl", "application/x-ndjson", "{"},
		{"1.53", "application/jsonl", "application/jsonl", "{"},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/v"+c.version+"/events?since=1", nil)
		r.Header.Set("Accept", c.accept)
		h.ServeHTTP(w, r)
		if got := w.Header().Get("Content-Type"); got != c.want ||
			!strings.HasPrefix(w.Body.String(), c.first) ||
			!strings.HasSuffix(w.Body.String(), "}\n") {
			t.Errorf("%s, %q: %s, %q", c.version, c.accept, got, w.Body.String())
		}
	}
}
