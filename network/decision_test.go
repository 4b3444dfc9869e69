package network

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"strake/network/ipam"
	"strake/network/place"
)

// Decisions that need neither root nor the kernel.

func TestCheckSubnet(t *testing.T) {
	t.Parallel()
	taken := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
	tests := []struct {
		subnet, gateway string
		want            error
		text            string
	}{
		{"10.2.0.0/24", "", nil, ""},
		{"10.2.0.0/24", "10.2.0.9", nil, ""},
		{"fd00:9::/64", "fd00:9::9", nil, ""},
		{"10.2.0.0/31", "", errdefs.ErrInvalidArgument, "want a prefix length of 1 to 30"},
		{"fd00::/127", "", errdefs.ErrInvalidArgument, "want a prefix length of 1 to 126"},
		{"0.0.0.0/0", "", errdefs.ErrInvalidArgument, "want a prefix length"},
		{"10.2.0.7/24", "", errdefs.ErrInvalidArgument, `want "10.2.0.0/24"`},
		{"127.1.0.0/16", "", errdefs.ErrInvalidArgument, "cannot be used"},
		{"224.0.0.0/8", "", errdefs.ErrInvalidArgument, "cannot be used"},
		{"fe80::/64", "", errdefs.ErrInvalidArgument, "cannot be used"},
		{"10.0.0.0/8", "", errdefs.ErrFailedPrecondition, `overlaps "10.1.0.0/16"`},
		{"10.1.7.0/24", "", errdefs.ErrFailedPrecondition, `overlaps "10.1.0.0/16"`},
		{"10.2.0.0/24", "10.3.0.1", errdefs.ErrInvalidArgument, `gateway "10.3.0.1"`},
	}
	for _, tt := range tests {
		s := Subnet{Prefix: netip.MustParsePrefix(tt.subnet)}
		if tt.gateway != "" {
			s.Gateway = netip.MustParseAddr(tt.gateway)
		}
		err := checkSubnet(s, taken)
		if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s by %q: got %v, want %v: %s", tt.subnet, tt.gateway, err, tt.want, tt.text)
		}
	}
	if err := checkSubnet(Subnet{}, nil); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no prefix: got %v", err)
	}
	two := Spec{Subnets: []Subnet{
		{Prefix: netip.MustParsePrefix("10.2.0.0/24")},
		{Prefix: netip.MustParsePrefix("fd00::/64")},
	}}
	v4, v6, err := chosenSubnets(two, nil)
	if err != nil || v4.Prefix != two.Subnets[0].Prefix || v6.Prefix != two.Subnets[1].Prefix {
		t.Errorf("one of each family: got %v, %v, %v", v4, v6, err)
	}
	two.Subnets[1].Prefix = netip.MustParsePrefix("10.3.0.0/24")
	if _, _, err := chosenSubnets(two, nil); !errdefs.IsInvalidArgument(err) {
		t.Errorf("two of IPv4: got %v", err)
	}
}

func TestParseOptions(t *testing.T) {
	t.Parallel()
	def := options{masquerade: true}
	with := func(change func(*options)) options { o := def; change(&o); return o }
	tests := []struct {
		option, value string
		want          options
		err           string
	}{
		{optDevice, "br-own", with(func(o *options) { o.device = "br-own" }), ""},
		{optDevice, "sixteen-letters-", options{}, "a name of 1 to 15"},
		{optDevice, "a/b", options{}, "a name of 1 to 15"},
		{optMTU, "1400", with(func(o *options) { o.mtu = 1400 }), ""},
		{optMTU, "67", options{}, "68 to 65535"},
		{optMTU, "many", options{}, "68 to 65535"},
		{optICC, "false", with(func(o *options) { o.isolated = true }), ""},
		{optICC, "true", def, ""},
		{optICC, "no", options{}, "true or false"},
		{optMasquerade, "false", options{}, ""},
		{optMasquerade, "maybe", options{}, "true or false"},
		{
			optHostAddr, "127.0.0.1",
			with(func(o *options) { o.hostAddr = netip.MustParseAddr("127.0.0.1") }), "",
		},
		{optHostAddr, "0.0.0.0", def, ""},
		{optHostAddr, "::1", options{}, "an IPv4 address"},
		{optDefault, "true", def, ""},
		{"com.example.other", "1", options{}, "is not known; known are " + optDevice},
	}
	for _, tt := range tests {
		got, err := parseOptions(map[string]string{tt.option: tt.value})
		if tt.err != "" {
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s=%s: got %v, want %q", tt.option, tt.value, err, tt.err)
			}
			continue
		}
		if err != nil || got != tt.want {
			t.Errorf("%s=%s: got %+v, %v; want %+v", tt.option, tt.value, got, err, tt.want)
		}
	}
}

func TestRequestValidate(t *testing.T) {
	t.Parallel()
	mapped := netip.MustParseAddr("::ffff:10.0.0.1")
	icmp := []place.Port{{Proto: "icmp", ContainerPort: 1}}
	good := Request{
		Owner: "cri", ContainerID: "a", EndpointID: strings.Repeat("0f", 32),
		IPv4: netip.MustParseAddr("10.0.0.2"), IPv6: netip.MustParseAddr("fd00::2"),
		MAC:   net.HardwareAddr{2, 0, 0, 0, 0, 1},
		Ports: []place.Port{{ContainerPort: 80}}, DNS: []netip.Addr{netip.IPv6Loopback()},
	}
	if err := good.validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Request){
		"container ID":         func(r *Request) { r.ContainerID = "-" },
		"owner":                func(r *Request) { r.Owner = "Docker" },
		"short endpoint ID":    func(r *Request) { r.EndpointID = "0f" },
		"endpoint ID":          func(r *Request) { r.EndpointID = strings.Repeat("0F", 32) },
		"IPv4 address":         func(r *Request) { r.IPv4 = r.IPv6 },
		"IPv6 address":         func(r *Request) { r.IPv6 = r.IPv4 },
		"mapped IPv6 address":  func(r *Request) { r.IPv6 = mapped },
		"interface":            func(r *Request) { r.Interface = "a/b" },
		"sysctl":               func(r *Request) { r.Sysctls = []string{"x=1"} },
		"multicast MAC":        func(r *Request) { r.MAC = net.HardwareAddr{1, 0, 0, 0, 0, 1} },
		"long MAC":             func(r *Request) { r.MAC = make(net.HardwareAddr, 8) },
		"port":                 func(r *Request) { r.Ports = []place.Port{{}} },
		"name server":          func(r *Request) { r.DNS = []netip.Addr{{}} },
		"protocol of the port": func(r *Request) { r.Ports = icmp },
	} {
		r := good
		change(&r)
		if err := r.validate(); !errdefs.IsInvalidArgument(err) ||
			!strings.Contains(err.Error(), "attach container") {
			t.Errorf("%s: got %v, want an invalid argument", name, err)
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	c, err := Config{StateDir: "/x", PoolSize: 100}.complete()
	if err != nil || c.Prefix != "strake" || c.LegacyOwner != "docker" || len(c.Pools) == 0 ||
		c.MaxPooled != 100 || c.AddressDelay == 0 || c.ResolvConf != "/etc/resolv.conf" ||
		c.Logger == nil || c.Fault == nil || !maps.Equal(c.Sysctls, DefaultSysctls()) {
		t.Errorf("defaults: got %+v, %v", c, err)
	}
	if c, err = (Config{StateDir: "/x", PoolSize: -1}).complete(); err != nil || c.PoolSize != 0 {
		t.Errorf("no pool: got %d, %v", c.PoolSize, err)
	}
	p := netip.MustParsePrefix
	for name, c := range map[string]Config{
		"no StateDir":    {},
		"Prefix":         {StateDir: "/x", Prefix: "Strake"},
		"long Prefix":    {StateDir: "/x", Prefix: "sevenly"},
		"bad pool":       {StateDir: "/x", Pools: []ipam.Block{{}}},
		"IPv6 pool":      {StateDir: "/x", Pools: []ipam.Block{{Base: p("fd00::/48"), Bits: 64}}},
		"small subnets":  {StateDir: "/x", Pools: []ipam.Block{{Base: p("10.0.0.0/24"), Bits: 30}}},
		"PoolV6":         {StateDir: "/x", PoolV6: p("10.0.0.0/8")},
		"small PoolV6":   {StateDir: "/x", PoolV6: p("fd00::/65")},
		"DefaultSubnets": {StateDir: "/x", DefaultSubnets: []Subnet{{Prefix: p("fd00::/64")}}},
		"Sysctls":        {StateDir: "/x", Sysctls: map[string]string{"kernel.core_pattern": "x"}},
		"LegacyOwner":    {StateDir: "/x", LegacyOwner: "-"},
	} {
		if _, err := Open(c); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: got %v, want an invalid argument", name, err)
		}
	}
}

// TestInterfaceNames: names of one instance are not names of another.
func TestInterfaceNames(t *testing.T) {
	t.Parallel()
	for prefix, names := range map[string][]string{
		"sk":  {"sk0", "sk-0123abcd", "skv0123abcd", "skr0123abcd", "sks0123abcd", "sku0123abcd"},
		"skv": {"skv0", "skv-0123abcd", "skvv0123abcd", "skvw0123abcd"},
	} {
		for _, name := range names {
			if len(name) > 15 {
				t.Errorf("%q is longer than an interface's name can be", name)
			}
			for _, other := range []string{"sk", "skv", "s"} {
				if got := ownInterface(other).MatchString(name); got != (other == prefix) {
					t.Errorf("%q is of instance %q: got %v", name, other, got)
				}
			}
		}
	}
	for _, name := range []string{
		"eth0", "sk", "sk1", "skx0123abcd", "skv0123abc", "skv0123abcdef",
	} {
		if ownInterface("sk").MatchString(name) {
			t.Errorf("%q is taken for ours", name)
		}
	}
	if tableName("strake") != "strake" || tableName("sk") != "strake_sk" {
		t.Errorf("tables: got %q, %q", tableName("strake"), tableName("sk"))
	}
}

// TestDifference: each trace that a container leaves keeps its namespace out of the pool.
func TestDifference(t *testing.T) {
	t.Parallel()
	fresh := fingerprint{sockets: "0 used, 0 waiting", topology: 7, generation: 1, reports: 2}
	tests := []struct {
		name   string
		change func(*fingerprint)
		sent   uint64
		want   string
	}{
		{"unused", func(*fingerprint) {}, 2, ""},
		{"unused, with further reports", func(f *fingerprint) { f.reports = 5 }, 5, ""},
		{"socket", func(f *fingerprint) { f.sockets = "1 used, 0 waiting" }, 2, "sockets left"},
		{"topology", func(f *fingerprint) { f.topology++ }, 2, "interfaces, addresses, routes"},
		{"nftables", func(f *fingerprint) { f.generation++ }, 2, "nftables changed"},
		{"packet", func(*fingerprint) {}, 3, "1 packets sent"},
	}
	for _, tt := range tests {
		final := fresh
		tt.change(&final)
		got := difference(fresh, final, tt.sent)
		if tt.want == "" && got != "" || !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	stat := "sockets: used 3\nTCP: inuse 1 orphan 0 tw 2 alloc 9 mem 0\nUDP: inuse 0 mem 0\n"
	if got := sockets(stat); got != "3 used, 2 waiting" {
		t.Errorf("sockstat: got %q", got)
	}
	snmp := "Ip6InReceives 3\nIcmp6OutMLDv2Reports            \t17\n"
	if got := counter(snmp, "Icmp6OutMLDv2Reports"); got != 17 || counter(snmp, "None") != 0 {
		t.Errorf("snmp6: got %d", got)
	}
}

func TestResolvConf(t *testing.T) {
	t.Parallel()
	host := []byte("# written by hand\nnameserver 192.0.2.1 ; first\nnameserver bad\n" +
		"domain example.org\nsearch a.example b.example\noptions timeout:1\noptions rotate\n" +
		"nameserver 2001:db8::1\nsortlist 1.2.3.4\n")
	tests := []struct {
		name string
		r    Resolv
		want string
	}{
		{
			"the host's", Resolv{Host: host},
			"nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch a.example b.example\n" +
				"options timeout:1 rotate\n",
		},
		{
			"our resolver", Resolv{Nameservers: []netip.Addr{ResolverAddr}, Host: host},
			"nameserver 169.254.53.53\nsearch a.example b.example\n" +
				"options timeout:1 rotate ndots:0\n",
		},
		{
			"chosen dots",
			Resolv{Nameservers: []netip.Addr{ResolverAddr}, Options: []string{"ndots:2"}},
			"nameserver 169.254.53.53\noptions ndots:2\n",
		},
		{
			"no search, no options", Resolv{Host: host, Search: []string{"."}, Options: []string{}},
			"nameserver 192.0.2.1\nnameserver 2001:db8::1\n",
		},
		{"domain", Resolv{Host: []byte("domain x.example\n")}, "search x.example\n"},
	}
	for _, tt := range tests {
		if got := string(ResolvConf(tt.r)); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestHostsFile(t *testing.T) {
	t.Parallel()
	got := string(HostsFile(
		"web", "example.org", []netip.Addr{netip.MustParseAddr("10.0.0.2"), {}},
		[]HostLine{{netip.MustParseAddr("10.0.0.9"), []string{"db", "store"}}},
	))
	if !strings.HasPrefix(got, "127.0.0.1\tlocalhost\n::1\tlocalhost ") ||
		!strings.HasSuffix(got, "\n10.0.0.9\tdb store\n10.0.0.2\tweb.example.org web\n") {
		t.Errorf("got %q", got)
	}
	if got := string(HostsFile("", "", []netip.Addr{ResolverAddr}, nil)); strings.Contains(
		got, ResolverAddr.String(),
	) {
		t.Errorf("without a name: got %q", got)
	}
}

// TestRecords: what cannot be read is named, and neither stops the others nor is taken for them.
func TestRecords(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	st, err := openStore(dir, "", func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(dir, "", func(string) {}); err == nil ||
		!strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("second opening: got %v", err)
	}
	good, other := strings.Repeat("a", 64), strings.Repeat("b", 64)
	rec := endpointRecord{Version: recordVersion, ID: good, Ports: []binding{
		{17, 80, netip.MustParseAddr("127.0.0.1"), 8080},
	}}
	if err := st.quick(endpointFile(good), rec); err != nil {
		t.Fatal(err)
	}
	if err := st.durable(endpointFile(other), endpointRecord{Version: 9, ID: other}); err != nil {
		t.Fatal(err)
	}
	cut := strings.Repeat("c", 64) + ".json"
	for name, text := range map[string]string{cut: `{"Version":1,`, ".tmp-1": "", "x.json": "{}"} {
		path := filepath.Join(dir, "endpoints", name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	recs, bad, err := loadAll(
		filepath.Join(dir, "endpoints"), func(r endpointRecord) int { return r.Version },
	)
	slices.Sort(bad)
	want := []string{".tmp-1", other + ".json", cut, "x.json"}
	if err != nil || !slices.Equal(bad, want) {
		t.Errorf("unreadable: got %v, %v; want %v", bad, err, want)
	}
	if got := recs[good]; len(recs) != 1 || !slices.Equal(got.Ports, rec.Ports) {
		t.Errorf("readable: got %+v", recs)
	}
	// The form of versions before owners and shared types.
	text, err := os.ReadFile(filepath.Join(dir, endpointFile(good)))
	if err != nil {
		t.Fatal(err)
	}
	const ports = `"Ports":[{"Proto":17,"ContainerPort":80,"HostIP":"127.0.0.1","HostPort":8080}]`
	if !strings.Contains(string(text), ports) || strings.Contains(string(text), "Owner") {
		t.Errorf("record: got %s, want %s in it and no owner", text, ports)
	}
	for range 2 {
		if err := st.remove(endpointFile(good)); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	if err := st.close(); err != nil {
		t.Error(err)
	}
}
