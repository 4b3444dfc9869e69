package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestWriteIsReproducible(t *testing.T) {
	t.Parallel()
	var one, two bytes.Buffer
	for _, b := range []*bytes.Buffer{&one, &two} {
		if err := Write(b, "amd64", []byte("program"), []string{"sh", "ls", "ls"}); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("two builds differ")
	}
}

func TestStructure(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := Write(&b, "arm64", []byte("program"), []string{"sh", "ls"}); err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	outer := map[string][]byte{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		outer[h.Name], _ = io.ReadAll(r)
	}
	var layer []byte
	for name, body := range outer {
		if strings.HasSuffix(name, "layer.tar") {
			layer = body
		}
	}
	if !strings.Contains(string(outer["manifest.json"]), `"strake/base:latest"`) || layer == nil {
		t.Fatalf("entries %d, manifest %s", len(outer), outer["manifest.json"])
	}
	inner := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(layer)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		inner[h.Name] = h.Linkname
	}
	for name, link := range map[string]string{
		"bin/strake-base": "", "bin/sh": "strake-base", "bin/ls": "strake-base",
		"etc/resolv.conf": "", "proc/": "",
	} {
		if got, ok := inner[name]; !ok || got != link {
			t.Errorf("%s: link %q, there %v; want %q", name, got, ok, link)
		}
	}
}
