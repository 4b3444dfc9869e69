package sandboxnet

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"strake/network"
	"strake/network/place"
)

func TestWantedPorts(t *testing.T) {
	t.Parallel()
	ip := netip.MustParseAddr("192.0.2.1")
	tests := []struct {
		name string
		req  place.Request
		want []place.Port
		err  string
	}{
		{"none", place.Request{Exposed: []string{"80"}}, nil, ""},
		{
			"asked for",
			place.Request{Ports: []place.Port{
				{ContainerPort: 80}, {Proto: "udp", ContainerPort: 53, HostIP: ip, HostPort: 5353},
				{Proto: "tcp", ContainerPort: 81, HostPort: 8000, HostPortEnd: 8010},
			}},
			[]place.Port{
				{Proto: "tcp", ContainerPort: 80},
				{Proto: "udp", ContainerPort: 53, HostIP: ip, HostPort: 5353},
				{Proto: "tcp", ContainerPort: 81, HostPort: 8000, HostPortEnd: 8010},
			}, "",
		},
		{
			"all that are exposed and not asked for",
			place.Request{
				Ports:      []place.Port{{Proto: "tcp", ContainerPort: 80, HostPort: 8080}},
				PublishAll: true, Exposed: []string{"80/tcp", "80/udp", "90-92", "91"},
			},
			[]place.Port{
				{Proto: "tcp", ContainerPort: 80, HostPort: 8080},
				{Proto: "udp", ContainerPort: 80}, {Proto: "tcp", ContainerPort: 90},
				{Proto: "tcp", ContainerPort: 91}, {Proto: "tcp", ContainerPort: 92},
			}, "",
		},
		{
			"protocol", place.Request{Ports: []place.Port{{Proto: "icmp", ContainerPort: 1}}}, nil,
			`protocol "icmp": want tcp, udp or sctp`,
		},
		{
			"range",
			place.Request{Ports: []place.Port{{ContainerPort: 80, HostPort: 9, HostPortEnd: 8}}},
			nil, "port 80/tcp: invalid range of host ports 9-8",
		},
		{
			"exposed", place.Request{PublishAll: true, Exposed: []string{"9-8"}}, nil,
			`exposed port "9-8": want PORT[-PORT][/PROTOCOL]`,
		},
		{
			"exposed protocol", place.Request{PublishAll: true, Exposed: []string{"9/icmp"}}, nil,
			`protocol "icmp": want tcp, udp or sctp`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := wantedPorts(&tt.req)
			if tt.err != "" {
				if err == nil || err.Error() != tt.err || !errdefs.IsInvalidArgument(err) {
					t.Fatalf("got error %v, want the invalid argument %q", err, tt.err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func TestNetworkOrder(t *testing.T) {
	t.Parallel()
	eps := map[string]place.EndpointSpec{"c": {}, "a": {}, "b": {}}
	for primary, want := range map[string]string{
		"": "a b c", "a": "a b c", "b": "b a c", "c": "c a b", "other": "a b c",
	} {
		got := strings.Join(
			networkOrder(&place.Request{Endpoints: eps, Primary: primary}), " ",
		)
		if got != want {
			t.Errorf("primary %q: got %q, want %q", primary, got, want)
		}
	}
}

func TestExtraHosts(t *testing.T) {
	t.Parallel()
	gateway := netip.MustParseAddr("172.17.0.1")
	tests := []struct {
		line    string
		gateway netip.Addr
		want    string // as in the hosts file
		err     string
	}{
		{"db:10.0.0.1", gateway, "10.0.0.1\tdb\n", ""},
		{"db=10.0.0.1", gateway, "10.0.0.1\tdb\n", ""},
		{"db:::1", gateway, "::1\tdb\n", ""},
		{"db:[::1]", gateway, "::1\tdb\n", ""},
		{"gw:host-gateway", gateway, "172.17.0.1\tgw\n", ""},
		{
			"gw:host-gateway", netip.Addr{}, "",
			"unable to derive the IP value for host-gateway: the container's network has no gateway",
		},
		{"db", gateway, "", `bad format for add-host: "db"`},
		{":10.0.0.1", gateway, "", `bad format for add-host: ":10.0.0.1"`},
		{"db:10.0.0", gateway, "", `invalid IP address in add-host: "10.0.0"`},
	}
	for _, tt := range tests {
		lines, err := extraHosts([]string{tt.line}, tt.gateway)
		if got := string(network.HostLines(lines)); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.line, got, tt.want)
		}
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || err.Error() != tt.err) {
			t.Errorf("%s: got error %v, want %q", tt.line, err, tt.err)
		}
	}
	if _, err := addresses("DNS", []string{"1.1.1.1", "one"}); err == nil ||
		err.Error() != `DNS "one": want an IP address` {
		t.Errorf("name server: got %v", err)
	}
}
