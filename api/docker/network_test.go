package docker

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
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
