package network

import (
	"bytes"
	"net/netip"
	"strings"
)

// Resolv says what a container's /etc/resolv.conf should say.
type Resolv struct {
	// Nameservers are the servers; a container on one of our networks has ResolverAddr alone. Empty
	// means the host's.
	Nameservers []netip.Addr
	// Search and Options replace the host's when they are not nil. The one search domain "." means
	// none.
	Search, Options []string
	// Host is the content of the host's resolv.conf.
	Host []byte
}

// ResolvConf writes a resolv.conf (resolv.conf(5)). With our resolver as its server a name without
// a dot is asked as it is before search domains are tried (ndots:0), because names of containers
// have no dot, unless Options say otherwise.
func ResolvConf(r Resolv) []byte {
	host := parseResolvConf(r.Host)
	servers, search, options := r.Nameservers, r.Search, r.Options
	if len(servers) == 0 {
		servers = host.servers
	}
	if search == nil {
		search = host.search
	}
	if options == nil {
		options = host.options
	}
	if len(search) == 1 && search[0] == "." {
		search = nil
	}
	if len(servers) == 1 && servers[0] == ResolverAddr {
		options = append([]string(nil), options...)
		ndots := false
		for _, o := range options {
			ndots = ndots || strings.HasPrefix(o, "ndots:")
		}
		if !ndots {
			options = append(options, "ndots:0")
		}
	}
	var b bytes.Buffer
	for _, s := range servers {
		b.WriteString("nameserver " + s.String() + "\n")
	}
	if len(search) > 0 {
		b.WriteString("search " + strings.Join(search, " ") + "\n")
	}
	if len(options) > 0 {
		b.WriteString("options " + strings.Join(options, " ") + "\n")
	}
	return b.Bytes()
}

type resolvConf struct {
	servers         []netip.Addr
	search, options []string
}

// parseResolvConf reads what it understands and passes over the rest, as libc does. The last of
// several search and domain lines counts.
func parseResolvConf(data []byte) resolvConf {
	var c resolvConf
	for line := range strings.Lines(string(data)) {
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(f[1]); err == nil {
				c.servers = append(c.servers, a)
			}
		case "search":
			c.search = f[1:]
		case "domain":
			c.search = f[1:2]
		case "options":
			c.options = append(c.options, f[1:]...)
		}
	}
	return c
}

// HostLine is one line of a hosts file.
type HostLine struct {
	Addr  netip.Addr
	Names []string
}

// HostsFile writes a container's /etc/hosts (hosts(5)): the loopback names, extra lines in their
// order, and the container's own addresses with its hostname, and with hostname.domain before it
// when there is a domain.
func HostsFile(hostname, domain string, own []netip.Addr, extra []HostLine) []byte {
	var b bytes.Buffer
	b.WriteString("127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::\tip6-localnet\n" +
		"ff00::\tip6-mcastprefix\n" +
		"ff02::1\tip6-allnodes\n" +
		"ff02::2\tip6-allrouters\n")
	b.Write(HostLines(extra))
	name := hostname
	if domain != "" {
		name = hostname + "." + domain + " " + hostname
	}
	for _, a := range own {
		if name != "" && a.IsValid() {
			b.WriteString(a.String() + "\t" + name + "\n")
		}
	}
	return b.Bytes()
}

// HostLines writes lines of a hosts file.
func HostLines(lines []HostLine) []byte {
	var b bytes.Buffer
	for _, l := range lines {
		b.WriteString(l.Addr.String() + "\t" + strings.Join(l.Names, " ") + "\n")
	}
	return b.Bytes()
}
