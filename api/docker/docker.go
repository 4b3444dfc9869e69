// Package docker speaks the Docker Engine API (moby/moby/api, swagger.yaml) for an engine: it
// translates requests into calls on package engine and back. It does nothing else, but for fetching
// the archive of an import that names an address.
//
// Every version of the API from MinVersion to MaxVersion is answered in its own form, because old
// clients read fields that new ones dropped. An endpoint of the API that is not served answers 501
// and its name.
//
// The endpoints are grouped in types (createAPI, lifecycleAPI, viewAPI, imageAPI, ...), each of
// which declares what it needs of the backend and lists its routes in a method routes. A request to
// create a container passes through three pure steps: normalize fills in what inspect shows, adapt
// applies the rules of the request's version, and specOf translates to engine.Spec.
//
// Containers that another front end of the engine created are neither listed nor found.
//
// Not for: deciding anything about containers, access control (the socket's mode is that), TLS.
//
// Tested by requests against a fake backend: golden answers per version (golden_test.go), golden
// specifications per version for requests to create a container (create_test.go), the status of
// each class of error for each endpoint (status_test.go), streams over real connections
// (stream_test.go); and by the real docker clients in test/.
package docker

import (
	"context"
	"log/slog"
	"net/http"

	"strake/engine"
	"strake/image"
	"strake/volume"
)

// MinVersion and MaxVersion bound the API versions that are served. compose 1.29 asks for 1.21 for
// its oldest file format whatever version the engine offers.
const (
	MinVersion = "1.21"
	MaxVersion = "1.56"
)

// Backend is what the API is served from. Engine, Images, Networks and Volumes are required.
type Backend struct {
	Engine   Engine
	Images   Images
	Networks Networks
	Volumes  Volumes
	// Builtin is the image that the program has in itself.
	Builtin Builtin
	// Log receives the errors that are answered with 500; nil discards them.
	Log *slog.Logger
	// Version is the product's version, Name the host's.
	Version, GitCommit, Name string
	// Root is the engine's data root.
	Root string
	// LogDriver is the default one: that of containers whose request named none. Empty means
	// json-file.
	LogDriver string
	// Insecure are the registries, by host name or CIDR, that are spoken to without verified TLS.
	Insecure []string
}

// Engine is what the API wants of an engine; *engine.Engine has it. Implementations are called
// concurrently. Errors are of the classes of github.com/containerd/errdefs, and their texts are
// what the user reads.
type Engine interface {
	engine.Containers
	// Events returns the events of the past that a query asks for, and a channel of those to come,
	// which is closed when the engine ends. The caller calls cancel when it reads no more.
	Events(engine.EventQuery) (past []engine.Event, live <-chan engine.Event, cancel func())
	PublishEvent(engine.Event)
}

// Images is what the API wants of an image store; *image.Store has it and documents the methods.
// Implementations are called concurrently. What they return is shared and not changed here.
type Images interface {
	imageStore
	transferImages
	imageCommitter
	DiskUsage(ctx context.Context) (image.DiskUsage, error)
	Login(ctx context.Context, server string, auth image.Auth) error
}

// Volumes is what the API wants of a volume store; *volume.Store has it and documents the methods.
// Implementations are called concurrently.
type Volumes interface {
	List() []volume.Volume
	Get(name string) (volume.Volume, error)
	Create(o volume.CreateOptions) (v volume.Volume, made bool, err error)
	Remove(name string) error
}

// Parts of Engine and Images that several groups of endpoints need.
type (
	inspector interface {
		Inspect(ctx context.Context, name string) (engine.Info, error)
	}
	lister interface {
		List(ctx context.Context) ([]engine.Info, error)
	}
	sizer interface {
		Usage(ctx context.Context, name string) (rw, root int64, err error)
	}
	publisher     interface{ PublishEvent(engine.Event) }
	imageResolver interface {
		Resolve(ctx context.Context, ref string) (image.Image, error)
	}
	imageLister interface {
		List(ctx context.Context, f image.Filter) ([]image.Summary, error)
	}
)

// Handler serves the API. It may be called concurrently.
func Handler(b Backend) http.Handler {
	return http.HandlerFunc(newServer(b, thisHost()).serve)
}
