package main

import (
	"fmt"
	"slices"
	"strings"
)

// fileKeys are the keys of the configuration file with the flags of the same meaning.
var fileKeys = map[string]string{
	"data-root": "data-root", "exec-root": "exec-root", "hosts": "host", "debug": "debug",
	"group": "group", "log-driver": "log-driver", "log-opts": "log-opt",
	"insecure-registries": "insecure-registry", "registry-mirrors": "registry-mirror",
	"bip": "bip", "ipv6": "ipv6", "fixed-cidr-v6": "fixed-cidr-v6",
	"default-address-pools": "default-address-pool", "default-ulimits": "default-ulimit",
	"dns": "dns", "dns-search": "dns-search", "dns-opts": "dns-opt", "pidfile": "pidfile",
}

// foreignKeys are keys of dockerd's configuration file that straked does not take
// (docs.docker.com/reference/cli/dockerd, Daemon configuration file).
var foreignKeys = []string{
	"allow-direct-routing", "allow-nondistributable-artifacts", "api-cors-header",
	"authorization-plugins", "bip6", "bridge", "bridge-accept-fwmark", "builder", "cdi-spec-dirs",
	"cgroup-parent", "containerd", "containerd-namespace", "containerd-plugin-namespace",
	"cpu-rt-period", "cpu-rt-runtime", "default-cgroupns-mode",
	"default-gateway", "default-gateway-v6", "default-ipc-mode", "default-network-opts",
	"default-runtime", "default-shm-size", "exec-opts", "experimental", "features",
	"firewall-backend", "fixed-cidr", "host-gateway-ip", "host-gateway-ips",
	"icc", "init", "init-path", "ip", "ip-forward", "ip-forward-no-drop", "ip-masq",
	"ip6tables", "iptables", "labels", "live-restore", "log-format", "log-level",
	"max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts",
	"metrics-addr", "mtu", "no-new-privileges", "node-generic-resources",
	"oom-score-adjust", "proxies", "raw-logs", "runtimes", "seccomp-profile", "selinux-enabled",
	"shutdown-timeout", "storage-driver", "storage-opts", "swarm-default-advertise-addr", "tls",
	"tlscacert", "tlscert", "tlskey", "tlsverify", "userland-proxy", "userland-proxy-path",
	"userns-remap",
}

// checkKeys refuses keys that mean nothing here, all in one error, and those whose flag is given
// too. keys are sorted.
func checkKeys(name string, keys []string, given func(flag string) bool) error {
	var known []string
	for k := range fileKeys {
		known = append(known, k)
	}
	slices.Sort(known)
	var foreign, unknown, twice []string
	for _, k := range keys {
		flag, ok := fileKeys[k]
		switch {
		case ok && given(flag):
			twice = append(twice, k)
		case ok:
		case slices.Contains(foreignKeys, k):
			foreign = append(foreign, fmt.Sprintf("%q", k))
		default:
			unknown = append(unknown, fmt.Sprintf("%q%s", k, didYouMean(k, known, "")))
		}
	}
	var why []string
	if len(foreign) > 0 {
		why = append(
			why, "remove what dockerd knows and strake does not: "+strings.Join(foreign, ", "),
		)
	}
	if len(unknown) > 0 {
		why = append(why, "unknown key "+strings.Join(unknown, ", unknown key "))
	}
	switch {
	case len(why) > 0:
		return usage("%s: %s", name, strings.Join(why, "; "))
	case len(twice) > 0:
		return usage(
			"the following directives are specified both as a flag and in the configuration "+
				"file: %s",
			strings.Join(twice, ", "),
		)
	}
	return nil
}
