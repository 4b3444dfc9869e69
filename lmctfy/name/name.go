// Package name is about the names of resource containers, which are hierarchical as paths are.
//
// A [Name] is absolute and clean: "/" is the machine, "/a" a container, "/a/b" a container inside
// of it. [Resolve] makes one from what a user wrote, which may be relative to the container that
// the caller is in. The package is pure.
//
// Not for: whether a container exists.
//
// Tested by tables and a fuzz test.
package name

import (
	"fmt"
	"path"
	"strings"

	"github.com/containerd/errdefs"
)

// Name is an absolute, clean name. The zero value is no name; Resolve and the methods make one.
type Name string

// Root is the machine. It always exists.
const Root Name = "/"

// Limits of the kernel: NAME_MAX, and half of PATH_MAX so that a mount point fits before the name.
const (
	maxPart = 255
	maxName = 2048
)

// allowed ends each error about a character.
const allowed = "want letters, digits, '_', '-', '.' and '/'"

// Resolve makes a name absolute. current is the caller's container, from which a relative name
// starts. As in paths, "." is the container itself and ".." its parent; the parent of the root is
// the root. After that each part has to begin with a letter or a digit. Errors are of class
// errdefs.ErrInvalidArgument.
func Resolve(given string, current Name) (Name, error) {
	invalid := func(why string) (Name, error) {
		return "", fmt.Errorf("container name %q: %s: %w", given, why, errdefs.ErrInvalidArgument)
	}
	if given == "" {
		return invalid("it is empty")
	}
	for _, r := range given {
		if !letter(r) && !strings.ContainsRune("_-./", r) {
			return invalid(fmt.Sprintf("character %q: %s", r, allowed))
		}
	}
	full := given
	if !path.IsAbs(given) {
		full = string(current) + "/" + given
	}
	full = path.Clean(full)
	if len(full) > maxName {
		return invalid(fmt.Sprintf("it is longer than %d bytes", maxName))
	}
	if full == "/" {
		return Root, nil
	}
	for part := range strings.SplitSeq(full[1:], "/") {
		if !letter(rune(part[0])) {
			return invalid(fmt.Sprintf("part %q has to begin with a letter or a digit", part))
		}
		if len(part) > maxPart {
			return invalid(fmt.Sprintf("part %.16q... is longer than %d bytes", part, maxPart))
		}
	}
	return Name(full), nil
}

func letter(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// Parent is the container that n is in. The root is its own parent.
func (n Name) Parent() Name { return Name(path.Dir(string(n))) }

// Base is the last part, and "/" for the root.
func (n Name) Base() string { return path.Base(string(n)) }

// Child is the name of a container in n.
func (n Name) Child(base string) Name { return Name(path.Join(string(n), base)) }

// Top says whether n is directly below the root.
func (n Name) Top() bool { return n != Root && n.Parent() == Root }

// Parts are the names of the containers from the top down, none for the root.
func (n Name) Parts() []string {
	if n == Root {
		return nil
	}
	return strings.Split(string(n)[1:], "/")
}
