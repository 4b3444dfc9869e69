package ocispec

import (
	"encoding/json"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestBlockIO(t *testing.T) {
	t.Parallel()
	at := func(minor int64, rate uint64) specs.LinuxThrottleDevice {
		return specs.LinuxThrottleDevice{
			LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 8, Minor: minor}, Rate: rate,
		}
	}
	weight := uint16(300)
	heavy := []specs.LinuxWeightDevice{
		{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 8, Minor: 1}, Weight: &weight},
	}
	old := &specs.LinuxBlockIO{
		Weight: &weight, WeightDevice: heavy,
		ThrottleReadBpsDevice:   []specs.LinuxThrottleDevice{at(1, 10), at(2, 20)},
		ThrottleWriteIOPSDevice: []specs.LinuxThrottleDevice{at(1, 7)},
	}
	for _, c := range []struct {
		name         string
		old, update  *specs.LinuxBlockIO
		merged, sent string
	}{
		{
			"one list", old,
			&specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{at(2, 5)}},
			`{"weight":300,"weightDevice":[{"major":8,"minor":1,"weight":300}],"throttleReadBpsDevice":[{"major":8,"minor":2,"rate":5}],"throttleWriteIOPSDevice":[{"major":8,"minor":1,"rate":7}]}`,
			`{"throttleReadBpsDevice":[{"major":8,"minor":2,"rate":5},{"major":8,"minor":1,"rate":0}]}`,
		},
		{
			"empty lists", old,
			&specs.LinuxBlockIO{
				WeightDevice:            []specs.LinuxWeightDevice{},
				ThrottleWriteIOPSDevice: []specs.LinuxThrottleDevice{},
			},
			`{"weight":300,"throttleReadBpsDevice":[{"major":8,"minor":1,"rate":10},{"major":8,"minor":2,"rate":20}]}`,
			`{"weightDevice":[{"major":8,"minor":1,"weight":100}],"throttleWriteIOPSDevice":[{"major":8,"minor":1,"rate":0}]}`,
		},
		{
			"nothing before", nil, &specs.LinuxBlockIO{Weight: &weight}, `{"weight":300}`,
			`{"weight":300}`,
		},
	} {
		merged, err := json.Marshal(MergeBlockIO(c.old, c.update))
		if err != nil || string(merged) != c.merged {
			t.Errorf("%s: merged %s, %v; want %s", c.name, merged, err, c.merged)
		}
		sent, err := json.Marshal(Lift(c.old, c.update))
		if err != nil || string(sent) != c.sent {
			t.Errorf("%s: sent %s, %v; want %s", c.name, sent, err, c.sent)
		}
	}
}
