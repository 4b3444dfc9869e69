package ocispec

import (
	"reflect"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestRlimits(t *testing.T) {
	t.Parallel()
	files := func(soft, hard uint64) specs.POSIXRlimit {
		return specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: soft, Hard: hard}
	}
	core := specs.POSIXRlimit{Type: "RLIMIT_CORE"}
	for _, tt := range []struct {
		name               string
		wanted, configured []specs.POSIXRlimit
		engine             uint64
		want               []specs.POSIXRlimit
	}{
		{"nothing said", nil, nil, ^uint64(0), []specs.POSIXRlimit{files(1024, 524288)}},
		{"not more than the engine has", nil, nil, 20000, []specs.POSIXRlimit{files(1024, 20000)}},
		{"an engine with little", nil, nil, 256, []specs.POSIXRlimit{files(256, 256)}},
		{
			"configured", nil, []specs.POSIXRlimit{files(5, 6), core}, 100,
			[]specs.POSIXRlimit{files(5, 6), core},
		},
		{
			"of the container", []specs.POSIXRlimit{files(7, 8)},
			[]specs.POSIXRlimit{files(5, 6), core}, 100, []specs.POSIXRlimit{files(7, 8), core},
		},
		{
			"of the container, another", []specs.POSIXRlimit{core}, nil, 5000,
			[]specs.POSIXRlimit{core, files(1024, 5000)},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := MergeRlimits(
				tt.wanted, DefaultRlimits(tt.configured, tt.engine),
			); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	for _, bad := range [][]specs.POSIXRlimit{{files(2, 1)}, {files(1, 2), files(1, 2)}} {
		if err := CheckRlimits(bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}
