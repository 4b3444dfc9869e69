package test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// read is a file of a container's directory.
func (r *lxcRig) read(name ...string) string {
	r.t.Helper()
	raw, err := os.ReadFile(filepath.Join(append([]string{r.dir}, name...)...))
	if err != nil {
		r.t.Error(err)
	}
	return string(raw)
}

// item is what a container's configuration says of a key.
func (r *lxcRig) item(name, key string) string {
	r.t.Helper()
	return strings.TrimSpace(r.ok("info", "-n", name, "-c", key))
}

// TestLXCCopy makes an independent copy and starts it beside the original.
func TestLXCCopy(t *testing.T) {
	r := newLXCRig(t)
	r.busybox("one")
	const mac = "00:16:3e:01:02:03"
	hook := filepath.Join(r.dir, "one", "hook")
	if err := os.WriteFile(hook, []byte("#!/bin/sh\necho \"$@ $LXC_SRC_NAME\" >$LXC_ROOTFS_MOUNT/said\n"),
		0o755); err != nil {
		t.Fatal(err)
	}
	r.config("one", "lxc.hook.clone = "+hook, "lxc.net.0.hwaddr = "+mac, "# kept")
	if err := os.WriteFile(
		filepath.Join(r.dir, "one", "rootfs/etc/hostname"), []byte("one\n"), 0o644,
	); err != nil {
		t.Fatal(err)
	}
	r.ok("copy", "-n", "one", "-N", "two", "--", "more")
	for _, c := range []struct{ what, got, want string }{
		{"list", r.ok("ls", "-1"), "one\ntwo\n"},
		{"root", r.item("two", "lxc.rootfs.path"), "lxc.rootfs.path = " + r.dir + "/two/rootfs"},
		{"name", r.item("two", "lxc.uts.name"), "lxc.uts.name = two"},
		{"/etc/hostname", r.read("two", "rootfs/etc/hostname"), "two\n"},
		{"/etc/hostname of the original", r.read("one", "rootfs/etc/hostname"), "one\n"},
		{"hook", r.item("two", "lxc.hook.clone"), "lxc.hook.clone = " + r.dir + "/two/hook"},
		{"what the hook said", r.read("two", "rootfs/said"), "two lxc clone dir more one\n"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %q, want %q", c.what, c.got, c.want)
		}
	}
	if got := r.item("two", "lxc.net.0.hwaddr"); !strings.Contains(got, "00:16:3e:") ||
		strings.Contains(got, mac) {
		t.Errorf("hardware address of the copy: %s", got)
	}
	if !strings.Contains(r.read("two", "config"), "# kept") {
		t.Error("a comment of the configuration is gone")
	}
	r.ok("start", "one")
	if _, msg, code := r.do("copy", "one", "-N", "three"); code != 1 ||
		!strings.Contains(msg, "is running") {
		t.Errorf("copy of one that runs: status %d, %s", code, msg)
	}
	r.ok("start", "two")
	if got := r.ok("attach", "two", "--", "hostname"); got != "two\n" {
		t.Errorf("hostname %q", got)
	}
	r.ok("stop", "-k", "one")
	r.ok("stop", "-k", "two")
	r.ok("copy", "one", "-N", "same", "-K", "-M")
	if got := r.item("same", "lxc.net.0.hwaddr") + r.item("same", "lxc.uts.name"); !strings.Contains(
		got, mac) || !strings.HasSuffix(got, "= one") {
		t.Errorf("copy with -K -M: %s", got)
	}
	if _, msg, code := r.do("copy", "one", "-N", "two"); code != 1 ||
		!strings.Contains(msg, "already exists") {
		t.Errorf("copy to one that exists: status %d, %s", code, msg)
	}
	other := filepath.Join(filepath.Dir(r.dir), "other")
	r.ok("copy", "one", "-N", "two", "-p", other)
	if _, err := os.Stat(filepath.Join(other, "two", "rootfs", "bin")); err != nil {
		t.Error(err)
	}
	r.ok("copy", "-R", "two", "-N", "new")
	if got := r.ok("ls", "-1"); got != "new\none\nsame\n" {
		t.Errorf("after the renaming: %q", got)
	}
	r.ok("start", "new")
	if got := r.ok("attach", "new", "--", "cat", "/proc/sys/kernel/hostname", "/etc/hostname"); got !=
		"new\nnew\n" {
		t.Errorf("hostname %q", got)
	}
	r.ok("stop", "-k", "new")
	r.renameKilled()
}

// renameKilled has "new" renamed to "newer" after a renaming that was killed between its two steps.
func (r *lxcRig) renameKilled() {
	t := r.t
	t.Helper()
	text := strings.ReplaceAll(r.read("new", "config"), r.dir+"/new/", r.dir+"/newer/")
	if err := os.WriteFile(
		filepath.Join(r.dir, "new", "config.renamed"), []byte(text), 0o640,
	); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(r.dir, "new"), filepath.Join(r.dir, "newer")); err != nil {
		t.Fatal(err)
	}
	r.ok("copy", "-R", "new", "-N", "newer")
	r.ok("start", "newer")
	r.ok("stop", "-k", "newer")
}

// TestLXCSnapshotClone makes copies that are overlays: the original is kept while they are there.
func TestLXCSnapshotClone(t *testing.T) {
	r := newLXCRig(t)
	r.busybox("base")
	r.ok("copy", "-s", "base", "-N", "over")
	if got, want := r.item("over", "lxc.rootfs.path"),
		r.dir+"/base/rootfs:"+r.dir+"/over/overlay/delta"; !strings.HasSuffix(got, want) {
		t.Errorf("root file system %s, want %s", got, want)
	}
	if got := r.read("base", "lxc_snapshots"); got != r.dir+"\nover\n" {
		t.Errorf("lxc_snapshots: %q", got)
	}
	if got := r.read("over", "lxc_rdepends"); got != r.dir+"\nbase\n" {
		t.Errorf("lxc_rdepends: %q", got)
	}
	r.ok("start", "over")
	r.ok("attach", "over", "--", "sh", "-c", "echo changed >/changed; rm /bin/true")
	r.ok("stop", "-k", "over")
	if _, err := os.Stat(filepath.Join(r.dir, "base/rootfs/changed")); err == nil {
		t.Error("the clone changed its original")
	}
	r.ok("copy", "-s", "over", "-N", "above")
	r.ok("copy", "-B", "dir", "over", "-N", "flat")
	for _, name := range []string{"above", "flat"} {
		r.ok("start", name)
		got := r.ok("attach", name, "--", "sh", "-c", "cat /changed /etc/hostname; ls /bin/true 2>&1; :")
		if !strings.HasPrefix(got, "changed\n") || !strings.Contains(got, "No such file") {
			t.Errorf("%s: %q", name, got)
		}
		r.ok("stop", "-k", name)
	}
	for range 2 {
		if _, msg, code := r.do("destroy", "base"); code != 1 || !strings.Contains(msg, "over") {
			t.Errorf("destroy of the original: status %d, %s", code, msg)
		}
		if _, msg, code := r.do("copy", "-R", "base", "-N", "new"); code != 1 ||
			!strings.Contains(msg, "used by") {
			t.Errorf("renaming of the original: status %d, %s", code, msg)
		}
	}
	r.ok("destroy", "over")
	if _, _, code := r.do("destroy", "base"); code != 1 {
		t.Error("the original went before the copy of the copy")
	}
	r.ok("copy", "-R", "above", "-N", "renamed")
	if got := r.read("base", "lxc_snapshots"); got != r.dir+"\nrenamed\n" {
		t.Errorf("lxc_snapshots after a renaming: %q", got)
	}
	r.ok("destroy", "renamed")
	r.ok("destroy", "base")
	r.ok("start", "flat")
	r.ok("stop", "-k", "flat")
	if _, msg, code := r.do("copy", "flat", "-N", "x", "-B", "overlay"); code != 1 ||
		!strings.Contains(msg, "-s") {
		t.Errorf("an overlay without -s: status %d, %s", code, msg)
	}
}

// TestLXCEphemeral starts copies that their end destroys.
func TestLXCEphemeral(t *testing.T) {
	r := newLXCRig(t)
	r.busybox("base")
	host := filepath.Join(filepath.Dir(r.dir), "host")
	if err := os.MkdirAll(host, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(host, "file"), []byte("host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out := r.ok("copy", "-e", "base", "-N", "e1", "-m", "bind="+host+":/bound:ro,overlay="+host+":/over")
	if out != "Created e1 as clone of base\n" {
		t.Errorf("%q", out)
	}
	got, _, _ := r.do("attach", "e1", "--", "sh", "-c",
		"cat /bound/file; echo mine >/over/file; cat /over/file; echo no 2>/dev/null >/bound/file")
	if got != "host\nmine\n" {
		t.Errorf("mounts: %q", got)
	}
	if raw, _ := os.ReadFile(filepath.Join(host, "file")); string(raw) != "host\n" {
		t.Errorf("the host's file: %q", raw)
	}
	r.ok("stop", "-k", "e1")
	if _, err := os.Stat(filepath.Join(r.dir, "e1")); !os.IsNotExist(err) {
		t.Errorf("the ephemeral container after its end: %v", err)
	}
	// One that ends by itself, on a tmpfs, with a name that is made up.
	out = r.ok("copy", "-e", "-t", "-q", "base")
	names := strings.Fields(strings.ReplaceAll(r.ok("ls", "-1"), "base\n", ""))
	if out != "" || len(names) != 1 || !strings.HasPrefix(names[0], "base_") {
		t.Fatalf("%q, %q", out, names)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Join(r.dir, names[0], "overlay"), &st); err != nil ||
		st.Type != unix.TMPFS_MAGIC {
		t.Errorf("its changes are on a file system of type %x, %v", st.Type, err)
	}
	r.ok("attach", names[0], "--", "poweroff")
	r.until(names[0], "end", func() bool { return r.ok("ls", "-1") == "base\n" })
	// With a command, and kept.
	if out := r.ok("copy", "-e", "-D", "-N", "kept", "base", "--", "hostname"); !strings.HasSuffix(
		out, "\nkept\n") {
		t.Errorf("%q", out)
	}
	if got := r.state("kept"); got != "STOPPED" {
		t.Errorf("state %q", got)
	}
	// One that does not start leaves nothing.
	if _, _, code := r.do("copy", "-e", "-N", "bad", "-m", "overlay=/missing", "base"); code != 1 {
		t.Errorf("status %d of one that cannot start", code)
	}
	r.ok("destroy", "kept")
	r.ok("destroy", "base")
	if got := r.ok("ls"); got != "" {
		t.Errorf("in the end: %q", got)
	}
}

// TestLXCSnapshot makes, lists, restores and destroys snapshots of a directory and of an overlay.
func TestLXCSnapshot(t *testing.T) {
	r := newLXCRig(t)
	r.busybox("base")
	r.ok("copy", "base", "-N", "dir")
	r.ok("copy", "-s", "base", "-N", "over")
	comment := filepath.Join(filepath.Dir(r.dir), "comment")
	if err := os.WriteFile(comment, []byte("first one\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, own string }{{"dir", "rootfs"}, {"over", "overlay/delta"}} {
		file := filepath.Join(r.dir, c.name, c.own, "mark")
		mark := func(s string) {
			if err := os.WriteFile(file, []byte(s), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := r.ok("snapshot", "-L", c.name); got != "No snapshots\n" {
			t.Errorf("%s: %q", c.name, got)
		}
		mark("a")
		r.ok("snapshot", "-c", comment, c.name)
		mark("b")
		r.ok("snapshot", c.name)
		mark("c")
		list := strings.Split(r.ok("snapshot", "-L", "-C", c.name), "\n")
		snaps := "(" + filepath.Join(r.dir, c.name, "snaps") + ") 20"
		if len(list) != 4 || !strings.HasPrefix(list[0], "snap0 "+snaps) || list[1] != "first one" ||
			!strings.HasPrefix(list[2], "snap1 "+snaps) {
			t.Errorf("%s: %q", c.name, list)
		}
		if _, msg, code := r.do("destroy", c.name); code != 1 || !strings.Contains(msg, "snapshots") {
			t.Errorf("%s: destroy: status %d, %s", c.name, code, msg)
		}
		r.ok("snapshot", "-r", "snap0", c.name)
		if got := r.read(c.name, c.own, "mark"); got != "a" {
			t.Errorf("%s restored: %q", c.name, got)
		}
		r.ok("snapshot", "-r", "snap1", "-N", c.name+"-new", c.name)
		if got := r.read(c.name+"-new", c.own, "mark"); got != "b" {
			t.Errorf("%s restored elsewhere: %q", c.name, got)
		}
		for _, name := range []string{c.name, c.name + "-new"} {
			r.ok("start", name)
			if got := r.ok("attach", name, "--", "hostname"); got != name+"\n" {
				t.Errorf("hostname %q", got)
			}
			r.ok("stop", "-k", name)
		}
		r.ok("snapshot", "-d", "snap0", c.name)
		if _, msg, code := r.do("snapshot", "-d", "snap0", c.name); code != 1 ||
			!strings.Contains(msg, "there are: snap1") {
			t.Errorf("%s: status %d, %s", c.name, code, msg)
		}
		r.ok("snapshot", c.name) // snap0 again
		r.ok("snapshot", "-d", "ALL", c.name)
		if got := r.ok("snapshot", "-L", c.name); got != "No snapshots\n" {
			t.Errorf("%s: %q", c.name, got)
		}
		r.ok("snapshot", c.name)
		r.ok("destroy", "-s", c.name)
		if c.name == "over" {
			if _, msg, code := r.do("destroy", "base"); code != 1 || !strings.Contains(msg, "over-new") {
				t.Errorf("base: status %d, %s", code, msg)
			}
		}
		r.ok("destroy", c.name+"-new")
	}
	r.ok("destroy", "base")
}

// TestLXCCopyKilled kills lxc-copy at any moment: the next command removes what is left.
func TestLXCCopyKilled(t *testing.T) {
	r := newLXCRig(t)
	r.busybox("base")
	random := rand.New(rand.NewPCG(3, 4))
	for i := range 24 {
		args := []string{"base", "-N", "copy"}
		if i%2 == 0 {
			args = append(args, "-s")
		}
		cmd := r.command("copy", args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		if strings.Contains(r.ok("ls", "-1"), "copy") {
			r.ok("destroy", "copy")
		}
	}
	r.ok("copy", "base", "-N", "copy")
	r.ok("start", "copy")
	r.ok("stop", "-k", "copy")
	if _, err := os.Stat(filepath.Join(r.dir, "base", "lxc_snapshots")); !os.IsNotExist(err) {
		t.Errorf("lxc_snapshots: %v", err)
	}
	cmd := r.command("copy", "-s", "base", "-N", "half")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.until("half", "copy under way", func() bool {
		_, err := os.Stat(filepath.Join(r.dir, "half", "lxc_rdepends"))
		return err == nil
	})
	cmd.Process.Kill()
	cmd.Wait()
	if strings.Contains(r.ok("ls", "-1"), "half") {
		r.ok("destroy", "half")
	}
	r.ok("destroy", "base")
}
