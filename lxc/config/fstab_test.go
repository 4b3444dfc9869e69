package config

import (
	"strings"
	"testing"
)

func TestParseFSTab(t *testing.T) {
	t.Parallel()
	got, err := ParseFSTab("fstab", strings.NewReader("# mounts\n\n"+
		"\tproc  proc\tproc nodev,noexec,nosuid 0 0\n"+
		`/a\040b\134c /mnt\011x\z\400\000 none rw,bind,,create=file 0`+"\n"+
		`overlay srv overlay lowerdir=/l\040m,relative,optional,defaults`+"\n"+
		"none tmp tmpfs"))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "entries", got, []MountEntry{
		{Source: "proc", Target: "proc", Type: "proc",
			Options: []string{"nodev", "noexec", "nosuid"}},
		{Source: `/a b\c`, Target: "/mnt\tx\\z\\400\\000", Type: "none",
			Options: []string{"rw", "bind"}, Create: "file"},
		{Source: "overlay", Target: "srv", Type: "overlay", Options: []string{"lowerdir=/l m"},
			Optional: true, Relative: true},
		{Source: "none", Target: "tmp", Type: "tmpfs"},
	})
}

func TestErrorsOfFSTab(t *testing.T) {
	t.Parallel()
	const text = "a b\nproc proc proc\na b c d 0 x\na b c\x00\n"
	_, err := ParseFSTab("fstab", strings.NewReader(text))
	const want = `fstab:1: "a b": want SOURCE TARGET TYPE OPTIONS 0 0, as in fstab(5); ` +
		`a space inside of a field is \040
fstab:3: "a b c d 0 x": want numbers as fifth and sixth field; "x" is not one
fstab:4: "a b c\x00": want no NUL byte`
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	_, err = ParseFSTab("f", strings.NewReader(strings.Repeat("x", maxLine+1)))
	if err == nil || err.Error() != "f:1: want lines of less than 65536 bytes" {
		t.Errorf("a long line: %v", err)
	}
	_, err = ParseFSTab("f", strings.NewReader(strings.Repeat("# comment\n", maxFile/10+1)))
	if err == nil {
		t.Error("a file of more than a MiB was read")
	}
}
