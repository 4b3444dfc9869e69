package docker

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"

	"strake/engine"
)

// createCases are the requests of testdata/create by their names.
func createCases(t *testing.T) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "create", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no requests: %v", err)
	}
	out := map[string][]byte{}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimSuffix(filepath.Base(f), ".json")] = raw
	}
	return out
}

// created sends a request to create a container and returns the specification that the engine got,
// or nil, and the answer.
func created(f *fakeBackend, v version, body string) (*engine.Spec, *httptest.ResponseRecorder) {
	f.engine.specs = nil
	w := httptest.NewRecorder()
	f.h.ServeHTTP(w, httptest.NewRequest(
		http.MethodPost, "/v"+v.String()+"/containers/create?name=/web", strings.NewReader(body),
	))
	if len(f.engine.specs) != 1 {
		return nil, w
	}
	return &f.engine.specs[0], w
}

// withoutFront is a specification without what the API keeps with it, unless that is asked for.
func withoutFront(t *testing.T, s engine.Spec, keep bool) string {
	t.Helper()
	if !keep {
		s.Front = nil
	}
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// TestCreateGolden compares the engine.Spec that becomes of each request of testdata/create, in
// every version of the API, with golden files. The front is in the golden file of the request
// "front" alone: it is the request itself as normalize and adapt leave it.
func TestCreateGolden(t *testing.T) {
	t.Parallel()
	for name, body := range createCases(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(then)
			var list []answer
			for v := mustVersion(MinVersion); v <= mustVersion(MaxVersion); v++ {
				spec, w := created(f, v, string(body))
				a := answer{first: v, last: v}
				if spec == nil {
					a.head = fmt.Sprintf("%d %s", w.Code, strings.TrimSpace(w.Body.String()))
				} else {
					var made container.CreateResponse
					if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil {
						t.Fatal(err)
					}
					a.head = fmt.Sprintf("%d %q", w.Code, made.Warnings)
					a.body = withoutFront(t, *spec, name == "front")
				}
				if n := len(list); n > 0 && list[n-1].head == a.head && list[n-1].body == a.body {
					list[n-1].last = v
					continue
				}
				list = append(list, a)
			}
			compareGolden(t, filepath.Join("testdata", "create", name+".golden"), golden(list))
		})
	}
}

// compareGolden compares a text with a file, which -update rewrites.
func compareGolden(t *testing.T, file, got string) {
	t.Helper()
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
		t.Errorf("%s differs; run go test -update and read the difference\ngot:\n%s", file, got)
	}
}

// set are the fields of a value, and of the structures in it that belong to the package of that
// value, which are not zero.
func set(v reflect.Value, at string, into map[string]bool) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			set(v.Elem(), at, into)
		}
	case reflect.Slice:
		for i := range v.Len() {
			set(v.Index(i), at, into)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			set(v.MapIndex(key), at, into)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if !field.IsExported() || v.Field(i).IsZero() {
				continue
			}
			name := strings.TrimPrefix(at+"."+field.Name, ".")
			into[name] = true
			set(v.Field(i), name, into)
		}
	}
}

// fields are the names of all fields of a type, as set has them.
func fields(t reflect.Type, at string, seen map[reflect.Type]bool) (names []string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || seen[t] {
		return nil
	}
	seen[t] = true
	defer delete(seen, t)
	for i := range t.NumField() {
		field := t.Field(i)
		if !field.IsExported() {
			continue
		}
		name := strings.TrimPrefix(at+"."+field.Name, ".")
		names = append(names, name)
		names = append(names, fields(field.Type, name, seen)...)
	}
	return names
}

// missingFields are the fields that no value has set and that no entry of without names, itself or
// as the structure around it.
func missingFields(t *testing.T, of reflect.Type, have map[string]bool, without []string) {
	t.Helper()
	used := map[string]bool{}
	for _, name := range fields(of, "", map[reflect.Type]bool{}) {
		i := slices.IndexFunc(without, func(w string) bool {
			return name == w || strings.HasPrefix(name, w+".")
		})
		if i >= 0 {
			used[without[i]] = true
		}
		switch {
		case have[name] && i >= 0 && name == without[i]:
			t.Errorf("%s of %v is covered: remove it from the exceptions", name, of)
		case !have[name] && i < 0:
			t.Errorf("no request of testdata/create covers %s of %v", name, of)
		}
	}
	for _, w := range without {
		if !used[w] {
			t.Errorf("%v has no field %s", of, w)
		}
	}
}

// TestCreateCoverage: each field of engine.Spec is set by a request of testdata/create, and each
// field of a request is in one, but for those that are listed here. A field that comes to either
// needs a request.
func TestCreateCoverage(t *testing.T) {
	t.Parallel()
	f := newFake(then)
	specs, requests := map[string]bool{}, map[string]bool{}
	for name, body := range createCases(t) {
		var req container.CreateRequest
		if err := json.Unmarshal(body, &req); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		set(reflect.ValueOf(req), "", requests)
		for v := mustVersion(MinVersion); v <= mustVersion(MaxVersion); v++ {
			if spec, _ := created(f, v, string(body)); spec != nil {
				set(reflect.ValueOf(*spec), "", specs)
			}
		}
	}
	missingFields(t, reflect.TypeFor[engine.Spec](), specs, []string{
		"RootFS",            // a directory of the host: not of this API
		"Resources.Devices", // the engine makes them of Devices and DeviceRules
		"Resources.HugepageLimits", "Resources.Network", "Resources.Rdma", "Resources.Unified",
		"Resources.BlockIO.LeafWeight", "Resources.BlockIO.WeightDevice.LeafWeight",
		"Resources.CPU.Burst", "Resources.CPU.Idle",
		"Resources.Memory.CheckBeforeUpdate", "Resources.Memory.Kernel",
		"Resources.Memory.KernelTCP", "Resources.Memory.UseHierarchy",
	})
	const end = "NetworkingConfig.EndpointsConfig."
	missingFields(t, reflect.TypeFor[container.CreateRequest](), requests, []string{
		// Refused or without a meaning here: errors.txt has the refusals.
		"HostConfig.VolumesFrom", "HostConfig.Links", "HostConfig.StorageOpt",
		"HostConfig.Resources.DeviceRequests", "HostConfig.Isolation", "HostConfig.Cgroup",
		"HostConfig.Mounts.ImageOptions", "HostConfig.Mounts.ClusterOptions",
		"HostConfig.Mounts.Consistency",
		// Of Windows.
		"HostConfig.Resources.CPUCount", "HostConfig.Resources.CPUPercent",
		"HostConfig.Resources.IOMaximumIOps", "HostConfig.Resources.IOMaximumBandwidth",
		"Config.ArgsEscaped",
		// Of clients, and of images.
		"HostConfig.ContainerIDFile", "Config.AttachStdin", "Config.AttachStdout",
		"Config.AttachStderr", "Config.OnBuild", "Config.Shell",
		// What inspect shows of a place in a network; clients send it back.
		end + "NetworkID", end + "EndpointID", end + "Gateway", end + "IPAddress",
		end + "IPPrefixLen", end + "IPv6Gateway", end + "GlobalIPv6Address",
		end + "GlobalIPv6PrefixLen", end + "DNSNames",
		end + "Links", end + "IPAMConfig.LinkLocalIPs",
	})
}

// TestCreateCgroups: the default of the namespace of control groups was, until 1.40, that of the
// host's version.
func TestCreateCgroups(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cgroups    string
		v          version
		privileged bool
		want       string
	}{
		{"1", 40, false, "host"}, {"1", 41, false, "private"}, {"2", 40, false, "private"},
		{"2", 56, false, "private"}, {"1", 56, true, "host"}, {"2", 40, true, "host"},
	} {
		req := container.CreateRequest{
			Config:     &container.Config{},
			HostConfig: &container.HostConfig{Privileged: c.privileged},
		}
		normalize(&req, c.v, c.cgroups)
		if got := string(req.HostConfig.CgroupnsMode); got != c.want {
			t.Errorf(
				"version %s of control groups, API %s, privileged %t: got %s, want %s",
				c.cgroups, c.v, c.privileged, got, c.want,
			)
		}
	}
}
