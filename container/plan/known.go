package plan

import "sort"

// Namespaces lists the types of namespaces that a configuration may name.
func Namespaces() []string {
	list := make([]string, 0, len(namespaceFlags))
	for _, ns := range namespaceFlags {
		list = append(list, string(ns.key))
	}
	sort.Strings(list)
	return list
}

// MountOptions lists the mount options that mean the same for every filesystem.
func MountOptions() []string {
	list := []string{"bind", "rbind", "remount", "defaults", "idmap", "ridmap"}
	for _, attr := range attrOptions {
		list = append(list, attr.key, "r"+attr.key)
	}
	list = append(list, superOptions...)
	for _, p := range propagations {
		list = append(list, p.key)
	}
	sort.Strings(list)
	return list
}
