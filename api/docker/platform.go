package docker

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// platformsOf reads a parameter that may be repeated.
func platformsOf(r *request, parameter string) (list []ocispec.Platform, err error) {
	for _, text := range r.URL.Query()[parameter] {
		p, err := platformOf(text)
		if err != nil {
			return nil, err
		}
		if p != nil {
			list = append(list, *p)
		}
	}
	return list, nil
}

// archivePlatforms are the platforms to save or load: versions before 1.48 have no such parameter,
// versions before 1.52 allow one.
func archivePlatforms(r *request) ([]ocispec.Platform, error) {
	if r.version < 48 {
		return nil, nil
	}
	list, err := platformsOf(r, "platform")
	if err == nil && len(list) > 1 && r.version < 52 {
		err = invalid(
			"multiple platform parameters are not supported in this API version; " +
				"use API version 1.52 or later",
		)
	}
	return list, err
}

// ofPlatform returns errdefs.ErrNotFound if a parameter names another platform than the image's. An
// image in the store has one platform.
func ofPlatform(r *request, images imageResolver, name, parameter string) error {
	list, err := platformsOf(r, parameter)
	if err != nil || len(list) == 0 {
		return err
	}
	m, err := images.Resolve(r.Context(), name)
	if err != nil {
		return err
	}
	for _, p := range list {
		if !isPlatform(&m.Platform, &p) {
			return plainError{errdefs.ErrNotFound, fmt.Sprintf(
				"image with reference %s was found but its platform (%s) "+
					"does not match the specified platform (%s)",
				name, platformText(&m.Platform), platformText(&p),
			)}
		}
	}
	return nil
}

// isPlatform reports whether have matches want; empty fields of want match everything.
func isPlatform(have, want *ocispec.Platform) bool {
	same := func(have, want string) bool { return want == "" || have == want }
	variant := func(p *ocispec.Platform) string {
		if p.Architecture == "arm64" && p.Variant == "" {
			return "v8" // the default of arm64
		}
		return p.Variant
	}
	return same(have.OS, want.OS) && same(have.Architecture, want.Architecture) &&
		same(have.OSVersion, want.OSVersion) &&
		(want.Variant == "" || variant(have) == want.Variant)
}

func platformText(p *ocispec.Platform) string {
	text := p.OS
	for _, part := range []string{p.Architecture, p.Variant} {
		if part != "" {
			text += "/" + part
		}
	}
	return text
}

// platformOf reads os[/arch[/variant]] or an architecture, or a platform in JSON.
func platformOf(text string) (*ocispec.Platform, error) {
	if text == "" {
		return nil, nil
	}
	if strings.HasPrefix(text, "{") {
		var p ocispec.Platform
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			return nil, invalid("platform: %v", err)
		}
		return &p, nil
	}
	p, err := platforms.Parse(text)
	if err != nil {
		return nil, invalid("%v", err)
	}
	return &p, nil
}
