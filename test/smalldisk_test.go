package test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strake/internal/testneed"
)

// diskBytes is the size of the file systems that tests fill.
const diskBytes = 64 << 20

// smallDisk is an engine whose data root is a file system of its own.
type smallDisk struct {
	*rig
	t    *testing.T
	http *http.Client
}

// onSmallDisk starts an engine on a file system of 64 MiB: "ext4", in a file, with what such a file
// system keeps for itself, or "tmpfs".
func onSmallDisk(t *testing.T, kind string) *smallDisk {
	t.Helper()
	testneed.Root(t, "mounts a small file system")
	r := startOn(t, func(dir string) {
		data := filepath.Join(dir, "data")
		if err := os.Mkdir(data, 0o710); err != nil {
			t.Fatal(err)
		}
		source, options := "strake-test", fmt.Sprintf("size=%d,nr_inodes=2048", diskBytes)
		if kind == "ext4" {
			source, options = loopDevice(t, filepath.Join(dir, "disk")), ""
		}
		if err := unix.Mount(source, data, kind, 0, options); err != nil {
			t.Fatalf("mount %s on %s: %v", kind, data, err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(data, 0); err != nil {
				t.Errorf("unmount the small disk: %v", err)
				unix.Unmount(data, unix.MNT_DETACH)
			}
			os.RemoveAll(dir)
		})
	})
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", r.socket())
	}
	return &smallDisk{r, t, &http.Client{
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
		Timeout:   time.Minute,
	}}
}

// loopDevice makes an ext4 file system in a file and a block device of it (loop(4)), which ends
// with its last user.
func loopDevice(t *testing.T, file string) string {
	t.Helper()
	mkfs := testneed.Program(t, "mkfs.ext4", "e2fsprogs")
	image, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		defer image.Close()
		err = image.Truncate(diskBytes)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(
		mkfs, "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", file,
	).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("needs loop devices: %v", err)
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatalf("find a free loop device: %v", err)
		}
		name := fmt.Sprintf("/dev/loop%d", n)
		device, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		config := unix.LoopConfig{Fd: uint32(image.Fd())}
		config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		// Open until the mount holds it, which is before the end of the caller.
		t.Cleanup(func() { device.Close() })
		if errors.Is(err, unix.EBUSY) {
			continue // another process was faster
		}
		if err != nil {
			t.Fatalf("loop device %s: %v", name, err)
		}
		return name
	}
}

func (d *smallDisk) data(elem ...string) string {
	return filepath.Join(append([]string{d.dir, "data"}, elem...)...)
}

// space is how many bytes and inodes are free.
func (d *smallDisk) space() (bytes, inodes int64) {
	d.t.Helper()
	f, err := os.Open(d.data())
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := errors.Join(
		unix.Syncfs(int(f.Fd())), unix.Fstatfs(int(f.Fd()), &st),
	); err != nil {
		d.t.Fatal(err)
	}
	return int64(st.Bfree) * st.Bsize, int64(st.Ffree)
}

// fill takes all space but so many bytes.
func (d *smallDisk) fill(left int64) {
	d.t.Helper()
	d.space()
	f, err := os.OpenFile(d.data("fill"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	size := int64(0)
	for step := int64(8 << 20); step >= 4096; {
		switch err := unix.Fallocate(int(f.Fd()), 0, size, step); {
		case err == nil:
			size += step
		case errors.Is(err, unix.ENOSPC):
			step /= 2
		case !errors.Is(err, unix.EINTR):
			d.t.Fatal(err)
		}
	}
	if err := f.Truncate(size - left); err != nil {
		d.t.Fatal(err)
	}
	d.space()
}

// fillInodes takes all inodes but so many; space is left.
func (d *smallDisk) fillInodes(left int) {
	d.t.Helper()
	if err := os.Mkdir(d.data("fill"), 0o700); err != nil {
		d.t.Fatal(err)
	}
	name := func(n int) string { return d.data("fill", fmt.Sprint(n)) }
	n := 0
	for ; ; n++ {
		err := os.WriteFile(name(n), nil, 0o600)
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		if err != nil {
			d.t.Fatal(err)
		}
	}
	for range left {
		n--
		if err := os.Remove(name(n)); err != nil {
			d.t.Fatal(err)
		}
	}
}

// drain gives back what fill or fillInodes took.
func (d *smallDisk) drain() {
	d.t.Helper()
	if err := os.RemoveAll(d.data("fill")); err != nil {
		d.t.Fatal(err)
	}
}

// answer is what the engine says to one request: a status, its body, and the errors in it.
type answer struct {
	status int
	body   string
	errs   []string
}

func (a answer) ok() bool { return a.status/100 == 2 && len(a.errs) == 0 }

// call sends a request. A body that is no reader is sent as JSON.
func (d *smallDisk) call(method, path string, body any) answer {
	d.t.Helper()
	r, raw := body.(io.Reader)
	if !raw && body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			d.t.Fatal(err)
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, "http://engine/v1.45"+path, r)
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if raw {
		req.Header.Set("Content-Type", "application/x-tar")
	}
	resp, err := d.http.Do(req)
	if err != nil {
		d.t.Fatalf("%s %s: %v\n%s", method, path, err, tail(d.log(), 4000))
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatalf("%s %s: %v after %q", method, path, err, out)
	}
	a := answer{status: resp.StatusCode, body: string(out)}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var line struct{ Message, Error string }
		if dec.Decode(&line) != nil {
			return a
		}
		if line.Error != "" {
			a.errs = append(a.errs, line.Error)
		} else if a.status/100 > 3 {
			a.errs = append(a.errs, line.Message)
		}
	}
}

// must is call with success.
func (d *smallDisk) must(method, path string, body any) answer {
	d.t.Helper()
	a := d.call(method, path, body)
	if !a.ok() {
		d.t.Errorf("%s %s: status %d, %q", method, path, a.status, a.errs)
	}
	return a
}

// container makes a container.
func (d *smallDisk) container(name string, cmd ...string) {
	d.t.Helper()
	d.must("POST", "/containers/create?name="+name, spec(cmd...))
}

// spec is the body of a create.
func spec(cmd ...string) map[string]any { return map[string]any{"Image": "box", "Cmd": cmd} }

// exec runs a command in a container and returns what the engine says, with the output as its body,
// and the exit status.
func (d *smallDisk) exec(name string, cmd ...string) (answer, int) {
	d.t.Helper()
	a := d.call("POST", "/containers/"+name+"/exec", map[string]any{
		"Cmd": cmd, "AttachStdout": true, "AttachStderr": true, "Tty": true,
	})
	var id struct{ Id string }
	if json.Unmarshal([]byte(a.body), &id); !a.ok() || id.Id == "" {
		return a, -1
	}
	a = d.call("POST", "/exec/"+id.Id+"/start", map[string]any{"Tty": true})
	var state struct{ ExitCode *int }
	json.Unmarshal([]byte(d.must("GET", "/exec/"+id.Id+"/json", nil).body), &state)
	if state.ExitCode == nil {
		return a, -1
	}
	return a, *state.ExitCode
}

// term ends the engine in an orderly way.
func (d *smallDisk) term() {
	d.t.Helper()
	d.engine.Process.Signal(syscall.SIGTERM)
	d.engine.Wait()
}

// noise is a layer with incompressible bytes, and its diff ID, which is also its digest.
func noise(t *testing.T, seed uint64, size int) (layer []byte, digest string) {
	t.Helper()
	body := make([]byte, size)
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range body {
		body[i] = byte(rng.Uint32())
	}
	layer = []byte(archive(t, archiveEntry{name: "noise", body: string(body), kind: tar.TypeReg}))
	return layer, fmt.Sprintf("sha256:%x", sha256.Sum256(layer))
}

// oneImage serves an image of one layer as big:1 and returns its reference.
func oneImage(t *testing.T, layer []byte, diffID string) string {
	t.Helper()
	config := `{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers",` +
		`"diff_ids":["` + diffID + `"]}}`
	configID := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(config)))
	const mediaType = "application/vnd.oci.image.manifest.v1+json"
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,`+
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		mediaType, configID, len(config), diffID, len(layer))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := []byte(manifest)
		switch {
		case strings.HasSuffix(r.URL.Path, configID):
			body = []byte(config)
		case strings.HasSuffix(r.URL.Path, diffID):
			body = layer
		default:
			w.Header().Set("Content-Type", mediaType)
			w.Header().Set(
				"Docker-Content-Digest", fmt.Sprintf("sha256:%x", sha256.Sum256(body)),
			)
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		if r.Method != http.MethodHead {
			w.Write(body)
		}
	}))
	t.Cleanup(srv.Close)
	return url.QueryEscape(strings.TrimPrefix(srv.URL, "http://") + "/big")
}
