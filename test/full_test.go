package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fullCase is an operation that meets a full disk.
type fullCase struct {
	name string
	// need is about how much the operation writes, in bytes; 0 for a few pages.
	need int64
	// before is done while there is space.
	before func(d *smallDisk)
	do     func(d *smallDisk) answer
	// mustWork says that the operation needs no space.
	mustWork bool
}

// fullCases has one case for each operation that writes to the data root, and for those that give
// space back.
func fullCases(t *testing.T) []fullCase {
	const size = 6 << 20
	pulled, pulledID := noise(t, 1, size)
	loaded, loadedID := noise(t, 2, size)
	imported, _ := noise(t, 3, size)
	ref := oneImage(t, pulled, pulledID)
	archive := saved(t, string(loaded), loadedID)
	post := func(path string, body any) func(d *smallDisk) answer {
		return func(d *smallDisk) answer { return d.call("POST", path, body) }
	}
	remove := func(path string) func(d *smallDisk) answer {
		return func(d *smallDisk) answer { return d.call("DELETE", path, nil) }
	}
	committed := func(d *smallDisk) {
		d.exec("ran", "sh", "-c", "head -c 2000000 /dev/urandom > /big")
		d.must("POST", "/commit?container=ran&repo=other", nil)
	}
	withVolume := spec("true")
	withVolume["Volumes"] = map[string]any{"/etc": map[string]any{}}
	return []fullCase{
		{name: "pull", need: 2 * size, do: post("/images/create?tag=1&fromImage="+ref, nil)},
		{name: "load", need: 2 * size, do: func(d *smallDisk) answer {
			return d.call("POST", "/images/load", strings.NewReader(archive))
		}},
		{name: "import", need: 2 * size, do: func(d *smallDisk) answer {
			return d.call("POST", "/images/create?fromSrc=-&repo=new", bytes.NewReader(imported))
		}},
		{name: "create", do: post("/containers/create?name=new", spec("true"))},
		{name: "create with a volume", do: post("/containers/create?name=new", withVolume)},
		{name: "start", do: post("/containers/made/start", nil)},
		{name: "start again", do: post("/containers/ended/start", nil)},
		{name: "restart", do: post("/containers/ran/restart?t=0", nil)},
		{name: "exec", do: func(d *smallDisk) answer {
			a, _ := d.exec("ran", "true")
			return a
		}},
		{name: "writes", do: containerWrites},
		{
			name: "commit", need: 2 * size / 3,
			before: func(d *smallDisk) {
				d.exec("ran", "sh", "-c", "head -c 2000000 /dev/urandom > /big")
			},
			do: post("/commit?container=ran&repo=new", nil),
		},
		{name: "tag", do: post("/images/box/tag?repo=new", nil)},
		{name: "rename", do: post("/containers/ran/rename?name=renamed", nil)},
		{name: "update", do: post("/containers/ran/update", map[string]any{"PidsLimit": 100})},
		{name: "volume create", do: post("/volumes/create", map[string]any{"Name": "new"})},
		{name: "network create", do: post("/networks/create", map[string]any{"Name": "new"})},
		{name: "pause", do: post("/containers/ran/pause", nil)},
		{name: "kill", do: post("/containers/ran/kill", nil), mustWork: true},
		{name: "stop", do: post("/containers/ran/stop?t=0", nil), mustWork: true},
		{name: "rm", do: remove("/containers/ended"), mustWork: true},
		{name: "rm -f", do: remove("/containers/ran?force=1"), mustWork: true},
		{name: "container prune", do: post("/containers/prune", nil), mustWork: true},
		{name: "rmi", before: committed, do: remove("/images/other"), mustWork: true},
		{
			name: "image prune", before: committed, mustWork: true,
			do: post("/images/prune?filters="+url.QueryEscape(`{"dangling":["false"]}`), nil),
		},
	}
}

// containerWrites fills the disk from inside of a container.
func containerWrites(d *smallDisk) answer {
	a, code := d.exec("ran", "sh", "-c", "cat /dev/zero > /f")
	if a.ok() && (code != 1 || !strings.Contains(a.body, "No space left on device")) {
		d.t.Errorf("the writer ended with status %d and %q", code, a.body)
	}
	return a
}

// databaseBytes is by how much the free space may differ after everything is removed. The databases
// of images (meta.db, layers/metadata.db) keep the pages they once needed, and directories of ext4
// their blocks.
const databaseBytes = 256 << 10

// probeInodes is by how much the free inodes may differ. The content store's question whether the
// file system knows fs-verity makes a directory and a file, removes both, and leaves the file open
// until the engine's next garbage collection.
const probeInodes = 2

// TestFullDisk fills the disk at each operation in turn. The operation succeeds or gives one clear
// error; on the full disk containers and images are stopped and removed; then all space is back,
// for this engine and for one that is started after it was killed.
func TestFullDisk(t *testing.T) {
	for _, kind := range []string{"ext4", "tmpfs"} {
		t.Run(kind, func(t *testing.T) {
			d := onSmallDisk(t, kind)
			d.life() // what the first container makes for all of them
			keeper := d.keeper()
			n := 0
			for _, c := range fullCases(t) {
				levels := []int64{0, 4096, 4 * 4096, 16 * 4096}
				if c.need > 0 {
					levels = append(levels, c.need/2, c.need-c.need/8)
				}
				run := func(name string, fill func(e *smallDisk)) {
					t.Run(c.name+"/"+name, func(t *testing.T) {
						e := *d
						e.t, e.rig.t = t, t
						e.full(c, func() { fill(&e) }, n%2 == 0)
					})
					d.rig.t = t
					n++
				}
				for _, left := range levels {
					run(fmt.Sprintf("%d bytes", left), func(e *smallDisk) { e.fill(left) })
				}
				for left := range 3 {
					if kind == "tmpfs" { // which has few
						run(fmt.Sprintf("%d inodes", left), func(e *smallDisk) {
							e.fillInodes(left)
						})
					}
				}
			}
			if now := d.keeper(); now != keeper {
				t.Errorf("the keeper died: it is %d, was %d", now, keeper)
			}
		})
	}
}

// full is one case on a disk that fill fills. kill says how the engine ends on the full disk.
func (d *smallDisk) full(c fullCase, fill func(), kill bool) {
	free, inodes := d.space()
	before := d.list()
	for _, name := range []string{"ran", "forced", "ended", "made"} {
		d.container(name, "sleep", "1000")
		if name != "made" {
			d.must("POST", "/containers/"+name+"/start", nil)
		}
	}
	d.must("POST", "/containers/ended/kill", nil)
	if c.before != nil {
		c.before(d)
	}
	fill()
	start := time.Now()
	a := c.do(d)
	if took := time.Since(start); took > 20*time.Second {
		d.t.Errorf("took %s", took)
	}
	switch {
	case a.ok():
	case c.mustWork:
		d.t.Errorf("status %d, %q; want success", a.status, a.errs)
	case len(a.errs) != 1 || strings.Count(a.errs[0], "no space left on device") != 1 ||
		strings.Contains(a.errs[0], "\n"):
		d.t.Errorf("status %d, %q; want one clear error", a.status, a.errs)
	default:
		d.t.Logf("%s", a.errs[0])
	}
	if kill {
		d.kill()
	} else {
		d.term()
	}
	d.launch()
	d.exits()
	d.removeAll()
	d.drain()
	if nowFree, nowInodes := d.space(); nowFree < free-databaseBytes ||
		nowInodes < inodes-probeInodes {
		d.t.Errorf(
			"%d bytes and %d inodes are free, there were %d and %d\nbefore:\n%snow:\n%s", nowFree,
			nowInodes, free, inodes, before, d.list(),
		)
	}
	if left, _ := os.ReadDir(d.data("image", "content", "ingest")); len(left) > 0 {
		d.t.Errorf("%d unfinished blobs are left", len(left))
	}
	d.life()
}

// exits looks at how containers have ended: all by SIGKILL, which the engine after one that was
// killed on the full disk knows too.
func (d *smallDisk) exits() {
	d.t.Helper()
	var list []struct{ Id string }
	d.decode("/containers/json?all=1&filters="+url.QueryEscape(`{"status":["exited"]}`), &list)
	for _, c := range list {
		var in struct {
			Name  string
			State struct {
				ExitCode int
				Error    string
			}
		}
		d.decode("/containers/"+c.Id+"/json", &in)
		if in.State.ExitCode != 137 && !strings.Contains(in.State.Error, "no space left") {
			d.t.Errorf("%s: exit code %d, %q", in.Name, in.State.ExitCode, in.State.Error)
		}
	}
}

// TestFullDiskLogs lets a container write more than the disk has room for. It is not held up; the
// log has whole lines only, and says how many are missing where it goes on.
func TestFullDiskLogs(t *testing.T) {
	d := onSmallDisk(t, "ext4")
	const before, after = 60000, 100
	d.container("writer", "sh", "-c", fmt.Sprintf("trap go=1 USR1; "+
		"until [ $go ]; do sleep 0.02; done; seq %d; go=; > /dev/shm/done; "+
		"until [ $go ]; do sleep 0.02; done; seq %d %d", before, before+1, before+after))
	d.must("POST", "/containers/writer/start", nil)
	d.fill(256 << 10)
	d.must("POST", "/containers/writer/kill?signal=USR1", nil)
	d.until("the writer goes on", 30*time.Second, func() bool {
		_, code := d.exec("writer", "test", "-e", "/dev/shm/done")
		return code == 0
	})
	d.drain()
	d.must("POST", "/containers/writer/kill?signal=USR1", nil)
	if a := d.must("POST", "/containers/writer/wait", nil); !strings.Contains(
		a.body, `"StatusCode":0`,
	) {
		t.Errorf("the writer ended with %s", a.body)
	}
	got := d.docker("logs", "writer")
	var lost int
	if _, err := fmt.Sscanf(
		got.err, "strake: %d log records were lost: no space left on device\n", &lost,
	); err != nil || strings.Count(got.err, "\n") != 1 {
		t.Fatalf("notice of a loss %q: %v", got.err, err)
	}
	all := lines("", before+after)
	first := strings.Count(got.out, "\n") - after
	if want := lines("", first); first < 1 || !strings.HasPrefix(got.out, want) ||
		got.out[len(want):] != all[len(lines("", first+lost)):] {
		t.Errorf("%d lines, %d lost, and the rest do not fit", first, lost)
	}
	d.must("DELETE", "/containers/writer", nil)
}

// removeAll stops and removes all containers and images but box, on a disk that is still full.
func (d *smallDisk) removeAll() {
	d.t.Helper()
	if a := d.call("POST", "/containers/ran/stop?t=0", nil); !a.ok() && a.status != 304 &&
		a.status != 404 {
		d.t.Errorf("stop: status %d, %q", a.status, a.errs)
	}
	for _, path := range []string{"/containers/ran", "/containers/forced", "/containers/made"} {
		// The operation may have removed, renamed or started them.
		if a := d.call("DELETE", path+"?v=1&force=1", nil); !a.ok() && a.status != 404 {
			d.t.Errorf("rm -f %s: status %d, %q", path, a.status, a.errs)
		}
	}
	var list []struct{ Id string }
	d.decode("/containers/json?all=1&filters="+
		url.QueryEscape(`{"status":["running","paused","restarting"]}`), &list)
	for _, c := range list {
		d.must("DELETE", "/containers/"+c.Id+"?force=1&v=1", nil)
	}
	d.must("POST", "/containers/prune", nil)
	if d.decode("/containers/json?all=1", &list); len(list) > 0 {
		d.t.Errorf("%d containers are left", len(list))
	}
	var images []struct {
		Id       string
		RepoTags []string
	}
	d.decode("/images/json?all=1", &images)
	for _, im := range images {
		for _, tag := range im.RepoTags {
			if tag != "box:latest" && !strings.HasPrefix(tag, "strake/base:") {
				d.must("DELETE", "/images/"+tag+"?force=1", nil)
			}
		}
	}
	d.must("POST", "/images/prune", nil)
	d.must("POST", "/volumes/prune?filters="+url.QueryEscape(`{"all":["true"]}`), nil)
	d.must("POST", "/networks/prune", nil)
}

func (d *smallDisk) decode(path string, v any) {
	d.t.Helper()
	if err := json.Unmarshal([]byte(d.must("GET", path, nil).body), v); err != nil {
		d.t.Errorf("%s: %v", path, err)
	}
}

// life is the whole life of a container.
func (d *smallDisk) life() {
	d.t.Helper()
	d.container("life", "sh", "-c", "echo x > /f; exit 3")
	d.must("POST", "/containers/life/start", nil)
	if a := d.must("POST", "/containers/life/wait", nil); !strings.Contains(
		a.body, `"StatusCode":3`,
	) {
		d.t.Errorf("a container ended with %s", a.body)
	}
	d.must("DELETE", "/containers/life", nil)
}

// list names the files of the data root, for messages.
func (d *smallDisk) list() string {
	var b strings.Builder
	filepath.WalkDir(d.data(), func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if strings.HasSuffix(path, "/fs") {
			return filepath.SkipDir // the files of an image
		}
		if st, err := e.Info(); err == nil {
			fmt.Fprintf(&b, "%8d %s\n", st.Size(), strings.TrimPrefix(path, d.data()))
		}
		return nil
	})
	return b.String()
}
