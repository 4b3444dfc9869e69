// Package machine runs strake's tests in virtual machines with a stock Debian kernel: hosts that
// the machine of the tests is not, with nothing but version 2 of control groups, or with AppArmor.
//
// A machine is a kernel from Debian's package, an initial file system made here, and QEMU, with KVM
// where it is to be had. It has no disk and no network beside its own.
package machine

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strake/internal/testneed"
)

// job and result are the wire to guest/main.go.
type job struct {
	Name    string   `json:"name"`
	Args    []string `json:"args"`
	Dir     string   `json:"dir,omitempty"`
	Seconds int      `json:"seconds"`
}

type result struct {
	Name   string `json:"name"`
	Status int    `json:"status"`
	Output string `json:"output"`
}

// machine is what a guest is made of.
type machine struct {
	t        *testing.T
	files    map[string]string // path in the guest → path here
	texts    map[string]string // path in the guest → contents
	links    map[string]string
	version1 bool
	append   string // for the kernel's command line
	jobs     []job
}

// kernel is an unpacked kernel package.
type kernel struct{ image, modules, release string }

var findKernel = sync.OnceValues(func() (kernel, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = "/var/cache"
	}
	dir := filepath.Join(cache, "strake-test", "kernel")
	find := func() (k kernel, ok bool) {
		list, _ := filepath.Glob(dir + "/unpacked/boot/vmlinuz-*")
		if len(list) == 0 {
			return k, false
		}
		k.image, k.release = list[len(list)-1], strings.TrimPrefix(
			filepath.Base(list[len(list)-1]), "vmlinuz-",
		)
		k.modules = filepath.Join(dir, "unpacked/lib/modules", k.release)
		_, err := os.Stat(k.modules + "/modules.dep")
		return k, err == nil
	}
	if k, ok := find(); ok {
		return k, nil
	}
	out, err := exec.Command("apt-cache", "depends", "linux-image-amd64").Output()
	m := regexp.MustCompile(`Depends: (linux-image-\S+)`).FindSubmatch(out)
	if err != nil || m == nil {
		return kernel{}, fmt.Errorf(
			"apt-cache depends linux-image-amd64: no kernel package: %v", err,
		)
	}
	if err := unpack(dir, string(m[1])); err != nil {
		return kernel{}, err
	}
	if k, ok := find(); ok {
		return k, nil
	}
	// The package leaves the table of dependencies to depmod.
	list, _ := filepath.Glob(dir + "/unpacked/boot/vmlinuz-*")
	if len(list) == 0 {
		return kernel{}, fmt.Errorf("%s has no kernel", m[1])
	}
	release := strings.TrimPrefix(filepath.Base(list[0]), "vmlinuz-")
	if out, err := exec.Command(
		"/bin/busybox", "depmod", "-b", dir+"/unpacked", release,
	).CombinedOutput(); err != nil {
		return kernel{}, fmt.Errorf("depmod: %w: %s", err, out)
	}
	k, ok := find()
	if !ok {
		return kernel{}, fmt.Errorf("%s: no table of modules", dir)
	}
	return k, nil
})

// unpack fetches Debian packages and unpacks them below dir.
func unpack(dir string, packages ...string) error {
	if err := os.MkdirAll(dir+"/unpacked", 0o755); err != nil {
		return err
	}
	fetch := exec.Command(
		"apt-get",
		append([]string{"-q", "-o", "APT::Sandbox::User=root", "download"}, packages...)...,
	)
	fetch.Dir = dir
	if out, err := fetch.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get download %s: %w: %s", strings.Join(packages, " "), err, out)
	}
	debs, _ := filepath.Glob(dir + "/*.deb")
	for _, deb := range debs {
		if out, err := exec.Command(
			"dpkg-deb", "-x", deb, dir+"/unpacked",
		).CombinedOutput(); err != nil {
			return fmt.Errorf("dpkg-deb -x %s: %w: %s", deb, err, out)
		}
		os.Remove(deb)
	}
	return nil
}

// newMachine checks what a machine needs and gives it a shell.
func newMachine(t *testing.T) *machine {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a virtual machine")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("needs amd64, the architecture of the guests")
	}
	for _, p := range []string{"apt-get", "dpkg-deb", "go"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs %s", p)
		}
	}
	testneed.Program(t, "qemu-system-x86_64", "qemu-system-x86")
	testneed.File(t, "/bin/busybox", "busybox-static")
	m := &machine{
		t: t, files: map[string]string{"/bin/busybox": "/bin/busybox"}, texts: map[string]string{},
		links: map[string]string{},
	}
	for _, a := range strings.Fields("sh cat ls true false id hostname sleep echo stat readlink grep mount umount ps test touch head wc env kill tty stty mkdir rm nc ip " +
		"modprobe insmod tail sed awk cut sort uniq tr seq mknod chmod cp mv ln ping wget find xargs date dd expr printf usleep unshare nsenter setsid") {
		m.links["/bin/"+a] = "/bin/busybox"
	}
	m.links["/sbin/modprobe"] = "/bin/busybox"
	m.texts["/etc/passwd"] = "root:x:0:0:root:/root:/bin/sh\n"
	m.texts["/etc/group"] = "root:x:0:\n"
	m.texts["/etc/hosts"] = "127.0.0.1 localhost\n"
	return m
}

// build compiles a package of this module for the guest: a command, or with test its tests.
func (m *machine) build(at, pkg string, test bool) {
	m.t.Helper()
	out := filepath.Join(m.t.TempDir(), filepath.Base(at))
	args := []string{"build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg}
	if test {
		args = []string{"test", "-c", "-trimpath", "-o", out, pkg}
	}
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		m.t.Fatalf("go %s: %v: %s", strings.Join(args, " "), err, text)
	}
	m.files[at] = out
}

// program puts a dynamically linked program and its libraries into the guest.
func (m *machine) program(at, from, libraries string) {
	m.t.Helper()
	m.files[at] = from
	f, err := elf.Open(from)
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			raw, err := io.ReadAll(p.Open())
			if err != nil {
				m.t.Fatal(err)
			}
			interpreter := strings.TrimRight(string(raw), "\x00")
			m.files[interpreter] = resolve(interpreter)
		}
	}
	needed, err := f.ImportedLibraries()
	if err != nil {
		m.t.Fatal(err)
	}
	for _, lib := range needed {
		found := ""
		for _, dir := range []string{
			libraries, "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64",
		} {
			if _, err := os.Stat(filepath.Join(dir, lib)); err == nil && dir != "" {
				found = filepath.Join(dir, lib)
				break
			}
		}
		if found == "" {
			m.t.Skipf("needs the library %s", lib)
		}
		target := "/lib/x86_64-linux-gnu/" + lib
		if _, have := m.files[target]; !have {
			m.program(target, resolve(found), libraries)
		}
	}
}

func resolve(path string) string {
	if p, err := filepath.EvalSymlinks(path); err == nil {
		return p
	}
	return path
}

// run boots the machine and returns what its jobs say.
func (m *machine) run() map[string]result {
	m.t.Helper()
	k, err := findKernel()
	if err != nil {
		m.t.Skipf("needs a kernel: %v", err)
	}
	m.build("/init", "strake/test/machine/guest", false)
	raw, err := json.Marshal(map[string]any{"version1": m.version1, "jobs": m.jobs})
	if err != nil {
		m.t.Fatal(err)
	}
	m.texts["/jobs.json"] = string(raw)
	for _, part := range []string{"kernel/net", "kernel/fs/overlayfs", "kernel/fs/erofs", "kernel/fs/fuse", "kernel/drivers/net/veth.ko", "kernel/drivers/net/dummy.ko",
		"kernel/drivers/net/vxlan", "kernel/lib", "kernel/crypto", "kernel/arch/x86/crypto", "modules.dep", "modules.alias", "modules.symbols", "modules.builtin", "modules.order"} {
		filepath.WalkDir(filepath.Join(
			k.modules, part,
		), func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				rel, _ := filepath.Rel(k.modules, p)
				m.files["/lib/modules/"+k.release+"/"+rel] = p
			}
			return nil
		})
	}
	dir := m.t.TempDir()
	initrd := filepath.Join(dir, "initrd")
	if err := m.writeInitrd(initrd); err != nil {
		m.t.Fatal(err)
	}
	console, answers := filepath.Join(dir, "console"), filepath.Join(dir, "answers")
	limit := 60
	for _, j := range m.jobs {
		limit += j.Seconds
	}
	args := []string{"-M", "pc", "-smp", "2", "-m", "2048", "-nodefaults", "-display", "none", "-no-reboot", "-kernel", k.image, "-initrd", initrd,
		"-append", "console=ttyS0 panic=-1 rdinit=/init random.trust_cpu=on " + m.append, "-serial", "file:" + console, "-serial", "file:" + answers}
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Duration(limit)*time.Second)
	defer cancel()
	begin := time.Now()
	accel := accelerator(console)
	out, err := exec.CommandContext(
		ctx, "qemu-system-x86_64", append(accel, args...)...,
	).CombinedOutput()
	log, _ := os.ReadFile(console)
	if err != nil {
		m.t.Fatalf("qemu: %v: %s\n%s", err, out, tail(log))
	}
	raw, _ = os.ReadFile(answers)
	results := map[string]result{}
	for s := bufio.NewReader(bytes.NewReader(raw)); ; {
		line, err := s.ReadBytes('\n')
		var r result
		if json.Unmarshal(line, &r) == nil && r.Name != "" {
			results[r.Name] = r
		}
		if err != nil {
			break
		}
	}
	m.t.Logf(
		"%s, %s, %d jobs in %.1f s", k.release, accel[1], len(results), time.Since(begin).Seconds(),
	)
	for _, j := range m.jobs {
		if _, ok := results[j.Name]; !ok {
			m.t.Fatalf("no answer for %q\n%s", j.Name, tail(log))
		}
	}
	return results
}

// accelerator chooses KVM if a kernel gets anywhere with it: nested in another machine it may not.
var accelerator = func() func(string) []string {
	var once sync.Once
	accel := []string{"-accel", "tcg,thread=multi", "-cpu", "max"}
	return func(scratch string) []string {
		once.Do(func() {
			k, err := findKernel()
			if err != nil {
				return
			}
			kvm := []string{"-accel", "kvm", "-cpu", "host,arch-capabilities=off"}
			ctx, cancel := context.WithTimeout(context.Background(), 6*time.Second)
			defer cancel()
			// Without an initial file system the kernel panics within a second, and the machine
			// ends.
			exec.CommandContext(ctx, "qemu-system-x86_64", append(kvm, "-M", "pc", "-m", "512", "-nodefaults", "-display", "none", "-no-reboot",
				"-kernel", k.image, "-append", "console=ttyS0 panic=-1", "-serial", "file:"+scratch)...).Run()
			if log, err := os.ReadFile(scratch); err == nil &&
				bytes.Contains(log, []byte("Kernel panic")) {
				accel = kvm
			}
		})
		return accel
	}
}()

func tail(b []byte) []byte { return b[max(0, len(b)-4000):] }

// writeInitrd writes an archive as the kernel unpacks it
// (Documentation/driver-api/early-userspace/buffer-format.rst), format newc.
func (m *machine) writeInitrd(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	inode := 0
	entry := func(path string, mode uint32, size int64, body io.Reader) error {
		path = strings.TrimPrefix(path, "/")
		inode++
		fmt.Fprintf(
			w, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", inode, mode, 0, 0, 1,
			0, size, 0, 0, 0, 0, len(path)+1, 0,
		)
		w.WriteString(path + "\x00")
		pad := func(n int64) {
			for range (4 - n%4) % 4 {
				w.WriteByte(0)
			}
		}
		pad(int64(110 + len(path) + 1))
		if body != nil {
			if n, err := io.Copy(w, body); err != nil || n != size {
				return fmt.Errorf("%s: %d of %d bytes: %w", path, n, size, err)
			}
		}
		pad(size)
		return nil
	}
	made := map[string]bool{"/": true}
	var parents func(path string) error
	parents = func(path string) error {
		dir := filepath.Dir(path)
		if made[dir] {
			return nil
		}
		made[dir] = true
		if err := parents(dir); err != nil {
			return err
		}
		return entry(dir, unix.S_IFDIR|0o755, 0, nil)
	}
	for path, from := range m.files {
		if err := parents(path); err != nil {
			return err
		}
		in, err := os.Open(from)
		if err != nil {
			return err
		}
		st, err := in.Stat()
		if err == nil {
			err = entry(path, unix.S_IFREG|0o755, st.Size(), in)
		}
		in.Close()
		if err != nil {
			return err
		}
	}
	for path, text := range m.texts {
		if err := parents(path); err != nil {
			return err
		}
		if err := entry(
			path, unix.S_IFREG|0o644, int64(len(text)), strings.NewReader(text),
		); err != nil {
			return err
		}
	}
	for path, to := range m.links {
		if err := parents(path); err != nil {
			return err
		}
		if err := entry(
			path, unix.S_IFLNK|0o777, int64(len(to)), strings.NewReader(to),
		); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/proc", "/sys", "/dev", "/tmp", "/run", "/var", "/root", "/mnt"} {
		if err := entry(dir, unix.S_IFDIR|0o755, 0, nil); err != nil {
			return err
		}
	}
	// The kernel opens it for the first process.
	inode++
	fmt.Fprintf(
		w, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", inode, unix.S_IFDIR|0o755,
		0, 0, 1, 0, 0, 0, 0, 0, 0, len("TRAILER!!!")+1, 0,
	)
	w.WriteString("TRAILER!!!\x00\x00\x00\x00")
	return w.Flush()
}
