package spec

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"strake/cli/api"
)

func (f *Flags) putPorts(r *api.CreateRequest, _ Source) error {
	h := &r.HostConfig
	h.PublishAllPorts = f.publishAll
	for _, p := range f.publish {
		bindings, err := published(p)
		if err != nil {
			return fmt.Errorf("--publish %q: %w", p, err)
		}
		for _, b := range bindings {
			put(&r.ExposedPorts, b.port)
			if h.PortBindings == nil {
				h.PortBindings = map[string][]api.PortBinding{}
			}
			h.PortBindings[b.port] = append(h.PortBindings[b.port], b.PortBinding)
		}
	}
	for _, e := range f.expose {
		if strings.Contains(e, ":") {
			return fmt.Errorf("--expose %q: want PORT or FIRST-LAST, and /tcp, /udp or /sctp", e)
		}
		ports, proto, err := exposed(e)
		if err != nil {
			return fmt.Errorf("--expose %q: %w", e, err)
		}
		for p := ports.first; p <= ports.last; p++ {
			put(&r.ExposedPorts, strconv.Itoa(p)+"/"+proto)
		}
	}
	return nil
}

type binding struct {
	port string // "80/tcp"
	api.PortBinding
}

type portRange struct{ first, last int }

func (r portRange) count() int { return r.last - r.first + 1 }

// published reads [[IP:][HOST]:]CONTAINER[/PROTO], where ports may be ranges, or the long form
// target=…,published=….
func published(s string) ([]binding, error) {
	if strings.Contains(s, "=") {
		var err error
		if s, err = shortForm(s); err != nil {
			return nil, err
		}
	}
	host, container := "", s
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		host, container = s[:i], s[i+1:]
	}
	ip := ""
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		ip, host = host[:i], host[i+1:]
		if addr, ok := strings.CutPrefix(ip, "["); ok {
			if ip, ok = strings.CutSuffix(addr, "]"); !ok {
				return nil, fmt.Errorf("address %q: missing ]", addr)
			}
		}
		if ip != "" {
			if _, err := netip.ParseAddr(ip); err != nil {
				return nil, fmt.Errorf("invalid IP address: %s", ip)
			}
		}
	}
	target, proto, err := exposed(container)
	if err != nil {
		return nil, err
	}
	var out []binding
	add := func(target int, hostPort string) {
		out = append(
			out,
			binding{
				strconv.Itoa(target) + "/" + proto, api.PortBinding{HostIP: ip, HostPort: hostPort},
			},
		)
	}
	if host == "" {
		for p := target.first; p <= target.last; p++ {
			add(p, "")
		}
		return out, nil
	}
	from, err := ports(host)
	switch {
	case err != nil:
		return nil, err
	case target.count() == 1 && from.count() > 1:
		add(target.first, host) // the engine chooses one of the range
	case target.count() != from.count():
		return nil, fmt.Errorf("%d container ports for %d host ports", target.count(), from.count())
	default:
		for i := range target.count() {
			add(target.first+i, strconv.Itoa(from.first+i))
		}
	}
	return out, nil
}

func shortForm(s string) (string, error) {
	var target, host, ip, proto string
	for field := range strings.SplitSeq(s, ",") {
		key, v, ok := strings.Cut(field, "=")
		to := map[string]*string{
			"target": &target, "published": &host, "protocol": &proto, "host_ip": &ip,
		}[strings.ToLower(key)]
		switch {
		case strings.EqualFold(key, "mode") && (v == "host" || v == "ingress"):
		case !ok || v == "" || to == nil:
			return "", fmt.Errorf(
				"field %q: want target, published, protocol, host_ip or mode, and a value", field,
			)
		default:
			*to = v
		}
	}
	if target == "" {
		return "", fmt.Errorf("target is required")
	}
	if proto == "" {
		proto = "tcp"
	}
	if ip != "" {
		host = "[" + ip + "]:" + host
	}
	return host + ":" + target + "/" + proto, nil
}

// exposed reads PORT[-LAST][/PROTO].
func exposed(s string) (portRange, string, error) {
	number, proto, given := strings.Cut(s, "/")
	proto = strings.ToLower(proto)
	if !given {
		proto = "tcp"
	}
	if proto != "tcp" && proto != "udp" && proto != "sctp" {
		return portRange{}, "", fmt.Errorf("invalid proto: %s: want tcp, udp or sctp", proto)
	}
	if number == "" {
		return portRange{}, "", fmt.Errorf("no port specified")
	}
	r, err := ports(number)
	return r, proto, err
}

func ports(s string) (portRange, error) {
	first, last, two := strings.Cut(s, "-")
	if !two {
		last = first
	}
	a, err := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	if err != nil || err2 != nil || a > b {
		return portRange{}, fmt.Errorf(
			"invalid port %q: want a number up to 65535, or FIRST-LAST", s,
		)
	}
	return portRange{int(a), int(b)}, nil
}
