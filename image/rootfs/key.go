package rootfs

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"
)

var (
	namePattern  = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)
	ownerPattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
)

// Key joins the owner of a root file system and its name to the key "owner/name"; an empty owner
// gives the bare name. A name has up to 128 letters, digits, "_", "." and "-" and begins with a
// letter or digit; an owner has up to 32 lower-case letters, digits and "-" and begins with a
// letter. What is neither is ErrInvalidArgument.
func Key(owner, name string) (string, error) {
	if owner != "" && !ownerPattern.MatchString(owner) {
		return "", fmt.Errorf(
			"owner %q of a root file system, want %s: %w", owner, ownerPattern,
			errdefs.ErrInvalidArgument,
		)
	}
	if !namePattern.MatchString(name) {
		return "", fmt.Errorf(
			"root file system key %q, want %s: %w", name, namePattern, errdefs.ErrInvalidArgument,
		)
	}
	if owner == "" {
		return name, nil
	}
	return owner + "/" + name, nil
}

// SplitKey is the inverse of Key. What Key cannot have returned is ErrInvalidArgument.
func SplitKey(key string) (owner, name string, err error) {
	owner, name, owned := strings.Cut(key, "/")
	if !owned {
		owner, name = "", key
	} else if owner == "" {
		return "", "", fmt.Errorf(
			"root file system key %q has an empty owner: %w", key, errdefs.ErrInvalidArgument,
		)
	}
	_, err = Key(owner, name)
	return owner, name, err
}

// On disk a key is one path element: the bare name, or "owner~name", which no bare name can be.
const separator = "~"

// element is the path element of a valid key.
func element(key string) string { return strings.Replace(key, "/", separator, 1) }

// keyOf is the key of a path element; one that is no key's is an error.
func keyOf(element string) (string, error) {
	key := strings.Replace(element, separator, "/", 1)
	if _, _, err := SplitKey(key); err != nil {
		return "", err
	}
	return key, nil
}
