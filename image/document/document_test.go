package document

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var some = digest.FromString("some")

func TestParseManifest(t *testing.T) {
	t.Parallel()
	config := fmt.Sprintf(`"config":{"mediaType":%q,"digest":%q,"size":2}`,
		ocispec.MediaTypeImageConfig, some)
	for _, tc := range []struct {
		name, doc, text string
	}{
		{"image", `{"schemaVersion":2,` + config + `,"layers":[]}`, ""},
		{"no JSON", `{`, "manifest"},
		{"schema 1", `{"schemaVersion":1,` + config + `}`, "schema version 1"},
		{"schema 1 by its layers", `{"schemaVersion":2,"fsLayers":[]}`, "schema version 1"},
		{"index", `{"schemaVersion":2,"manifests":[]}`, "belongs to an index"},
		{"both", `{"schemaVersion":2,"manifests":[],` + config + `}`, "belongs to an index"},
		{"no configuration", `{"schemaVersion":2,"layers":[]}`, `digest ""`},
		{
			"no digest", `{"schemaVersion":2,` + config + `,"layers":[{"digest":"../x","size":1}]}`,
			`digest "../x"`,
		},
		{
			"negative size",
			`{"schemaVersion":2,` + config + `,"layers":[{"size":-1,"digest":"` + some.String() +
				`"}]}`,
			"has size -1",
		},
		{
			"artifact",
			`{"schemaVersion":2,"config":{"size":2,"mediaType":"application/vnd.other","digest":"` +
				some.String() + `"}}`,
			"no container image",
		},
	} {
		m, err := ParseImage([]byte(tc.doc))
		if tc.text == "" {
			if err != nil || m.Config.Digest != some {
				t.Errorf("%s: %+v %v", tc.name, m, err)
			}
			continue
		}
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.text)
		}
	}
}

func TestParseConfig(t *testing.T) {
	t.Parallel()
	diffs := func(n int) string {
		return strings.TrimSuffix(strings.Repeat(`"`+some.String()+`",`, n), ",")
	}
	for _, tc := range []struct {
		name, doc, text string
	}{
		{
			"whole", `{"os":"linux","architecture":"arm64","created":"2020-01-02T03:04:05Z",` +
				`"rootfs":{"type":"layers","diff_ids":[` + diffs(127) + `]},` +
				`"config":{"Cmd":["x"],"Healthcheck":{"Test":["NONE"]}}}`, "",
		},
		{"no JSON", `[]`, "image configuration"},
		{"no root file system", `{"os":"linux"}`, `rootfs.type is ""`},
		{"no digest", `{"rootfs":{"type":"layers","diff_ids":["x"]}}`, `diff_ids[0] "x"`},
		{
			"many layers", `{"rootfs":{"type":"layers","diff_ids":[` + diffs(128) + `]}}`,
			"128 layers, at most 127",
		},
	} {
		c, err := ParseConfig([]byte(tc.doc))
		if tc.text == "" {
			if err != nil || c.Platform().Architecture != "arm64" || c.Config.Cmd[0] != "x" ||
				c.Config.Healthcheck.Test[0] != "NONE" || c.CreatedAt().Year() != 2020 {
				t.Errorf("%s: %+v %v", tc.name, c, err)
			}
			continue
		}
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.text)
		}
	}
	c := NewConfig(ocispec.Platform{}, time.Time{}, RunConfig{})
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseConfig(raw); err != nil || c.OS != "linux" || c.CreatedAt().IsZero() {
		t.Errorf("a new configuration: %+v %v", c, err)
	}
}

// TestNewManifest reads back what was made.
func TestNewManifest(t *testing.T) {
	t.Parallel()
	layers := []ocispec.Descriptor{
		{MediaType: ocispec.MediaTypeImageLayer, Digest: some, Size: 3},
	}
	d, err := NewManifest([]byte("{}"), layers)
	if err != nil {
		t.Fatal(err)
	}
	m, err := ParseImage(d.Bytes)
	if err != nil || m.Config.Digest != digest.FromString("{}") || m.Config.Size != 2 ||
		len(m.Layers) != 1 || m.Layers[0].Digest != some || m.SchemaVersion != 2 {
		t.Errorf("manifest %+v %v", m, err)
	}
	if d.Descriptor.Digest != digest.FromBytes(d.Bytes) ||
		d.Descriptor.Size != int64(len(d.Bytes)) ||
		d.Descriptor.MediaType != ocispec.MediaTypeImageManifest {
		t.Errorf("descriptor %+v", d.Descriptor)
	}
	if d, err = NewManifest([]byte("{}"), nil); err != nil ||
		!strings.Contains(string(d.Bytes), `"layers":[]`) {
		t.Errorf("without layers: %s %v", d.Bytes, err)
	}
}

// docs are documents by digest.
type docs map[digest.Digest][]byte

func (ds docs) add(t *testing.T, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	d := ocispec.Descriptor{
		MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b)),
	}
	ds[d.Digest] = b
	return d
}

func (ds docs) read(_ context.Context, d ocispec.Descriptor) ([]byte, error) {
	b, ok := ds[d.Digest]
	if !ok {
		return nil, errdefs.ErrNotFound
	}
	return b, nil
}

func on(d ocispec.Descriptor, platform string) ocispec.Descriptor {
	p := platforms.MustParse(platform)
	d.Platform = &p
	return d
}

// TestChoose walks through indexes.
func TestChoose(t *testing.T) {
	t.Parallel()
	ds := docs{}
	manifest := func(name string) ocispec.Descriptor {
		return ds.add(t, ocispec.MediaTypeImageManifest, map[string]string{"name": name})
	}
	index := func(ms ...ocispec.Descriptor) ocispec.Descriptor {
		return ds.add(t, ocispec.MediaTypeImageIndex, ocispec.Index{Manifests: ms})
	}
	amd, arm6, arm7 := manifest("amd"), manifest("arm6"), manifest("arm7")
	attestation := on(manifest("attestation"), "unknown/unknown")
	deep := amd
	for range MaxIndexDepth {
		deep = index(deep)
	}
	fat := index(
		attestation, on(amd, "linux/amd64"), on(arm6, "linux/arm/v6"), on(arm7, "linux/arm/v7"),
	)
	for _, tc := range []struct {
		name     string
		target   ocispec.Descriptor
		platform string
		want     ocispec.Descriptor
		docs     int
		class    func(error) bool
	}{
		{"manifest", amd, "linux/s390x", amd, 1, nil},
		{"one of many", fat, "linux/amd64", amd, 2, nil},
		{"the best of two", fat, "linux/arm/v7", arm7, 2, nil},
		{"the one that still runs", fat, "linux/arm/v6", arm6, 2, nil},
		{"none fits", fat, "linux/s390x", amd, 0, errdefs.IsNotFound},
		{"attestations only", index(attestation), "linux/amd64", amd, 0, errdefs.IsNotFound},
		{"index of an index", index(on(fat, "linux/amd64")), "linux/amd64", amd, 3, nil},
		{"alone without a platform", index(amd), "linux/s390x", amd, 2, nil},
		{"deep", deep, "linux/amd64", amd, MaxIndexDepth + 1, nil},
		{
			"too deep", index(deep), "linux/amd64", amd, 0, errdefs.IsInvalidArgument,
		},
		{
			"no image", ocispec.Descriptor{MediaType: "text/plain", Digest: some}, "linux/amd64",
			amd, 0, errdefs.IsInvalidArgument,
		},
		{
			"no index", ds.add(t, ocispec.MediaTypeImageIndex, "x"), "linux/amd64", amd, 0,
			errdefs.IsInvalidArgument,
		},
		{
			"absent", ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: some},
			"linux/amd64", amd, 0, errdefs.IsNotFound,
		},
	} {
		got, err := Choose(
			t.Context(), tc.target, platforms.Only(platforms.MustParse(tc.platform)), ds.read,
		)
		if tc.class != nil {
			if !tc.class(err) {
				t.Errorf("%s: error %v", tc.name, err)
			}
			continue
		}
		if err != nil || len(got) != tc.docs {
			t.Errorf("%s: %d documents, %v; want %d", tc.name, len(got), err, tc.docs)
			continue
		}
		last := got[len(got)-1]
		if last.Descriptor.Digest != tc.want.Digest ||
			got[0].Descriptor.Digest != tc.target.Digest {
			t.Errorf("%s: %+v", tc.name, got)
		}
	}
}

// FuzzParse gives the parsers any bytes: what they let through has valid digests.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"sha256:x"},"layers":[{"size":-1}]}`))
	f.Add([]byte(`{"rootfs":{"type":"layers","diff_ids":["sha256:x"]}}`))
	f.Add([]byte(`{"manifests":[{"digest":""}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := ParseManifest(b); err == nil {
			for _, d := range append(m.Layers, m.Config) {
				if d.Digest.Validate() != nil || d.Size < 0 {
					t.Errorf("blob %+v", d)
				}
			}
		}
		if c, err := ParseConfig(b); err == nil {
			for _, d := range c.RootFS.DiffIDs {
				if d.Validate() != nil {
					t.Errorf("diff ID %q", d)
				}
			}
		}
		if x, err := ParseIndex(b); err == nil {
			d, err := Select(x.Manifests, platforms.All)
			if err == nil && d.Digest.Validate() != nil {
				t.Errorf("manifest %+v", d)
			}
		}
	})
}
