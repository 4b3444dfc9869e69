// Package network gives containers network interfaces, addresses, names, a way out, and published
// ports.
//
// A Manager owns, on one host and under one instance prefix: bridges and veth pairs whose names
// start with the prefix, one nftables table (package firewall), a directory of small JSON records,
// a resolver for names (package resolver), and the values of the few sysctls that it had to change.
// Nothing else is touched, and Teardown puts all of it back.
//
// # Promises
//
//   - Attach costs a container microseconds: namespaces with interface, address and route in place
//     wait in a pool. Release gives a namespace back to the pool when it is provably as it was made
//     (sandbox.go says what is proved), and destroys it otherwise.
//   - The Manager may be killed at any instant. Live containers keep their addresses, connections
//     and published ports. The next Open and Reconcile know everything again, from the records and
//     the kernel, and remove what belongs to no live container. A namespace is held by a
//     descriptor, never by a mount, so what is merely pooled goes with the process.
//   - Several front ends share one Manager. Each owns its attachments; Reconcile of one takes
//     nothing from the others.
//   - No packet path leads through this process, with two exceptions: names, and connections to
//     published ports over [::1], for which Linux has no translation (the kernel sends no packet
//     with source ::1 off the loopback device). Both stop with the process and come back with it.
//   - What is refused is refused whole: no address, port, interface, rule or record stays behind.
//
// # Parts
//
// Manager holds the exported methods and connects the parts: registry (what is known), store
// (records), host (the host's namespace), bridges (what networks have in the kernel), interfaces
// (veth pairs and their addresses), pool (prepared and recycled namespaces), removals (pairs that
// are about to go), endpoints (attachments), publisher (host ports), packetFilter and nameServer.
// Types that front ends share are in package place; package sandboxnet attaches a sandbox with all
// of its networks.
//
// # Names
//
// The resolver has a network namespace of its own with an interface in every network, always under
// the address ResolverAddr. Containers reach it by a route on their link and a permanent neighbour
// entry, over the bridge and not through the host, so no INPUT policy of a host's firewall cuts
// them off, a container may run a DNS server on port 53 itself, and one socket serves all networks.
// Questions about anything but containers are sent on from the host's namespace to the servers of
// the host's resolv.conf, so one on the host's loopback (systemd-resolved) is fine. A container
// that is in internal networks only gets no such answers: a name would be a way out.
//
// # More containers than a bridge has ports
//
// A Linux bridge has 1,023 ports. A network starts as one bridge and grows further ones, each
// joined to the first by a veth pair, when the last is full: one subnet, one broadcast domain, up
// to 65,536 addresses. Where bridged packets are filtered (br_netfilter) containers behind further
// bridges reach no other host (bridge.go says why).
//
// # Locks
//
// In order: sandbox.mu (one operation on a container's interfaces at a time), network.setup
// (bringing a network up), removals.collecting, packetFilter.mu, nameServer.mu, host.mu,
// registry.mu, removals.mu, and those inside workers, firewall, link and resolver. registry.mu is
// held while a network is defined and its record written; otherwise never during a system call that
// waits.
//
// Not for: the network modes none, host and container:NAME (the engine's), overlay networks between
// hosts, running network programs of others (nothing is executed here), filtering what containers
// say to each other within a network.
//
// Tested by packets: tests run in network namespaces that stand for this host, its neighbours and
// the containers; they need root. The decisions are tested by tables, here and in the packages
// below (ipam, firewall, resolver). The fault test of cmd/straked kills the engine at every step
// that Config.Fault names and compares the host before and after.
package network
