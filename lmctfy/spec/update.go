package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Resource is a kind of resource that a container may isolate, named as its field.
type Resource string

// The resources, in the order in which they are set up.
const (
	CPU         Resource = "cpu"
	Memory      Resource = "memory"
	BlockIO     Resource = "blockio"
	Device      Resource = "device"
	NetworkIO   Resource = "network"
	Monitoring  Resource = "monitoring"
	Filesystem  Resource = "filesystem"
	VirtualHost Resource = "virtual_host"
)

// All are the resources in the order in which they are set up.
var All = []Resource{
	CPU, Memory, BlockIO, Device, NetworkIO, Monitoring, Filesystem, VirtualHost,
}

// Resources are those that a specification names.
func Resources(s *ContainerSpec) (list []Resource) {
	m := s.ProtoReflect()
	for _, r := range All {
		if m.Has(m.Descriptor().Fields().ByName(protoreflect.Name(r))) {
			list = append(list, r)
		}
	}
	return list
}

// Only is a specification with no other resources than these. It shares nothing with s.
func Only(s *ContainerSpec, keep []Resource) *ContainerSpec {
	out := proto.CloneOf(s)
	m := out.ProtoReflect()
	for _, r := range All {
		if !slices.Contains(keep, r) {
			m.Clear(m.Descriptor().Fields().ByName(protoreflect.Name(r)))
		}
	}
	return out
}

// Policy is what an update does with fields that it does not set.
type Policy string

const (
	// Replace gives them their defaults.
	Replace Policy = "replace"
	// Diff leaves them as they are.
	Diff Policy = "diff"
)

// CheckUpdate refuses what an update cannot change: the set of resources, the class of latency,
// and by whom a container is owned. isolated are the resources that the container isolates, old is
// its specification. Errors are of class errdefs.ErrInvalidArgument.
func CheckUpdate(isolated []Resource, old, change *ContainerSpec, policy Policy) error {
	named := Resources(change)
	for _, r := range named {
		if !slices.Contains(isolated, r) {
			return fmt.Errorf(
				"%s: the container does not isolate it, and an update cannot add it; it isolates "+
					"%s: %w", r, join(isolated), errdefs.ErrInvalidArgument,
			)
		}
	}
	if policy == Replace {
		for _, r := range isolated {
			if !slices.Contains(named, r) {
				return fmt.Errorf(
					"%s: update replace has to name all resources that the container isolates: "+
						"%s: %w", r, join(isolated), errdefs.ErrInvalidArgument,
				)
			}
		}
	}
	was, is := Latency(old), Latency(change)
	if change.GetCpu() != nil && was != is &&
		(policy == Replace || change.GetCpu().SchedulingLatency != nil) {
		return fmt.Errorf(
			"cpu.scheduling_latency: it is %s since the container was created, and cannot become "+
				"%s: %w", was, is, errdefs.ErrInvalidArgument,
		)
	}
	for name, differs := range map[string]bool{
		"owner":       change.Owner != nil && change.GetOwner() != old.GetOwner(),
		"owner_group": change.OwnerGroup != nil && change.GetOwnerGroup() != old.GetOwnerGroup(),
	} {
		if differs {
			return fmt.Errorf(
				"%s: it is set when the container is created: %w", name,
				errdefs.ErrInvalidArgument,
			)
		}
	}
	return nil
}

func join(list []Resource) string {
	if len(list) == 0 {
		return "none"
	}
	words := make([]string, len(list))
	for i, r := range list {
		words[i] = string(r)
	}
	return strings.Join(words, ", ")
}

// Latency is the class of a specification; PRIORITY is the default.
func Latency(s *ContainerSpec) SchedulingLatency {
	if s.GetCpu() == nil || s.Cpu.SchedulingLatency == nil {
		return SchedulingLatency_PRIORITY
	}
	return s.Cpu.GetSchedulingLatency()
}

// Merge is the specification after an update. It shares nothing with its arguments. What an update
// cannot change (owner, owner_group) stays. Repeated fields count as set wherever the message that
// they are in is set.
func Merge(old, change *ContainerSpec, policy Policy) *ContainerSpec {
	if policy == Replace {
		out := proto.CloneOf(change)
		out.Owner, out.OwnerGroup = old.Owner, old.OwnerGroup
		if out.ChildrenLimit == nil {
			out.ChildrenLimit = old.ChildrenLimit
		}
		return out
	}
	out := proto.CloneOf(old)
	merge(out.ProtoReflect(), proto.CloneOf(change).ProtoReflect())
	return out
}

func merge(into, from protoreflect.Message) {
	fields := from.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsList() && !from.Has(f):
			into.Clear(f)
		case !from.Has(f):
		case f.Message() != nil && !f.IsList():
			merge(into.Mutable(f).Message(), from.Get(f).Message())
		default:
			into.Set(f, from.Get(f))
		}
	}
}
