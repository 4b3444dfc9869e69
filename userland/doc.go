// Package userland is what a person finds in a container of the image strake/base: a shell and the
// commands to look around with, each a function ("applet") in one process image.
//
// Promises:
//
//   - An applet takes its world from a [Call]: arguments, streams, directory and environment. It
//     changes no state of the process (working directory, umask, signal dispositions), so the shell
//     runs many applets as function calls, and tests run all of them so. The exceptions are sh
//     itself, env and timeout, which run or become other programs, and say so.
//   - Options are those of POSIX with the GNU and busybox additions people type. An option that is
//     not known is an error that names it, with exit status 2; none is skipped. Faults of operands
//     are reported on standard error as "applet: operand: reason" with exit status 1, and the
//     remaining operands are still served.
//   - Start-up is as close to that of an empty Go program as the shell's parser lets it: no package
//     with a costly initialisation is imported (net/http costs more than everything else here
//     together, so wget and httpd speak HTTP/1.1 with the parser in http.go).
//
// Regular expressions are POSIX basic or extended ones, translated to RE2: no back-references in
// patterns, linear time.
//
// The commands of u-root were considered for each applet. They are not used: their flags come from
// package flag (no clustered or GNU options, usage errors without a status), several print in Go's
// forms (modes, times), and the gap had to be filled around them anyway. The shell's language is
// mvdan.cc/sh, addresses and routes are read by vishvananda/netlink, echo requests are coded by
// x/net/icmp.
//
// Not for: job control, TLS (there are no certificates in the image), editing files (no vi), awk,
// package management, being a complete coreutils.
//
// Tested by tables of command lines with their input, output and status, by the same command lines
// given to the host's own commands where those mean the same, by shell scripts, and by clients and
// servers talking over loopback.
package userland
