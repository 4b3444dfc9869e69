package plan

import "sort"

// Namespaces lists the types of namespaces that a configuration may name.
func Namespaces() []string {
	list := make([]string, 0, len(namespaceFlags))
	for t := range namespaceFlags {
		list = append(list, string(t))
	}
	sort.Strings(list)
	return list
}

// MountOptions lists the mount options that mean the same for every filesystem.
func MountOptions() []string {
	list := []string{"bind", "rbind", "remount", "defaults", "idmap", "ridmap"}
	for name := range attrOptions {
		list = append(list, name, "r"+name)
	}
	for name := range superOptions {
		list = append(list, name)
	}
	for name := range propagations {
		list = append(list, name)
	}
	sort.Strings(list)
	return list
}
