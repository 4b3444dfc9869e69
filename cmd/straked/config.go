package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"

	"strake/engine"
	"strake/engine/logattr"
)

// settings are what flags and the configuration file decide. Flags go before the file; what both
// give is an error, as with dockerd.
type settings struct {
	DataRoot, ExecRoot string
	Hosts              []string
	Debug              bool
	ReadyFD            int
	Group              string
	LogDriver          string
	LogOpts            map[string]string
	InsecureRegistries []string
	RegistryMirrors    []string
	BIP                string
	IPv6               bool
	FixedCIDRv6        string
	AddressPools       []addressPool
	DNS, DNSSearch     []string
	DNSOptions         []string
	Rlimits            []specs.POSIXRlimit
	Pidfile            string
	Teardown           bool
	ShowVersion        bool

	// fault, if not nil, is called before each step of an operation; tests end the process there or
	// let the step fail. No flag sets it.
	fault func(step string) error
	// services adds services to those that straked serves, of the front ends owners: tests put
	// one beside Docker's.
	services func(sys *system, s *settings) ([]service, error)
	owners   []string
}

// addressPool is where networks without a subnet of their own take one from.
type addressPool struct {
	Base netip.Prefix
	Size int
}

const (
	defaultDataRoot   = "/var/lib/strake"
	defaultExecRoot   = "/run/strake"
	defaultConfigFile = "/etc/strake/daemon.json"
)

// fileConfig is the configuration file: dockerd's keys, as far as they mean something here.
type fileConfig struct {
	DataRoot           *string           `json:"data-root"`
	ExecRoot           *string           `json:"exec-root"`
	Hosts              []string          `json:"hosts"`
	Debug              *bool             `json:"debug"`
	Group              *string           `json:"group"`
	LogDriver          *string           `json:"log-driver"`
	LogOpts            map[string]string `json:"log-opts"`
	InsecureRegistries []string          `json:"insecure-registries"`
	RegistryMirrors    []string          `json:"registry-mirrors"`
	BIP                *string           `json:"bip"`
	IPv6               *bool             `json:"ipv6"`
	FixedCIDRv6        *string           `json:"fixed-cidr-v6"`
	AddressPools       []struct {
		Base string `json:"base"`
		Size int    `json:"size"`
	} `json:"default-address-pools"`
	DNS        []string `json:"dns"`
	DNSSearch  []string `json:"dns-search"`
	DNSOptions []string `json:"dns-opts"`
	Pidfile    *string  `json:"pidfile"`
	Ulimits    map[string]struct {
		Name       string
		Soft, Hard int64
	} `json:"default-ulimits"`
}

// usageError is a mistake in the command line or the configuration file.
type usageError struct{ error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// parse reads the command line and the configuration file. pflag.ErrHelp means that help was asked
// for and printed.
func parse(args []string, stdout io.Writer) (*settings, error) {
	s := &settings{LogOpts: map[string]string{}}
	f := pflag.NewFlagSet("straked", pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.SortFlags = true
	var pools, logOpts, ulimits []string
	var configFile string
	f.StringVar(
		&s.DataRoot, "data-root", defaultDataRoot,
		"directory for what survives a reboot: images, containers, volumes",
	)
	f.StringVar(
		&s.ExecRoot, "exec-root", defaultExecRoot,
		"directory for what does not: sockets and state of running containers",
	)
	f.StringArrayVarP(
		&s.Hosts, "host", "H", nil,
		"socket to listen on: unix:///path or fd:// (repeatable; default unix://EXEC-ROOT/strake.sock)",
	)
	f.BoolVarP(&s.Debug, "debug", "D", false, "log more")
	f.IntVar(&s.ReadyFD, "ready-fd", -1, "descriptor that gets a byte when the sockets listen")
	f.StringVarP(&s.Group, "group", "G", "", "group that may use the sockets")
	f.StringVar(
		&s.LogDriver, "log-driver", "json-file",
		"log driver of containers: json-file, local or none",
	)
	f.StringArrayVar(
		&logOpts, "log-opt", nil, "default log option: max-size=SIZE or max-file=N (repeatable)",
	)
	f.StringArrayVar(
		&s.InsecureRegistries, "insecure-registry", nil,
		"registry (host[:port] or CIDR) spoken to without verified TLS (repeatable)",
	)
	f.StringArrayVar(
		&s.RegistryMirrors, "registry-mirror", nil,
		"URL that is asked before the default registry (repeatable)",
	)
	f.StringVar(&s.BIP, "bip", "", "address and prefix of the default bridge, as 172.17.0.1/16")
	f.BoolVar(&s.IPv6, "ipv6", true, "IPv6 on the default bridge, if the host has it")
	f.StringVar(
		&s.FixedCIDRv6, "fixed-cidr-v6", "",
		"IPv6 subnet of the default bridge (default a unique local one, drawn once)",
	)
	f.StringArrayVar(
		&pools, "default-address-pool", nil,
		"pool for networks, as base=172.30.0.0/16,size=24 (repeatable)",
	)
	f.StringArrayVar(&s.DNS, "dns", nil, "name server for containers (repeatable)")
	f.StringArrayVar(&s.DNSSearch, "dns-search", nil, "search domain for containers (repeatable)")
	f.StringArrayVar(&s.DNSOptions, "dns-opt", nil, "resolver option for containers (repeatable)")
	f.StringArrayVar(
		&ulimits, "default-ulimit", nil,
		"limit of containers that set none, as nofile=1024:524288 (repeatable)",
	)
	f.StringVar(&configFile, "config-file", defaultConfigFile, "configuration file")
	f.StringVarP(&s.Pidfile, "pidfile", "p", "", "file for the process ID")
	f.BoolVar(
		&s.Teardown, "teardown", false,
		"end the engine, if it runs, and all containers, and remove everything that was made in the kernel, then exit",
	)
	f.BoolVarP(&s.ShowVersion, "version", "v", false, "print the version and exit")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			fmt.Fprintf(
				stdout,
				"Usage: straked [OPTIONS]\n\nThe engine of strake: containers, images, networks and volumes behind the Docker Engine API.\n\nOptions:\n%s",
				f.FlagUsages(),
			)
			return nil, err
		}
		return nil, usageError{unknownFlag(err, f)}
	}
	if f.NArg() > 0 {
		return nil, usage("unexpected argument %q: straked takes options only", f.Arg(0))
	}
	for _, p := range pools {
		pool, err := parsePool(p)
		if err != nil {
			return nil, usageError{err}
		}
		s.AddressPools = append(s.AddressPools, pool)
	}
	for _, o := range logOpts {
		k, v, ok := strings.Cut(o, "=")
		if !ok {
			return nil, usage("--log-opt %q: want KEY=VALUE", o)
		}
		s.LogOpts[k] = v
	}
	for _, u := range ulimits {
		l, err := parseUlimit(u)
		if err != nil {
			return nil, usage("--default-ulimit %w", err)
		}
		s.Rlimits = append(s.Rlimits, l)
	}
	if err := s.merge(configFile, f.Changed("config-file"), f.Changed); err != nil {
		return nil, err
	}
	return s, s.validate()
}

// merge reads the configuration file. One that is missing is an error only if it was named.
func (s *settings) merge(name string, named bool, given func(flag string) bool) error {
	raw, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return nil
	}
	if err != nil {
		return usage("configuration file: %w", err)
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(raw, &keys); err != nil {
		return usage("%s:%d: %w", name, lineOf(raw, err), err)
	}
	if err := checkKeys(name, slices.Sorted(maps.Keys(keys)), given); err != nil {
		return err
	}
	var c fileConfig
	if err := json.Unmarshal(raw, &c); err != nil {
		return usage("%s:%d: %w", name, lineOf(raw, err), err)
	}
	for _, p := range []struct {
		dst *string
		src *string
	}{
		{&s.DataRoot, c.DataRoot}, {&s.ExecRoot, c.ExecRoot}, {&s.Group, c.Group},
		{&s.LogDriver, c.LogDriver}, {&s.BIP, c.BIP}, {&s.FixedCIDRv6, c.FixedCIDRv6},
		{&s.Pidfile, c.Pidfile},
	} {
		if p.src != nil {
			*p.dst = *p.src
		}
	}
	for _, p := range []struct {
		dst *[]string
		src []string
	}{
		{&s.Hosts, c.Hosts}, {&s.InsecureRegistries, c.InsecureRegistries},
		{&s.RegistryMirrors, c.RegistryMirrors}, {&s.DNS, c.DNS}, {&s.DNSSearch, c.DNSSearch},
		{&s.DNSOptions, c.DNSOptions},
	} {
		if p.src != nil {
			*p.dst = p.src
		}
	}
	for _, p := range []struct{ dst, src *bool }{{&s.Debug, c.Debug}, {&s.IPv6, c.IPv6}} {
		if p.src != nil {
			*p.dst = *p.src
		}
	}
	if c.LogOpts != nil {
		s.LogOpts = c.LogOpts
	}
	for _, name := range slices.Sorted(maps.Keys(c.Ulimits)) {
		l, err := parseUlimit(
			fmt.Sprintf("%s=%d:%d", name, c.Ulimits[name].Soft, c.Ulimits[name].Hard),
		)
		if err != nil {
			return usage("default-ulimits: %w", err)
		}
		s.Rlimits = append(s.Rlimits, l)
	}
	for i, p := range c.AddressPools {
		pool, err := parsePool(fmt.Sprintf("base=%s,size=%d", p.Base, p.Size))
		if err != nil {
			return usage("%s: default-address-pools[%d]: %w", name, i, err)
		}
		s.AddressPools = append(s.AddressPools, pool)
	}
	return nil
}

// lineOf is the line in which reading JSON failed.
func lineOf(raw []byte, err error) int {
	at := int64(len(raw))
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		at = syntax.Offset
	case errors.As(err, &typ):
		at = typ.Offset
	}
	return 1 + bytes.Count(raw[:min(at, int64(len(raw)))], []byte("\n"))
}

// ulimits are the names of docker run --ulimit.
var ulimits = []string{
	"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc",
	"rss", "rtprio", "rttime", "sigpending", "stack",
}

// parseUlimit reads NAME=SOFT[:HARD]; -1 is without limit.
func parseUlimit(text string) (specs.POSIXRlimit, error) {
	name, values, _ := strings.Cut(text, "=")
	if !slices.Contains(ulimits, name) {
		return specs.POSIXRlimit{}, fmt.Errorf(
			"%q: %q is no limit%s: want one of %q", text, name, didYouMean(name, ulimits, ""),
			ulimits,
		)
	}
	soft, hard, two := strings.Cut(values, ":")
	if !two {
		hard = soft
	}
	l := specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(name)}
	for _, v := range []struct {
		text string
		to   *uint64
	}{{soft, &l.Soft}, {hard, &l.Hard}} {
		n, err := strconv.ParseInt(v.text, 10, 64)
		if err != nil || n < -1 {
			return l, fmt.Errorf(
				"%q: want NAME=SOFT[:HARD] with numbers from -1, which is without limit", text,
			)
		}
		*v.to = uint64(n)
	}
	if l.Soft > l.Hard {
		return l, fmt.Errorf("%q: the soft limit is above the hard one", text)
	}
	return l, nil
}

func parsePool(text string) (addressPool, error) {
	var p addressPool
	for kv := range strings.SplitSeq(text, ",") {
		k, v, _ := strings.Cut(kv, "=")
		var err error
		switch k {
		case "base":
			p.Base, err = netip.ParsePrefix(v)
		case "size":
			p.Size, err = strconv.Atoi(v)
		default:
			err = errors.New("want base=SUBNET,size=PREFIX-LENGTH")
		}
		if err != nil {
			return p, fmt.Errorf("default address pool %q: %s: %w", text, k, err)
		}
	}
	if !p.Base.IsValid() || p.Size < p.Base.Bits() || p.Size > p.Base.Addr().BitLen() {
		return p, fmt.Errorf(
			"default address pool %q: want base=SUBNET,size=PREFIX-LENGTH with a length of at least the subnet's",
			text,
		)
	}
	return p, nil
}

// validate checks what does not need the machine.
func (s *settings) validate() error {
	for _, p := range []struct{ name, path string }{
		{"data-root", s.DataRoot}, {"exec-root", s.ExecRoot},
	} {
		if !filepath.IsAbs(p.path) {
			return usage("--%s %q: want an absolute path", p.name, p.path)
		}
	}
	s.DataRoot, s.ExecRoot = filepath.Clean(s.DataRoot), filepath.Clean(s.ExecRoot)
	if strings.ContainsAny(s.DataRoot, ":,\\") {
		return usage(
			"--data-root %q: overlayfs options cannot hold a path with ':', ',' or '\\'",
			s.DataRoot,
		)
	}
	if len(s.Hosts) == 0 {
		s.Hosts = []string{"unix://" + filepath.Join(s.ExecRoot, "strake.sock")}
	}
	for _, h := range s.Hosts {
		scheme, rest, ok := strings.Cut(h, "://")
		switch {
		case ok && scheme == "fd":
		case ok && scheme == "unix" && filepath.IsAbs(rest):
			if len(rest) > 107 {
				return usage("--host %q: the path of a socket has at most 107 bytes", h)
			}
		default:
			return usage("--host %q: want unix:///path or fd://", h)
		}
	}
	if s.BIP != "" {
		if p, err := netip.ParsePrefix(s.BIP); err != nil || !p.Addr().Is4() ||
			p.Masked().Addr() == p.Addr() {
			return usage(
				"--bip %q: want the address of the bridge with its prefix, as 172.17.0.1/16", s.BIP,
			)
		}
	}
	if s.FixedCIDRv6 != "" {
		p, err := netip.ParsePrefix(s.FixedCIDRv6)
		switch {
		case err != nil || !p.Addr().Is6() || p.Addr().Is4In6() || p != p.Masked() || p.Bits() < 1 || p.Bits() > 120:
			return usage(
				"--fixed-cidr-v6 %q: want an IPv6 subnet, as fd00:1234::/64", s.FixedCIDRv6,
			)
		case !s.IPv6:
			return usage("--fixed-cidr-v6 %q: IPv6 is switched off (--ipv6=false)", s.FixedCIDRv6)
		}
	}
	for _, d := range s.DNS {
		if _, err := netip.ParseAddr(d); err != nil {
			return usage("--dns %q: want an IP address", d)
		}
	}
	_, err := s.logConfig()
	return err
}

// logConfig is the default log configuration of containers.
func (s *settings) logConfig() (engine.LogConfig, error) {
	c := engine.LogConfig{Driver: s.LogDriver}
	if !slices.Contains([]string{"json-file", "local", "none"}, s.LogDriver) {
		return c, usage("--log-driver %q: want json-file, local or none", s.LogDriver)
	}
	texts := map[string]*string{
		"labels": &c.Labels, "labels-regex": &c.LabelsRegex, "env": &c.Env,
		"env-regex": &c.EnvRegex, "tag": &c.Tag,
	}
	for k, v := range s.LogOpts {
		if to, ok := texts[k]; ok {
			*to = v
			continue
		}
		switch k {
		case "max-size":
			n, err := parseSize(v)
			if err != nil {
				return c, usage("--log-opt max-size=%s: want a size as 10m", v)
			}
			c.MaxBytes = n
		case "max-file":
			n, err := strconv.Atoi(v)
			if err != nil || n < 1 {
				return c, usage("--log-opt max-file=%s: want a number of at least 1", v)
			}
			c.MaxFiles = n
		default:
			return c, usage(
				"--log-opt %s: unknown log option%s", k,
				didYouMean(k, append(slices.Sorted(maps.Keys(texts)), "max-size", "max-file"), ""),
			)
		}
	}
	if err := logattr.Check(&c); err != nil {
		return c, usage("--log-opt: %v", err)
	}
	return c, nil
}

// parseSize reads a number of bytes with an optional binary suffix.
func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(strings.ToLower(s), "bkmgi")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("size %q", s)
	}
	unit := strings.ToLower(s)[len(digits):]
	shift := map[string]uint{
		"": 0, "b": 0, "k": 10, "kb": 10, "kib": 10, "m": 20, "mb": 20, "mib": 20, "g": 30,
		"gb": 30, "gib": 30,
	}
	by, ok := shift[unit]
	if !ok || n > 1<<62>>by {
		return 0, fmt.Errorf("size %q", s)
	}
	return n << by, nil
}
