// Package archive writes the image strake/base in the form that `docker save` has: the static
// program, a link to it for each command, and the few files of /etc that programs expect.
//
// The same program gives the same bytes on every machine and at any time, so that two builds of
// strake can be compared.
//
// Not for: other images, or more than one layer.
//
// Tested by two builds that are compared, and by the structure of what is written.
package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Ref is the name under which the archive loads the image. Package image/base of the main module
// has the same constant, and a test there compares it with the archive.
const Ref = "strake/base:latest"

// File returns the name of the archive for an architecture, by which package image/base of the main
// module finds it.
func File(arch string) string { return "base-" + arch + ".tar.gz" }

// epoch is the modification time of everything in the image.
var epoch = time.Unix(0, 0).UTC()

// Write writes the image's archive to w: program is the static binary for the architecture arch (as
// GOARCH names it), applets are the names of the commands that it is linked under, in any order and
// with repetitions. It fails if an applet is not the name of a file, or as w does.
func Write(w io.Writer, arch string, program []byte, applets []string) error {
	layer, err := rootfs(program, applets)
	if err != nil {
		return err
	}
	diffID := digest(layer)
	config, err := json.Marshal(map[string]any{
		"architecture": arch, "os": "linux", "created": epoch,
		"config": map[string]any{
			"Cmd": []string{"sh"},
			"Env": []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			"Labels": map[string]string{
				"org.opencontainers.image.title":    "strake/base",
				"org.opencontainers.image.licenses": "Apache-2.0",
			},
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + diffID}},
		"history": []map[string]any{{"created": epoch, "created_by": "strake: static userland"}},
	})
	if err != nil {
		return err
	}
	name := digest(config) + ".json"
	manifest, err := json.Marshal(
		[]map[string]any{
			{"Config": name, "RepoTags": []string{Ref}, "Layers": []string{diffID + "/layer.tar"}},
		},
	)
	if err != nil {
		return err
	}
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	for _, f := range []struct {
		name string
		body []byte
	}{{diffID + "/layer.tar", layer}, {name, config}, {"manifest.json", manifest}} {
		if err := add(
			t, tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: 0o644}, f.body,
		); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return z.Close()
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func add(t *tar.Writer, h tar.Header, body []byte) error {
	h.Size, h.ModTime, h.Format = int64(len(body)), epoch, tar.FormatPAX
	if err := t.WriteHeader(&h); err != nil {
		return err
	}
	_, err := t.Write(body)
	return err
}

// rootfs is the layer. Empty files in /etc are where the engine mounts its own.
func rootfs(program []byte, applets []string) ([]byte, error) {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	for _, d := range strings.Fields("bin dev etc home proc root run sys usr usr/bin var var/log") {
		mode := int64(0o755)
		if d == "root" {
			mode = 0o700
		}
		if err := add(
			t, tar.Header{Name: d + "/", Typeflag: tar.TypeDir, Mode: mode}, nil,
		); err != nil {
			return nil, err
		}
	}
	for _, d := range []string{"tmp/", "var/tmp/"} {
		if err := add(
			t, tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o1777}, nil,
		); err != nil {
			return nil, err
		}
	}
	for _, f := range []struct{ name, text string }{
		{"etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"},
		{"etc/group", "root:x:0:\nnogroup:x:65534:\n"},
		{"etc/os-release", "ID=strake-base\nNAME=\"strake base\"\nPRETTY_NAME=\"strake base\"\n"},
		{"etc/hosts", ""}, {"etc/hostname", ""}, {"etc/resolv.conf", ""},
		{"etc/profile", "export PS1='\\w \\$ '\n"},
	} {
		if err := add(
			t, tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: 0o644}, []byte(f.text),
		); err != nil {
			return nil, err
		}
	}
	if err := add(
		t, tar.Header{Name: "bin/strake-base", Typeflag: tar.TypeReg, Mode: 0o755}, program,
	); err != nil {
		return nil, err
	}
	names := slices.Clone(applets)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if strings.ContainsAny(name, "/\x00") || name == "" {
			return nil, fmt.Errorf("applet %q: not the name of a command", name)
		}
		if err := add(
			t,
			tar.Header{
				Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "strake-base",
				Mode: 0o777,
			},
			nil,
		); err != nil {
			return nil, err
		}
	}
	if err := t.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
