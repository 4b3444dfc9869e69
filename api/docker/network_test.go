package docker

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"strake/engine"
)

// networkNamed inspects a network and returns its name and ID.
func networkNamed(t *testing.T, f *fakeBackend, ref string) (name, id string) {
	t.Helper()
	w := httptest.NewRecorder()
	f.h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/networks/"+ref, nil))
	var n struct{ Name, Id string }
	if err := json.Unmarshal(w.Body.Bytes(), &n); err != nil || w.Code != http.StatusOK {
		t.Fatalf("network %s: %d %s, %v", ref, w.Code, w.Body, err)
	}
	return n.Name, n.Id
}

// TestNetworkIDs: clients print the first twelve digits of an ID and look networks up by them; and
// a network whose name looks like the ID of another one does not hide it.
func TestNetworkIDs(t *testing.T) {
	t.Parallel()
	f := newFake(then)
	for _, name := range []string{"host", "none"} {
		_, id := networkNamed(t, f, name)
		if len(id) != 64 {
			t.Errorf("%s: got the ID %q, want 64 digits", name, id)
		}
		if got, _ := networkNamed(t, f, id[:12]); got != name {
			t.Errorf("%s: got %s by the ID %s", name, got, id[:12])
		}
	}
	bridge := strings.Repeat("b", 64)
	f.b.Networks = namedLikeID{f.b.Networks.(fakeNetworks), bridge}
	f.h = http.HandlerFunc(newServer(f.b, testHost).serve)
	if got, _ := networkNamed(t, f, bridge); got != "bridge" {
		t.Errorf("got %s by the ID of the bridge", got)
	}
}

// onceConnected is an engine whose containers are in the network net.
type onceConnected struct {
	*fakeEngine
	in map[string]bool
}

func (e *onceConnected) ConnectNetwork(
	ctx context.Context, name, network string, ep engine.EndpointSpec,
) error {
	if e.in[name] {
		return conflict("endpoint with name %s already exists in network %s", name, network)
	}
	e.in[name] = true
	return e.fakeEngine.ConnectNetwork(ctx, name, network, ep)
}

func (e *onceConnected) DisconnectNetwork(ctx context.Context, name, network string) error {
	delete(e.in, name)
	return e.fakeEngine.DisconnectNetwork(ctx, name, network)
}

// TestConnectAgain: a second connect replaces what a container that does not run asks of a network,
// and is an error if it runs.
func TestConnectAgain(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int{
		"created": 200, "exited": 200, "running": 409, "paused": 409,
	} {
		f := newFake(then)
		for i := range f.engine.list {
			f.engine.list[i].Spec.Endpoints = map[string]engine.EndpointSpec{"net": {}}
		}
		f.b.Engine = &onceConnected{f.engine, map[string]bool{name: true}}
		f.h = http.HandlerFunc(newServer(f.b, testHost).serve)
		got := exchange(
			f, "POST", "/networks/net/connect",
			`{"Container":"`+name+`","EndpointConfig":{"Aliases":["a"]}}`, nil,
		)
		if !strings.Contains(got, strconv.Itoa(want)) {
			t.Errorf("%s: got %s, want %d", name, got, want)
		}
		if again := strings.Contains(got, `{"aliases":["a"]}`); again != (want == 200) {
			t.Errorf("%s: got %s", name, got)
		}
	}
}
