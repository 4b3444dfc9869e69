package image

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestDescribe: the registry's descriptor and platforms of an image and of an index, without a
// layer.
func TestDescribe(t *testing.T) {
	t.Parallel()
	g := newRegistry(t)
	s := openStore(t, t.TempDir())
	one := publishTo(t, g, "app", "one", gzipped(t, tarOf(t, entry{name: "f"})))
	foreign := []ocispec.Platform{
		{OS: "linux", Architecture: "s390x"}, {OS: "linux", Architecture: "arm", Variant: "v7"},
	}
	x := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
	}
	for i := range foreign {
		d := one.manifest
		d.Platform = &foreign[i]
		x.Manifests = append(x.Manifests, d)
	}
	x.Manifests = append(x.Manifests, one.manifest) // without a platform
	raw, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	index := ocispec.Descriptor{
		MediaType: x.MediaType, Digest: g.AddManifest("app", "many", x.MediaType, raw),
		Size: int64(len(raw)),
	}
	im, err := s.Pull(t.Context(), one.ref, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	g.Forget()
	for _, tt := range []struct {
		ref  string
		want Description
	}{
		{one.ref, Description{Target: one.manifest, Platforms: []ocispec.Platform{im.Platform}}},
		{g.Host() + "/app:many", Description{Target: index, Platforms: foreign}},
		{g.Host() + "/app@" + index.Digest.String(), Description{Target: index, Platforms: foreign}},
	} {
		got, err := s.Describe(t.Context(), tt.ref, nil)
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, %v; want %+v", tt.ref, got, err, tt.want)
		}
	}
	for _, r := range g.Requests() {
		if strings.Contains(r, one.layers[0].Digest.String()) {
			t.Errorf("asked for a layer: %s", r)
		}
	}
	if _, err := s.Describe(t.Context(), g.Host()+"/app:none", nil); !errdefs.IsNotFound(err) {
		t.Errorf("missing: %v", err)
	}
	if _, err := s.Describe(t.Context(), "UPPER", nil); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad reference: %v", err)
	}
}
