package config

import (
	"bufio"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Get returns what lxc-info -c prints for a key, a value a line: numbers and flags also if the
// configuration says nothing, and the default modes of interfaces; nothing for other keys that were
// not set. Keys that have sub keys give "SUB = VALUE" of all, lxc.net the types of all interfaces,
// lxc.net.N the names of the sub keys. An unknown key, and one that the type of an interface does
// not have, are an errdefs.ErrInvalidArgument; an interface that is not there is an
// errdefs.ErrNotFound.
func (c *Config) Get(key string) ([]string, error) {
	name, err := c.present(key)
	if err != nil {
		return nil, err
	}
	k, sub, ok := lookup(name)
	if !ok {
		err = unknownKey(name, "")
		return nil, fmt.Errorf("key %q: %w: %w", key, err, errdefs.ErrInvalidArgument)
	}
	if err := explain(name, k.check(sub)); err != nil {
		return nil, fmt.Errorf("key %q: %w: %w", key, err, errdefs.ErrInvalidArgument)
	}
	if k.name == "lxc.net" && sub != "" {
		if err := c.checkNet(sub); err != nil {
			return nil, fmt.Errorf("key %q: %w", key, err)
		}
	}
	var values []string
	if k.get != nil {
		values = k.get(k.at(c), sub)
	} else {
		values = show(k.at(c))
	}
	if k.sub == also && k.name != "lxc.net" && sub == "" {
		for i := range values {
			values[i] = k.name + "." + values[i]
		}
	}
	return values, nil
}

// present is the current spelling of a key that is asked for. lxc.network.type is that of the last
// interface here.
func (c *Config) present(key string) (string, error) {
	if key == "lxc.network.type" && len(c.Nets) > 0 {
		return netName(c.Nets[len(c.Nets)-1].Index, "type"), nil
	}
	name, err := c.modern(key, "")
	if err != nil {
		return "", fmt.Errorf("key %q: %w: %w", key, err, errdefs.ErrInvalidArgument)
	}
	return name, nil
}

// checkNet refuses a key of an interface that is not there or has another type.
func (c *Config) checkNet(sub string) error {
	index, k, err := splitNet(sub)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	i, found := c.findNet(index)
	if !found {
		return fmt.Errorf("no such network: %w", errdefs.ErrNotFound)
	}
	if k != nil {
		if err := k.belongs(&c.Nets[i]); err != nil {
			return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// Keys lists the keys that begin with a prefix and a dot, without them; all keys for no prefix.
// Those of an interface are the ones of its type.
func (c *Config) Keys(prefix string) []string {
	if prefix == "" {
		return keyNames()
	}
	if digits, ok := strings.CutPrefix(prefix, "lxc.net."); ok {
		index, err := netIndex(digits)
		if i, found := c.findNet(index); err == nil && found {
			return c.Nets[i].subKeys()
		}
		return nil
	}
	var names []string
	for _, name := range keyNames() {
		if word, ok := strings.CutPrefix(name, prefix+"."); ok {
			names = append(names, word)
		}
	}
	return names
}

// longestSetting leaves room in a line for what is written between key and value, and for an old
// name that becomes a longer one.
const longestSetting = maxLine - 64

const notOneLine = "want one line of less than 64 KiB"

// Set adds the line "key = value" at the end, as lxc-start -s and set_config_item do: it replaces
// what a key with one value had, and adds to a list. Without a value it is Clear. An *Error leaves
// the configuration as it was.
func (c *Config) Set(key, value string) error {
	if strings.ContainsAny(key+value, "\n\r\x00") || len(key)+len(value) > longestSetting {
		return &Error{Key: key, Value: value, Problem: notOneLine}
	}
	value = strings.Trim(value, " \t\f")
	plain := unquote(value)
	if plain == "" {
		return c.Clear(key)
	}
	next, err := replay(slices.Clone(c.lines))
	if err != nil {
		return err
	}
	p := parser{c: next}
	l, err := p.set(key, plain)
	if len(p.wrong) > 0 {
		return p.wrong
	}
	if err != nil {
		return &Error{Key: key, Value: plain, Problem: err.Error()}
	}
	l.text = l.key + " = " + value
	next.lines = append(next.lines, l)
	*c = *next
	return nil
}

// Clear removes the lines of a key and, of one that has sub keys, theirs. Where an included file
// gives it a value, the line "key =" is added. Without its type an interface is nothing, so that
// its other lines go with it. An *Error leaves the configuration as it was.
func (c *Config) Clear(key string) error {
	name, err := c.modern(key, "")
	if err != nil {
		return &Error{Key: key, Problem: err.Error()}
	}
	if digits, ok := strings.CutSuffix(name, ".type"); ok && strings.HasPrefix(name, "lxc.net.") {
		name = digits
	}
	k, sub, ok := lookup(name)
	if !ok {
		return &Error{Key: key, Problem: unknownKey(name, "").Error()}
	}
	if err := explain(name, k.check(sub)); err != nil {
		return &Error{Key: key, Problem: err.Error()}
	}
	lines := c.numbered()
	kept := slices.DeleteFunc(slices.Clone(lines), func(l line) bool {
		return k.covers(sub, l.key)
	})
	empty := line{text: name + " =", key: name}
	// A line that goes may have cleared what an included file says, and another line may need that.
	next, err := replay(kept)
	if err != nil {
		next, err = replay(append(lines, empty))
	} else if !next.without(k, sub) {
		next, err = replay(append(kept, empty))
	}
	if err != nil {
		return err
	}
	*c = *next
	return nil
}

// covers says whether the key of a line is this one with the sub key, or below it.
func (k *key) covers(sub, name string) bool {
	other, otherSub, ok := lookup(name)
	switch {
	case !ok:
		return false
	case k.kind == &allHooks:
		return other.kind == &hooks || other == k
	case other != k:
		return false
	case k.sub != also:
		return sub == otherSub
	}
	return sub == "" || sub == otherSub ||
		k.name == "lxc.net" && strings.HasPrefix(otherSub, sub+".")
}

// without says whether a configuration would be the same if a key were cleared.
func (c *Config) without(k *key, sub string) bool {
	cleared, err := replay(c.lines)
	if err != nil {
		return false
	}
	k.erase(cleared, sub)
	return reflect.DeepEqual(c, cleared)
}

// replay makes a configuration of lines that were read before.
func replay(lines []line) (*Config, error) {
	c := &Config{}
	if len(lines) > 0 {
		c.lines = lines
	}
	return c, c.again(lines)
}

func (c *Config) again(lines []line) error {
	for _, l := range lines {
		var err error
		switch {
		case l.key == "":
		case l.include != nil:
			err = c.again(l.include)
		default:
			err = c.apply(l.key, l.value)
		}
		if err != nil {
			return &Error{Key: l.key, Value: l.value, Problem: err.Error()}
		}
	}
	return nil
}

// numbered returns the lines with the numbers of interfaces where the old spelling has none: what
// these count must not change when lines come or go.
func (c *Config) numbered() []line {
	lines := slices.Clone(c.lines)
	for i, l := range lines {
		if strings.HasPrefix(strings.TrimLeft(l.text, " \t"), "lxc.network") {
			_, value, _ := strings.Cut(l.text, "=")
			lines[i].text = strings.TrimRight(l.key+" = "+strings.TrimSpace(value), " ")
		}
	}
	return lines
}

// Rewrite calls edit with the current name and the value of every setting of the file itself, in
// order, and replaces the lines for which edit returns another value; included files stay as they
// are. So a copy of a container gets its own paths and hardware addresses. An *Error leaves the
// configuration as it was.
func (c *Config) Rewrite(edit func(key, value string) string) error {
	next := &Config{}
	p := parser{c: next}
	for _, l := range c.lines {
		value := l.value
		if l.key != "" {
			value = edit(l.key, l.value)
		}
		if value == l.value {
			if err := next.again([]line{l}); err != nil {
				return err
			}
			next.lines = append(next.lines, l)
			continue
		}
		if strings.ContainsAny(value, "\n\r\x00") || len(l.key)+len(value) > longestSetting {
			return &Error{Key: l.key, Value: value, Problem: notOneLine}
		}
		changed, err := p.set(l.key, value)
		if len(p.wrong) > 0 {
			return p.wrong
		}
		if err != nil {
			return &Error{Key: l.key, Value: value, Problem: err.Error()}
		}
		changed.text = strings.TrimRight(l.key+" = "+requote(value), " ")
		next.lines = append(next.lines, changed)
	}
	*c = *next
	return nil
}

// requote quotes a value that would not be read as it is.
func requote(value string) string {
	if unquote(value) == value && strings.Trim(value, "\f") == value {
		return value
	}
	return `"` + value + `"`
}

// WriteExpanded writes all settings in order, those of included files in their place, with current
// names and without comments. What is written says the same whatever happens to the included files.
func (c *Config) WriteExpanded(w io.Writer) error {
	b := bufio.NewWriter(w)
	expand(b, c.lines)
	return b.Flush()
}

func expand(b *bufio.Writer, lines []line) {
	for _, l := range lines {
		switch {
		case l.key == "lxc.include":
			expand(b, l.include)
		case l.key != "":
			b.WriteString(strings.TrimRight(l.key+" = "+requote(l.value), " "))
			b.WriteByte('\n')
		}
	}
}

// Write writes the configuration as LXC's save_config does: the lines of the file that was read
// with its comments, and those that Set and Clear added. Included files are named, not copied.
func (c *Config) Write(w io.Writer) error {
	b := bufio.NewWriter(w)
	for _, l := range c.lines {
		b.WriteString(l.text)
		b.WriteByte('\n')
	}
	return b.Flush()
}
