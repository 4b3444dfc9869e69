package plan

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestNetDevices: devices are asked for once, after the network namespace is there and before
// anything in it is set, and names that are none are refused.
func TestNetDevices(t *testing.T) {
	t.Parallel()
	with := func(opt Options, devices map[string]specs.LinuxNetDevice) (*Plan, error) {
		s := base()
		s.Linux.NetDevices = devices
		opt.Host.LastCap = 40
		return Init(s, opt)
	}
	good := map[string]specs.LinuxNetDevice{"eth1": {Name: "eth0"}, "eth0": {Name: "eth1"}}
	p, err := with(Options{Assist: true}, good)
	if err != nil {
		t.Fatal(err)
	}
	if p.Assists[0].Kind != MoveDevices || p.Assists[0].Continue != 1 {
		t.Errorf("got %+v", p.Assists)
	}
	p, err = with(Options{Assist: true, TaskPaths: []string{"tasks"}}, good)
	if err != nil || p.Assists[0].Continue != 2 {
		t.Errorf("groups are entered late: %v, %+v", err, p.Assists)
	}
	if _, err := with(Options{}, good); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("without a spawner that helps: %v", err)
	}
	for field, devices := range map[string]map[string]specs.LinuxNetDevice{
		"linux.netDevices[eth1]":             {"eth0": {}, "eth1": {Name: "eth0"}},
		"linux.netDevices[a/b]":              {"a/b": {}},
		"linux.netDevices[]":                 {"": {Name: "eth0"}},
		"linux.netDevices[a]":                {"a": {Name: "sixteen-and-more"}},
		"linux.netDevices[b]":                {"b": {Name: "eth%d"}},
		"linux.netDevices[.]":                {".": {}},
		"linux.netDevices[two words]":        {"two words": {}},
		"linux.netDevices[sixteen-and-more]": {"sixteen-and-more": {Name: "a"}},
	} {
		_, err := with(Options{Assist: true}, devices)
		if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.HasPrefix(err.Error(), field) {
			t.Errorf("%v: got %v, want %s", devices, err, field)
		}
	}
	s := base()
	s.Linux.NetDevices = good
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(ns specs.LinuxNamespace) bool {
		return ns.Type == specs.NetworkNamespace
	})
	if _, err := Init(s, Options{Assist: true}); err == nil ||
		!strings.HasPrefix(err.Error(), "linux.netDevices: unable to move network devices") {
		t.Errorf("in the host's network: %v", err)
	}
}
