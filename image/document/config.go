package document

import (
	"encoding/json"
	"fmt"
	"runtime"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// RunConfig is what an image says about its containers: the OCI fields and the ones that docker
// added to them.
type RunConfig struct {
	ocispec.ImageConfig
	Healthcheck *Healthcheck `json:"Healthcheck,omitempty"`
	OnBuild     []string     `json:"OnBuild,omitempty"`
	Shell       []string     `json:"Shell,omitempty"`
}

// Healthcheck is a Dockerfile's HEALTHCHECK. Zero durations and counts mean "inherit the default".
type Healthcheck struct {
	// Test is {"NONE"}, {"CMD", args...} or {"CMD-SHELL", command}; empty inherits.
	Test          []string      `json:"Test,omitempty"`
	Interval      time.Duration `json:"Interval,omitempty"`
	Timeout       time.Duration `json:"Timeout,omitempty"`
	StartPeriod   time.Duration `json:"StartPeriod,omitempty"`
	StartInterval time.Duration `json:"StartInterval,omitempty"`
	Retries       int           `json:"Retries,omitempty"`
}

// Config is an image configuration (image-spec config.md) with docker's additions.
type Config struct {
	Created       *time.Time        `json:"created,omitempty"`
	Author        string            `json:"author,omitempty"`
	Architecture  string            `json:"architecture"`
	Variant       string            `json:"variant,omitempty"`
	OS            string            `json:"os"`
	OSVersion     string            `json:"os.version,omitempty"`
	OSFeatures    []string          `json:"os.features,omitempty"`
	Config        RunConfig         `json:"config,omitempty"`
	RootFS        ocispec.RootFS    `json:"rootfs"`
	History       []ocispec.History `json:"history,omitempty"`
	DockerVersion string            `json:"docker_version,omitempty"`
	Comment       string            `json:"comment,omitempty"`
	Container     string            `json:"container,omitempty"`
	Parent        digest.Digest     `json:"parent,omitempty"`
}

// ParseConfig reads a configuration and checks what the rest of this tree relies on: the kind of
// its root file system, the form of its diff IDs and their number. Errors are ErrInvalidArgument.
func ParseConfig(b []byte) (Config, error) {
	var c Config
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("image configuration: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if c.RootFS.Type != "layers" {
		return c, fmt.Errorf(
			"image configuration: rootfs.type is %q, want \"layers\": %w", c.RootFS.Type,
			errdefs.ErrInvalidArgument,
		)
	}
	for i, d := range c.RootFS.DiffIDs {
		if err := d.Validate(); err != nil {
			return c, fmt.Errorf(
				"image configuration: rootfs.diff_ids[%d] %q: %w: %w", i, d, err,
				errdefs.ErrInvalidArgument,
			)
		}
	}
	if len(c.RootFS.DiffIDs) > MaxLayers {
		return c, fmt.Errorf(
			"image configuration: %d layers, at most %d: %w", len(c.RootFS.DiffIDs), MaxLayers,
			errdefs.ErrInvalidArgument,
		)
	}
	return c, nil
}

// MaxLayers bounds the layers of an image. It is docker's bound; overlayfs itself takes 500
// (fs/overlayfs/params.c, OVL_MAX_STACK).
const MaxLayers = 127

// Platform is what the configuration was built for.
func (c Config) Platform() ocispec.Platform {
	return ocispec.Platform{
		OS: c.OS, Architecture: c.Architecture, Variant: c.Variant, OSVersion: c.OSVersion,
		OSFeatures: c.OSFeatures,
	}
}

// CreatedAt is when it was made in UTC; zero if it does not say.
func (c Config) CreatedAt() time.Time {
	if c.Created == nil {
		return time.Time{}
	}
	return c.Created.UTC()
}

// NewConfig returns a configuration without layers. A zero platform means linux on this processor,
// a zero time means now.
func NewConfig(p ocispec.Platform, created time.Time, run RunConfig) Config {
	if p.OS == "" {
		p.OS = "linux"
	}
	if p.Architecture == "" {
		p.Architecture = runtime.GOARCH
	}
	if created.IsZero() {
		created = time.Now()
	}
	created = created.UTC()
	return Config{
		Created: &created, Architecture: p.Architecture, Variant: p.Variant, OS: p.OS,
		OSVersion: p.OSVersion, OSFeatures: p.OSFeatures,
		Config: run, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}},
	}
}
