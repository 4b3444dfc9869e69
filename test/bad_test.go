package test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestBad: wrong commands and configurations. Each gets one error that names what is wrong, with
// docker's exit status (125 the engine's or the command line's fault, 126 and 127 the command's,
// else the process's own), and leaves nothing.
func TestBad(t *testing.T) {
	r := start(t)
	eachClient(t, r, func(t *testing.T, c *client) {
		c.ok("run", "-d", "--name", "web", "-p", "127.0.0.1:0:80", "box", "sleep", "1000")
		port := strings.TrimSpace(c.ok("port", "web", "80"))
		c.ok("create", "--name", "idle", "box", "true")
		notJSON, badProfile := c.file("not.json", "{"), c.file(
			"bad.json", `{"defaultAction":"SCMP_ACT_NONSENSE"}`,
		)
		before := c.everything()
		for _, b := range []struct {
			args string // separated by blanks
			code int
			// what it says: one of the texts between bars, as clients refuse some things in words
			// of their own
			text string
		}{
			// The process.
			{"run --rm box sh -c exit\t7", 7, ""},
			{"run --rm --init box sh -c kill\t-9\t$$", 137, ""},
			{"run --rm box nothing", 127, `exec: "nothing": executable file not found in $PATH`},
			{"run --rm box /no/such/file", 127, "no such file or directory"},
			{"run --rm --entrypoint /nothing box", 127, "/nothing"},
			{"run --rm box /etc", 126, "permission denied"},
			{"run --rm box /etc/passwd", 126, "permission denied"},
			{"run --rm -w relative box true", 125, "relative"},
			{"run --rm -w /etc/passwd box true", 125, "/etc/passwd"},
			{"run --rm -u nobody-here box true", 125, "nobody-here"},
			{"run --rm -u 4294967295 box true", 125, "4294967295"},
			{"run --rm -u root:no-group box true", 125, "no-group"},
			{"run --rm -e =value box true", 125, "=value"},
			{"run --rm --env-file /does/not/exist box true", 125, "/does/not/exist"},
			{"run --rm --stop-signal FRIDAY box true", 125, "FRIDAY"},
			// Limits.
			{"run --rm -m 1k box true", 125, "Minimum memory limit allowed is"},
			{"run --rm -m lots box true", 125, "lots"},
			{"run --rm -m 32m --memory-swap 16m box true", 125, "memory"},
			{"run --rm --cpus 0.001 box true", 125, "Range of CPUs"},
			{"run --rm --cpus 1000000 box true", 125, "CPUs"},
			{"run --rm --cpuset-cpus 999 box true", 125, "cpu"},
			{"run --rm --pids-limit many box true", 125, "many"},
			{"run --rm --ulimit nonsense=1 box true", 125, "nonsense"},
			{"run --rm --ulimit nofile=9:1 box true", 125, "ulimit"},
			{"run --rm --oom-score-adj 2000 box true", 125, "oom"},
			{"run --rm --shm-size -1 box true", 125, "-1"},
			// Rights.
			{"run --rm --cap-add FLY box true", 125, "FLY"},
			{"run --rm --cap-drop FLY box true", 125, "FLY"},
			{"run --rm --security-opt nonsense box true", 125, "nonsense"},
			{"run --rm --security-opt seccomp=/does/not/exist box true", 125, "/does/not/exist"},
			{"run --rm --security-opt seccomp=" + notJSON + " box true", 125, "seccomp"},
			{
				"run --rm --security-opt seccomp=" + badProfile + " box true", 125,
				"SCMP_ACT_NONSENSE",
			},
			{"run --rm --sysctl kernel.panic=1 box true", 125, "kernel.panic"},
			{"run --rm --device /dev/none-such box true", 127, "/dev/none-such"},
			{"run --rm --userns nonsense box true", 125, "nonsense|invalid USER mode"},
			{"run --rm --pid container:nobody box true", 125, "nobody"},
			{"run --rm --ipc nonsense box true", 125, "nonsense"},
			// Files.
			{
				"run --rm --mount type=bind,src=/does/not/exist,dst=/d box true", 125,
				"/does/not/exist",
			},
			{"run --rm --mount type=nonsense,dst=/d box true", 125, "nonsense"},
			{"run --rm --mount type=bind,src=/tmp box true", 125, "target"},
			{"run --rm --mount type=volume,dst=/d,nonsense=1 box true", 125, "nonsense"},
			{"run --rm -v /:/ box true", 125, "'/'|cannot be /"},
			{"run --rm -v /a:/b:nonsense box true", 125, "nonsense"},
			{"run --rm -v a/b:/c box true", 125, "a/b"},
			{"run --rm -v /tmp:relative box true", 125, "relative"},
			{"run --rm --tmpfs relative box true", 125, "relative"},
			{"run --rm --tmpfs /t:nonsense=1 box true", 125, "nonsense"},
			{"run --rm -v /tmp:/d -v /usr:/d box true", 125, "/d"},
			{"run --rm --volumes-from nobody box true", 125, "nobody|VolumesFrom"},
			// The network.
			{"run --rm --network nowhere box true", 125, "network nowhere not found"},
			{"run --rm --network container:nobody box true", 125, "No such container: nobody"},
			{"run --rm --network container:idle box true", 125, "non running container"},
			{"run --rm --network host -p 80:80 --network none box true", 125, "network"},
			{"run --rm -p " + port + ":81 box true", 125, "port is already allocated"},
			{"run --rm -p 70000:80 box true", 125, "70000"},
			{"run --rm -p 1.2.3:80:80 box true", 125, "1.2.3"},
			{"run --rm -p 80:80/nonsense box true", 125, "nonsense"},
			{"run --rm --network none --ip 1.2.3 box true", 125, "1.2.3|--ip"},
			{"run --rm --add-host nonsense box true", 125, "nonsense"},
			{"run --rm --dns nonsense box true", 125, "nonsense"},
			{"run --rm --mac-address nonsense box true", 125, "nonsense"},
			// Names, images, policies.
			{"run --rm --name web box true", 125, `The container name "/web" is already in use`},
			{"run --rm --name -bad box true", 125, "-bad"},
			{"run --rm --name a/b box true", 125, "a/b"},
			{"run --rm UPPER true", 125, "lowercase"},
			{"run --rm --pull never absent true", 125, "No such image: absent"},
			{"create --pull never absent", 1, "No such image: absent"},
			{"run --restart sometimes box true", 125, "sometimes"},
			{"run --restart on-failure:-1 box true", 125, "-1|negative"},
			{"run --restart always:3 box true", 125, "maximum retry count|always:3"},
			{"run --rm --restart always box true", 125, "restart"},
			{"run --rm -d -a stdout box true", 1, "-d|--detach"},
			{"run --rm --log-driver smoke box true", 125, "smoke"},
			{"run --rm --log-opt nonsense=1 box true", 125, "nonsense"},
			{"run --rm --runtime rust box true", 125, "rust"},
			{"run --rm --health-cmd true --health-interval 1us box true", 125, "1ms"},
			{"run --rm --nonsense box true", 125, "unknown flag: --nonsense"},
			{"run", 1, "at least 1 argument"},
			// Other verbs.
			{"exec nobody true", 1, "No such container: nobody"},
			{"exec idle true", 1, "is not running"},
			{"start nobody", 1, "No such container: nobody"},
			{"stop nobody", 1, "No such container: nobody"},
			{"stop -t soon web", 125, "soon"},
			{"kill -s FRIDAY web", 1, "FRIDAY"},
			{"kill idle", 1, "is not running"},
			{"attach idle", 1, "stopped container"},
			{"attach --detach-keys ctrl-nonsense web", 1, "ctrl-nonsense|400"},
			{"wait nobody", 1, "No such container: nobody"},
			{"logs nobody", 1, "No such container: nobody"},
			{"logs --since nonsense web", 1, "nonsense"},
			{"rm nobody", 1, "No such container: nobody"},
			{"rm web", 1, "running"},
			{"ps --filter nonsense", 125, "nonsense"},
			{"ps --filter status=nonsense", 1, "nonsense"},
			{"ps --format {{.Nothing}}", 1, "Nothing"},
			{"ps --format {{", 1, "template"},
			{"ps extra", 1, "no arguments"},
			{"stats --no-stream nobody", 1, "No such container: nobody"},
			{"rmi absent", 1, "No such image: absent"},
			{"rmi box", 1, "is using"},
			{"tag absent x", 1, "No such image: absent"},
			{"tag box UPPER", 1, "UPPER"},
			{"save absent -o " + filepath.Join(r.dir, "none.tar"), 1, "No such image: absent"},
			{"images --filter nonsense=1", 1, "nonsense"},
			{"pull UPPER", 1, "lowercase"},
			{"pull box@sha256:short", 1, "invalid reference format"},
			{"push UPPER", 1, "lowercase"},
			{"nonsense", 1, "nonsense"},
		} {
			args := strings.Split(b.args, " ")
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "\t", " ")
			}
			got := c.do(args...)
			if got.code != b.code || !containsOne(got.err, b.text) || got.out != "" ||
				c.name == "strake" && strings.Count(strings.TrimSpace(got.err), "\n") > 1 {
				t.Errorf(
					"%s: status %d, %q, %q; want status %d with %q", b.args, got.code, got.out,
					got.err, b.code, b.text,
				)
			}
		}
		if after := c.everything(); after != before {
			t.Errorf("what there is has changed from\n%s to\n%s", before, after)
		}
		c.ok("rm", "-f", "web", "idle")
	})
}

func containsOne(s, texts string) bool {
	return slices.ContainsFunc(strings.Split(texts, "|"), func(text string) bool {
		return strings.Contains(s, text)
	})
}

// everything is what a command may leave in the engine.
func (c *client) everything() string {
	c.t.Helper()
	return sorted(c.ok("ps", "-a", "--format", "{{.Names}} {{.State}}")) + sorted(
		c.ok("images", "-a", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"),
	) +
		c.ok("volume", "ls", "-q") + sorted(c.ok("network", "ls", "--format", "{{.Name}}"))
}

// archiveEntry is a member of an archive that a test makes.
type archiveEntry struct {
	name, link, body string
	kind             byte
}

func archive(t *testing.T, entries ...archiveEntry) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if e.kind == 0 {
			e.kind = tar.TypeReg
		}
		if err := w.WriteHeader(
			&tar.Header{
				Name: e.name, Linkname: e.link, Typeflag: e.kind, Mode: 0o755,
				Size: int64(len(e.body)),
			},
		); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(e.body))
	}
	w.Close()
	return b.String()
}

// saved is an archive of one image in the form of docker save.
func saved(t *testing.T, layer, diffID string) string {
	t.Helper()
	if diffID == "" {
		diffID = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(layer)))
	}
	config, err := json.Marshal(map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{"Cmd": []string{"true"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{diffID}}})
	if err != nil {
		t.Fatal(err)
	}
	return archive(t, archiveEntry{
		name: "manifest.json",
		body: `[{"Config":"c.json","RepoTags":["hostile:latest"],"Layers":["l/layer.tar"]}]`,
	},
		archiveEntry{name: "c.json", body: string(config)}, archiveEntry{name: "l/layer.tar", body: layer})
}

// TestBadArchives feeds damaged and hostile archives to load and import.
func TestBadArchives(t *testing.T) {
	r := start(t)
	file := filepath.Join(r.dir, "box.tar")
	r.ok("save", "-o", file, "box")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	whole := string(raw)
	r.ok("rmi", "box")
	target := filepath.Join(r.dir, "target")
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 12) + strings.TrimPrefix(target, "/")
	plain := archive(t, archiveEntry{name: "f", body: "x"})
	// Trees that try to write outside of their root. They may be refused or kept inside.
	hostile := map[string]string{
		"dots":     archive(t, archiveEntry{name: up + "/evil", body: "evil"}),
		"absolute": archive(t, archiveEntry{name: target + "/evil", body: "evil"}),
		"through a link": archive(
			t, archiveEntry{name: "l", link: target, kind: tar.TypeSymlink},
			archiveEntry{name: "l/evil", body: "evil"},
		),
		"through dots": archive(
			t, archiveEntry{name: "l", link: up, kind: tar.TypeSymlink},
			archiveEntry{name: "l/evil", body: "evil"},
		),
		"hard link": archive(
			t, archiveEntry{name: "l", link: up + "/kept", kind: tar.TypeLink},
			archiveEntry{name: "l", body: "evil"},
		),
		"link to itself": archive(
			t, archiveEntry{name: "l", link: "l", kind: tar.TypeSymlink},
			archiveEntry{name: "l/evil", body: "evil"},
		),
		"whiteout of dots": archive(t, archiveEntry{name: up + "/.wh.kept"}),
		"whiteout as name": archive(t, archiveEntry{name: ".wh..."}, archiveEntry{name: ".wh.."}),
	}
	bad := map[string]string{
		"truncated": whole[:len(whole)/2], "empty": "", "noise": strings.Repeat("noise", 1000),
		"a tree":        plain,
		"wrong digest":  strings.Replace(whole, "busybox", "busyboy", 1),
		"wrong diff ID": saved(t, plain, "sha256:"+strings.Repeat("0", 64)),
		"no diff ID":    saved(t, plain, "nonsense"),
		"layer not there": archive(
			t, archiveEntry{name: "manifest.json", body: `[{"Config":"c.json","Layers":["none"]}]`},
		),
		"manifest not JSON": archive(t, archiveEntry{name: "manifest.json", body: `[{`}),
		"manifest of dots": archive(
			t,
			archiveEntry{
				name: "manifest.json", body: `[{"Config":"../../etc/passwd","Layers":[]}]`,
			},
		),
		"bad tag": strings.Replace(
			saved(t, plain, ""), "hostile:latest", "HOSTILE:latest", 1,
		),
		"layer is no archive": saved(t, strings.Repeat("noise", 1000), ""),
	}
	kept := filepath.Join(target, "kept")
	if err := os.WriteFile(kept, []byte("kept"), 0o644); err != nil {
		t.Fatal(err)
	}
	untouched := func(t *testing.T, name string) {
		t.Helper()
		list, err := os.ReadDir(target)
		body, rerr := os.ReadFile(kept)
		if err != nil || rerr != nil || len(list) != 1 || string(body) != "kept" {
			t.Errorf("%s: the host's directory has %v, %q", name, list, body)
		}
	}
	eachClient(t, r, func(t *testing.T, c *client) {
		before := c.everything()
		for name, body := range bad {
			file := c.file("bad.tar", body)
			if got := c.do("load", "-i", file); got.code != 1 || got.err == "" ||
				strings.Count(strings.TrimSpace(got.err), "\n") > 1 {
				t.Errorf(
					"load, %s: status %d, %q, %q; want one clear error", name, got.code, got.out,
					got.err,
				)
			}
			if after := c.everything(); after != before {
				t.Errorf("load, %s: now there is\n%s", name, after)
			}
		}
		for name, body := range hostile {
			for verb, args := range map[string][]string{
				"load":   {"load", "-i", c.file("hostile-load.tar", saved(t, body, ""))},
				"import": {"import", c.file("hostile.tar", body), "hostile:latest"},
			} {
				got := c.do(args...)
				untouched(t, verb+", "+name)
				switch {
				case got.code == 0:
					c.ok("rmi", "hostile:latest")
				case got.code != 1 || strings.Count(strings.TrimSpace(got.err), "\n") > 1:
					t.Errorf("%s, %s: %+v", verb, name, got)
				}
				if after := c.everything(); after != before {
					t.Errorf("%s, %s: now there is\n%s", verb, name, after)
				}
			}
		}
		for _, name := range []string{"truncated", "noise"} {
			if got := c.do("import", c.file("bad.tar", bad[name]), "bad"); got.code != 1 {
				t.Errorf("import, %s: %+v", name, got)
			}
		}
		if after := c.everything(); after != before {
			t.Errorf("after import there is\n%s", after)
		}
	})
	if left := r.ok("images", "-aq", "--filter", "dangling=true"); left != "" {
		t.Errorf("images left: %q", left)
	}
	if list, err := os.ReadDir(filepath.Join(r.dir, "data")); err != nil || slices.ContainsFunc(
		list, func(e os.DirEntry) bool { return strings.Contains(e.Name(), "tmp-") },
	) {
		t.Errorf("left in the data root: %v, %v", list, err)
	}
}
