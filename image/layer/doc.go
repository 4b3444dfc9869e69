// Package layer turns layer archives into directory trees and back.
//
// An archive is hostile until proven otherwise. Promises:
//
//   - Nothing is read or written outside the root directory it was given as a descriptor. Every
//     name is resolved by openat2(2) with RESOLVE_IN_ROOT or created by a *at call on a descriptor
//     resolved so; no path is joined and then trusted.
//   - Archives are bounded in bytes and entries (Limits), so that a bomb ends in one error and not
//     in a full disk.
//   - Whiteouts follow image-spec layer.md ("Whiteouts", "Opaque Whiteout"). In Overlay style they
//     become what overlayfs itself understands (Documentation/filesystems/overlayfs.rst, "whiteouts
//     and opaque directories"), so that every layer of an image is unpacked into a directory of its
//     own, independent of its parents and in parallel with them. A layer that only makes sense on
//     top of its parents says so with ErrNeedsParents and is applied again in Merged style onto a
//     mounted overlay.
//   - security.capability and user.* attributes survive; attributes that overlayfs or the kernel
//     give a meaning of their own are dropped.
//
// Not for: deciding what is trusted (digests are compared by the caller), user namespaces (owners
// are written as the archive has them; idmapped mounts shift them later), other kernels than Linux.
//
// Tested by tables of known escapes (symlink and hard link tricks, whiteouts of "..", device 0:0,
// replaced parents), by comparing round trips with the tree they came from, and by FuzzApply, whose
// root stands beside a canary that must not change.
package layer
