package docker

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"

	"strake/engine"
)

// inspectedOf creates a container with a request, gives the engine's container of that name what
// the API keeps with it, and inspects it.
func inspectedOf(
	t *testing.T, f *fakeBackend, name, request string, change func(*engine.Info),
) container.InspectResponse {
	t.Helper()
	spec, w := created(f, mustVersion(MaxVersion), request)
	if spec == nil {
		t.Fatalf("create %s: %s", request, w.Body)
	}
	for i := range f.engine.list {
		info := &f.engine.list[i]
		if info.Spec.Name != name {
			continue
		}
		info.Spec = *spec
		info.Spec.Name = name
		if change != nil {
			change(info)
		}
	}
	var out container.InspectResponse
	w = httptest.NewRecorder()
	f.h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/containers/"+name+"/json", nil))
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != http.StatusOK {
		t.Fatalf("inspect: %d %s, %v", w.Code, w.Body, err)
	}
	return out
}

// TestInspectInForce: inspect shows the defaults that hold, where clients read them
// (docker-py's containers.run reads LogConfig.Type to decide whether there are logs).
func TestInspectInForce(t *testing.T) {
	t.Parallel()
	out := inspectedOf(
		t, newFake(then), "running",
		`{"Image":"one","HostConfig":{"PidsLimit":-1,"MemorySwappiness":-1,
			"Binds":["/a:/a","/b:/b:ro,rslave","v:/v/"],
			"Mounts":[{"Type":"volume","Target":"/w/"}]}}`,
		func(info *engine.Info) {
			info.Mounts = []engine.MountInfo{
				{Type: "bind", Source: "/a", Destination: "/a"},
				{Type: "bind", Source: "/b", Destination: "/b", Propagation: "rslave"},
				{Type: "volume", Name: "v", Destination: "/v"},
				{Type: "volume", Name: "w", Destination: "/w"},
				{Type: "volume", Name: "image", Destination: "/image"},
				{Type: "tmpfs", Destination: "/t"},
			}
		},
	)
	h := out.HostConfig
	if h.LogConfig.Type != "json-file" || h.LogConfig.Config == nil || h.Runtime != "strake" {
		t.Errorf("got log %+v, runtime %q", h.LogConfig, h.Runtime)
	}
	if h.PidsLimit != nil || h.MemorySwappiness != nil {
		t.Errorf("got limits %v and %v, want none", h.PidsLimit, h.MemorySwappiness)
	}
	var got, modes []string
	for _, m := range out.Mounts {
		got, modes = append(got, string(m.Propagation)), append(modes, m.Mode)
	}
	if want := []string{"", "ro,rslave", "z", "z", "", ""}; !reflect.DeepEqual(modes, want) {
		t.Errorf("modes: got %q, want %q", modes, want)
	}
	if want := []string{"rprivate", "rslave", "", "", "", ""}; !reflect.DeepEqual(got, want) {
		t.Errorf("propagation: got %q, want %q", got, want)
	}
}

// TestInspectEnv: the environment is shown as it was asked for, followed by the image's.
func TestInspectEnv(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, env    string
		image        []string
		withoutImage bool
		want         []string
	}{
		{"of the image", `[]`, []string{"PATH=/bin", "A=1"}, false, []string{"PATH=/bin", "A=1"}},
		{"name alone", `["B=2","A"]`, []string{"PATH=/bin", "A=1"}, false,
			[]string{"B=2", "A", "PATH=/bin"}},
		{"image gone", `["B=2","A"]`, nil, true, []string{"B=2", "A", "PATH=/bin"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(then)
			f.images.env = c.image
			out := inspectedOf(
				t, f, "exited", `{"Image":"one","Env":`+c.env+`}`,
				func(info *engine.Info) {
					info.Env = []string{"PATH=/bin", "HOSTNAME=h", "TERM=xterm", "B=2"}
					if c.withoutImage {
						f.failures["images.Inspect"] = missing("image", "one")
					}
				},
			)
			if !reflect.DeepEqual(out.Config.Env, c.want) {
				t.Errorf("got %q, want %q", out.Config.Env, c.want)
			}
		})
	}
}

// TestCreateEnv: variables without a name are refused in dockerd's words.
func TestCreateEnv(t *testing.T) {
	t.Parallel()
	for env, want := range map[string]string{
		"": "invalid environment variable: ", "=": "invalid environment variable: =",
		"=x": "invalid environment variable: =x", "A": "", "A=": "",
	} {
		raw, err := json.Marshal(map[string]any{"Image": "one", "Env": []string{env}})
		if err != nil {
			t.Fatal(err)
		}
		spec, w := created(newFake(then), mustVersion(MaxVersion), string(raw))
		if want == "" && spec == nil {
			t.Errorf("%q: got %s, want it accepted", env, w.Body)
		}
		if want != "" && (w.Code != http.StatusBadRequest ||
			!strings.Contains(w.Body.String(), `"`+want+`"`)) {
			t.Errorf("%q: got %d %s, want 400 %q", env, w.Code, w.Body, want)
		}
	}
}

// TestInspectNetworks: a container that does not run is shown with all its networks, and one that
// runs with what it asked for beside what it has.
func TestInspectNetworks(t *testing.T) {
	t.Parallel()
	const request = `{"Image":"one","HostConfig":{"NetworkMode":"one"},
		"NetworkingConfig":{"EndpointsConfig":{
			"one":{"IPAMConfig":{"IPv4Address":"10.1.0.9","LinkLocalIPs":["169.254.1.1"]},
				"Aliases":["a"],"MacAddress":"02:00:00:00:00:01"},
			"two":{"IPAMConfig":{}}}}}`
	addr := netip.MustParseAddr
	connected := map[string]engine.EndpointSpec{
		"one":   {IPv4: addr("10.1.0.9"), Aliases: []string{"a"}, MAC: "02:00:00:00:00:01"},
		"two":   {},
		"three": {IPv4: addr("10.3.0.9"), IPv6: addr("fd03::9"), Aliases: []string{"c"}},
	}
	for _, name := range []string{"created", "running"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := inspectedOf(t, newFake(then), name, request, func(info *engine.Info) {
				info.Spec.Endpoints = connected // as network connect leaves it
				info.Networks = nil
				if name == "running" {
					info.Networks = map[string]engine.EndpointInfo{"three": {
						NetworkID: "3", IPv4: netip.MustParsePrefix("10.3.0.9/16"),
						MAC: "02:00:00:00:00:03", Aliases: []string{"c"},
					}}
				}
			})
			nets := out.NetworkSettings.Networks
			if len(nets) != 3 {
				t.Fatalf("got %d networks, want 3: %v", len(nets), nets)
			}
			one := nets["one"]
			if one.IPAMConfig.IPv4Address != addr("10.1.0.9") ||
				len(one.IPAMConfig.LinkLocalIPs) != 1 ||
				!slices.Equal(one.Aliases, []string{"a"}) ||
				one.MacAddress.String() != "02:00:00:00:00:01" {
				t.Errorf("one: got %+v, %+v", one, one.IPAMConfig)
			}
			if two := nets["two"]; two.IPAMConfig == nil || two.IPAMConfig.IPv4Address.IsValid() {
				t.Errorf("two: got IPAMConfig %+v, want an empty one", two.IPAMConfig)
			}
			three := nets["three"]
			if three.IPAMConfig == nil || three.IPAMConfig.IPv4Address != addr("10.3.0.9") ||
				three.IPAMConfig.IPv6Address != addr("fd03::9") ||
				!reflect.DeepEqual(three.Aliases, []string{"c"}) {
				t.Errorf("three: got %+v, %+v", three, three.IPAMConfig)
			}
			if runs := three.IPAddress.IsValid(); runs != (name == "running") {
				t.Errorf("three: got the address %s of one that is %s", three.IPAddress, name)
			}
		})
	}
}

// TestInspectNetworkModes: modes without networks of one's own.
func TestInspectNetworkModes(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string][]string{
		"host": {"host"}, "none": {"none"}, "container:web": nil, "default": {"bridge"},
		"bridge": {"bridge"}, "net": {"net"},
	} {
		out := inspectedOf(
			t, newFake(then), "exited",
			`{"Image":"one","HostConfig":{"NetworkMode":"`+mode+`"}}`, nil,
		)
		if got := slices.Sorted(maps.Keys(out.NetworkSettings.Networks)); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", mode, got, want)
		}
	}
}
