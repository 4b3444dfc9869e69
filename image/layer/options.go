package layer

import "errors"

// Style says what a whiteout becomes.
type Style int

const (
	// Overlay records whiteouts as overlayfs does: a 0:0 character device hides a name,
	// trusted.overlay.opaque hides a directory's lower content. The root must be a directory that
	// becomes a layer of an overlay mount.
	Overlay Style = iota
	// Merged removes what the whiteout names. The root is a complete tree, for example an overlay
	// mount of the layer on its parents.
	Merged
)

// Limits bound one archive. The zero value means the defaults.
type Limits struct {
	// Bytes is the most an archive may hold, both as a stream and as the sum of its files' sizes
	// with holes counted. Default 128 GiB.
	Bytes int64
	// Entries is the most names an archive may create or remove. Default 8 million.
	Entries int64
}

const (
	defaultLimitBytes   = 128 << 30
	defaultLimitEntries = 8 << 20
)

func (l Limits) withDefaults() Limits {
	if l.Bytes <= 0 {
		l.Bytes = defaultLimitBytes
	}
	if l.Entries <= 0 {
		l.Entries = defaultLimitEntries
	}
	return l
}

// Options are the parameters of Apply; the zero value is Overlay style with default limits.
type Options struct {
	Style  Style
	Limits Limits
}

// Result is what Apply did.
type Result struct {
	// Bytes is the sum of the sizes of the regular files written.
	Bytes int64
	// Entries counts the archive's entries.
	Entries int64
	// Implied lists directories (relative to the root, "." for the root) that exist only because
	// something inside them was named. The archive says nothing about their mode and owner: see
	// InheritDirs.
	Implied []string
}

// ErrNeedsParents is wrapped by errors of Apply in Overlay style for archives that refer to
// something that only a parent layer can hold: a hard link to a file of a parent, or a directory
// reached through a parent's symbolic link.
var ErrNeedsParents = errors.New("layer refers to its parents")
