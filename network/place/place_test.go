package place

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"

	"github.com/containerd/errdefs"
)

// TestRecordedForms pins the JSON that front ends have recorded.
func TestRecordedForms(t *testing.T) {
	t.Parallel()
	a4, a6 := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")
	tests := []struct {
		text  string
		value any
	}{
		{`{"proto":"tcp","containerPort":80}`, &Port{Proto: TCP, ContainerPort: 80}},
		{
			`{"proto":"udp","containerPort":80,"hostIP":"10.0.0.2","hostPort":8080,` +
				`"hostPortEnd":8090}`,
			&Port{UDP, 80, a4, 8080, 8090},
		},
		{
			`{"Proto":"sctp","ContainerPort":80,"HostIP":"fd00::2","HostPort":8080}`,
			&Bound{SCTP, 80, a6, 8080},
		},
		{
			`{"aliases":["a"],"ipv4":"10.0.0.2","ipv6":"fd00::2","mac":"02:00:00:00:00:01",` +
				`"gatewayPriority":-1,"interface":"lan","sysctls":["a=b"]}`,
			&EndpointSpec{
				[]string{"a"}, a4, a6, "02:00:00:00:00:01", -1, "lan", []string{"a=b"},
			},
		},
		{`{}`, &EndpointSpec{}},
		{
			`{"NetworkID":"n","EndpointID":"e","IPv4":"10.0.0.2/16","IPv6":"",` +
				`"GatewayIPv4":"10.0.0.2","GatewayIPv6":"","MAC":"m","Aliases":null,` +
				`"DNSNames":["d"]}`,
			&Endpoint{
				NetworkID: "n", EndpointID: "e", IPv4: netip.PrefixFrom(a4, 16), GatewayIPv4: a4,
				MAC: "m", DNSNames: []string{"d"},
			},
		},
	}
	for _, tt := range tests {
		got, err := json.Marshal(tt.value)
		if err != nil || string(got) != tt.text {
			t.Errorf("encode: got %s, %v; want %s", got, err, tt.text)
		}
		back := reflect.New(reflect.TypeOf(tt.value).Elem()).Interface()
		if err := json.Unmarshal([]byte(tt.text), back); err != nil ||
			!reflect.DeepEqual(back, tt.value) {
			t.Errorf("decode %s: got %+v, %v; want %+v", tt.text, back, err, tt.value)
		}
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	tests := []struct {
		port Port
		err  string
	}{
		{Port{ContainerPort: 80}, ""},
		{Port{Proto: TCP, ContainerPort: 80, HostPort: 1, HostPortEnd: 1}, ""},
		{Port{Proto: SCTP, ContainerPort: 80, HostPort: 1}, ""},
		{Port{Proto: "TCP", ContainerPort: 80}, `protocol "TCP": want tcp, udp or sctp`},
		{Port{Proto: TCP}, "port 0/tcp: want a container port of 1 to 65535"},
		{
			Port{Proto: UDP, ContainerPort: 80, HostPort: 9, HostPortEnd: 8},
			"port 80/udp: invalid range of host ports 9-8",
		},
		{
			Port{Proto: TCP, ContainerPort: 80, HostIP: netip.MustParseAddr("::ffff:10.0.0.1")},
			`port 80/tcp: host address "::ffff:10.0.0.1": write it as "10.0.0.1"`,
		},
		{Port{Proto: SCTP, ContainerPort: 80}, "port 80/sctp: a host port has to be chosen"},
	}
	for _, tt := range tests {
		err := tt.port.Validate()
		if tt.err == "" && err != nil {
			t.Errorf("%+v: got %v, want none", tt.port, err)
		}
		if tt.err != "" && (!errdefs.IsInvalidArgument(err) ||
			err.Error() != tt.err+": "+errdefs.ErrInvalidArgument.Error()) {
			t.Errorf("%+v: got %v, want the invalid argument %q", tt.port, err, tt.err)
		}
	}
}
