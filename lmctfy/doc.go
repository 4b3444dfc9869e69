// Package lmctfy makes resource containers: names for groups of processes whose use of some
// resources is isolated, without images, namespaces or a daemon.
//
// The interface is that of Google's lmctfy 0.5.0. A container is a name in a hierarchy
// (lmctfy/name) and a specification (lmctfy/spec). Only what the specification names is isolated:
// everything else is shared with the container above. Any process may enter a container.
//
// # Where containers are
//
// The hierarchy is that of the kernel's control groups: container /a/b is the group /a/b of the
// freezer tree (version 1), or of the one tree (version 2), below Config.Base. So every group is a
// container, whoever made it: those of the engine are /strake/OWNER/ID, those of other programs
// where their makers put them. Groups whose names a container cannot have are not listed.
//
// On version 1 a container has a group in the trees of the resources that it isolates and in no
// other. Where a container isolates a resource that the container above it does not, the group's
// name holds both names, joined by a colon: "/a:b". Groups of batch containers (NORMAL and
// BEST_EFFORT) directly below the root are in /batch in the trees cpu and cpuacct, which together
// has the least share that the kernel can give.
//
// On version 2 there is one tree. A group with controllers for groups below it may have no
// processes (cgroup-v2.rst, "No Internal Process Constraint"), so the processes of a container are
// in a group ".tasks" inside of it.
//
// # What is recorded
//
// What the kernel does not hold (owner, class of latency, priorities) is kept in an extended
// attribute of the container's group, and is gone with it. A command that is killed while it
// creates or destroys a container leaves a mark on the group above, and the next command that looks
// there completes the removal.
//
// Not for: namespaces (strake run, strake lxc), and deciding who gets how much (lmctfy/policy).
//
// A Machine and its Containers may be used by several goroutines and by several processes at once.
// Changes of containers in one container wait for each other (flock(2) on its group).
//
// Tested on the real kernel, on the trees of version 1 and on a version 2 tree without controllers;
// by tables without a kernel for what a specification becomes; and by killing the process before
// each step of create and destroy.
package lmctfy
