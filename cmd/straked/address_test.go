package main

import (
	"fmt"
	"testing"
)

// TestStaticAddress: a container keeps its chosen address over restarts, and the address is there
// for the next container at once when it is removed.
func TestStaticAddress(t *testing.T) {
	r := newFaultRig(t)
	r.mustLaunch()
	r.must("POST", "/images/create?fromSrc=-&repo=faulty", tree(t, "base"))
	r.must("POST", "/networks/create", map[string]any{
		"Name": "fixed",
		"IPAM": map[string]any{"Config": []any{map[string]any{"Subnet": "10.77.9.0/24"}}},
	})
	const address = "10.77.9.9"
	has := func(name string) {
		t.Helper()
		if got := r.inspect(name).NetworkSettings.Networks["fixed"].IPAddress; got != address {
			t.Errorf("%s has %q, want %q", name, got, address)
		}
	}
	for i := range 10 {
		name := fmt.Sprintf("box%d", i)
		r.must("POST", "/containers/create?name="+name, map[string]any{
			"Image": "faulty", "Cmd": []string{"sh", "-c", "while true; do sleep 1000; done"},
			"HostConfig": map[string]any{"NetworkMode": "fixed"},
			"NetworkingConfig": map[string]any{"EndpointsConfig": map[string]any{
				"fixed": map[string]any{"IPAMConfig": map[string]any{"IPv4Address": address}},
			}},
		})
		r.must("POST", "/containers/"+name+"/start", nil)
		has(name)
		for range 2 {
			r.must("POST", "/containers/"+name+"/restart?t=0", nil)
			has(name)
		}
		r.must("DELETE", "/containers/"+name+"?force=1", nil)
	}
}
