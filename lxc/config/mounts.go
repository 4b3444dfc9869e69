package config

import (
	"io"
	"slices"
	"strings"
)

// variants are what may follow each word of lxc.mount.auto.
var (
	procVariants   = []string{"mixed", "rw"}
	sysVariants    = []string{"mixed", "ro", "rw"}
	cgroupVariants = []string{"mixed", "ro", "rw"}
	autoWords      = []string{
		"proc", "proc:mixed", "proc:rw", "sys", "sys:ro", "sys:mixed", "sys:rw", "cgroup",
		"cgroup:mixed", "cgroup:ro", "cgroup:rw", "cgroup-full", "cgroup-full:mixed",
		"cgroup-full:ro", "cgroup-full:rw", "cgroup2", "cgroup2:ro",
	}
)

// autoRank orders Config.Mount.Auto; a word replaces the one of the same rank.
func autoRank(what string) int {
	switch what {
	case "proc":
		return 0
	case "sys":
		return 1
	case "cgroup", "cgroup2":
		return 2
	}
	return 3
}

func setAutoMounts(at any, _, value string) error {
	p := at.(*[]AutoMount)
	all := slices.Clone(*p)
	for word := range strings.FieldsSeq(value) {
		m, err := autoMount(word)
		if err != nil {
			return err
		}
		rank := autoRank(m.What)
		all = slices.DeleteFunc(all, func(o AutoMount) bool { return autoRank(o.What) == rank })
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b AutoMount) int { return autoRank(a.What) - autoRank(b.What) })
	*p = all
	return nil
}

// autoMount reads one word.
func autoMount(word string) (AutoMount, error) {
	if paths, ok := strings.CutPrefix(word, "shmounts:"); ok {
		host, inside, _ := strings.Cut(paths, ":")
		if host == "" {
			return AutoMount{}, want("shmounts:HOST-PATH or shmounts:HOST-PATH:CONTAINER-PATH")
		}
		return AutoMount{What: "shmounts", HostPath: host, ContainerPath: inside}, nil
	}
	var m AutoMount
	what, rest, more := strings.Cut(word, ":")
	m.What = what
	var allowed []string
	switch what {
	case "proc":
		allowed = procVariants
	case "sys":
		allowed = sysVariants
	case "cgroup-full":
		m.What, m.Full, allowed = "cgroup", true, cgroupVariants
	case "cgroup":
		allowed = cgroupVariants
	case "cgroup2":
		allowed = []string{"ro"}
	default:
		return m, unknownAuto(word)
	}
	if autoRank(m.What) == 2 {
		if rest == "force" {
			rest, m.Force, more = "", true, false
		} else if variant, ok := strings.CutSuffix(rest, ":force"); ok {
			rest, m.Force = variant, true
		}
	}
	if m.Variant = rest; more && !slices.Contains(allowed, rest) {
		return m, unknownAuto(word)
	}
	return m, nil
}

func unknownAuto(word string) error {
	return want("words of %s, where the cgroup ones may end in :force, or "+
		"shmounts:HOST-PATH; %q is not one%s", strings.Join(autoWords, " "), word,
		didYouMean(word, autoWords))
}

// word is the spelling that LXC prints.
func (m AutoMount) word() string {
	switch m.What {
	case "shmounts":
		if m.ContainerPath == "" {
			return "shmounts:" + m.HostPath
		}
		return "shmounts:" + m.HostPath + ":" + m.ContainerPath
	case "proc", "sys":
		if m.Variant == "" {
			return m.What + ":mixed"
		}
	}
	word := m.What
	if m.Full {
		word += "-full"
	}
	if m.Variant != "" {
		word += ":" + m.Variant
	}
	if m.Force {
		word += ":force"
	}
	return word
}

func getAutoMounts(at any, _ string) []string {
	var all []string
	for _, m := range *at.(*[]AutoMount) {
		all = append(all, m.word())
	}
	one := strings.Join(all, " ")
	return show(&one)
}

func clearAutoMounts(at any, _ string) { *at.(*[]AutoMount) = nil }

func setMountEntry(at any, _, value string) error {
	c := at.(*Config)
	m, err := mountLine(value)
	if err == nil {
		c.Mount.Entries, c.entries = append(c.Mount.Entries, m), append(c.entries, value)
	}
	return err
}

func getMountEntry(at any, _ string) []string { return slices.Clone(at.(*Config).entries) }

func clearMountEntry(at any, _ string) {
	c := at.(*Config)
	c.Mount.Entries, c.entries = nil, nil
}

// mountLine reads a line of fstab(5). As in getmntent(3), options and the two numbers may be
// missing.
func mountLine(value string) (MountEntry, error) {
	fields := strings.Fields(value)
	if len(fields) < 3 || len(fields) > 6 || strings.HasPrefix(value, "#") {
		return MountEntry{}, want("SOURCE TARGET TYPE OPTIONS 0 0, as in fstab(5); " +
			`a space inside of a field is \040`)
	}
	m := MountEntry{Source: unescape(fields[0]), Target: unescape(fields[1]),
		Type: unescape(fields[2])}
	for _, n := range fields[min(4, len(fields)):] {
		if strings.Trim(n, "0123456789") != "" {
			return MountEntry{}, want("numbers as fifth and sixth field; %q is not one", n)
		}
	}
	if len(fields) < 4 {
		return m, nil
	}
	for option := range strings.SplitSeq(unescape(fields[3]), ",") {
		if err := m.option(option); err != nil {
			return MountEntry{}, err
		}
	}
	return m, nil
}

// option adds one mount option.
func (m *MountEntry) option(option string) error {
	create, ok := strings.CutPrefix(option, "create=")
	switch {
	case ok && create != "dir" && create != "file":
		return want("create=dir or create=file among the options; there is %q", option)
	case ok && m.Create != "" && m.Create != create:
		return want("either create=dir or create=file among the options")
	case ok:
		m.Create = create
	case option == "optional":
		m.Optional = true
	case option == "relative":
		m.Relative = true
	case option == "idmap=":
		return want("idmap=container or the path of a user namespace among the options")
	case option != "" && option != "defaults":
		m.Options = append(m.Options, option)
	}
	return nil
}

// unescape decodes the \ooo of fstab(5).
func unescape(field string) string {
	if !strings.Contains(field, `\`) {
		return field
	}
	var b strings.Builder
	for i := 0; i < len(field); i++ {
		if n, ok := octal(field[i:]); ok {
			b.WriteByte(n)
			i += 3
			continue
		}
		b.WriteByte(field[i])
	}
	return b.String()
}

// octal reads a byte from the start of a text. A NUL is none, since no path can have one.
func octal(s string) (byte, bool) {
	if len(s) < 4 || s[0] != '\\' || s[1] > '3' {
		return 0, false
	}
	n := 0
	for _, digit := range []byte(s[1:4]) {
		if digit < '0' || digit > '7' {
			return 0, false
		}
		n = n*8 + int(digit-'0')
	}
	return byte(n), n != 0
}

// ParseFSTab reads a file in the format of fstab(5), as lxc.mount.fstab names one. name is for
// messages. Lines that are wrong are reported together as Errors.
func ParseFSTab(name string, r io.Reader) ([]MountEntry, error) {
	var all []MountEntry
	var wrong Errors
	eachLine(name, r, &wrong, func(text string) *Error {
		text = strings.TrimSpace(text)
		if text == "" || text[0] == '#' {
			return nil
		}
		m, err := mountLine(text)
		if err == nil && strings.Contains(text, "\x00") {
			err = want("no NUL byte")
		}
		if err != nil {
			return &Error{Value: text, Problem: err.Error()}
		}
		all = append(all, m)
		return nil
	})
	if len(wrong) > 0 {
		return nil, wrong
	}
	return all, nil
}
