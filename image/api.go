package image

import (
	"strake/image/document"
	"strake/image/index"
	"strake/image/progress"
	"strake/image/registry"
	"strake/image/rootfs"
)

// What callers of the store see of the packages below it; see there.
type (
	// Image is an image as the index knows it.
	Image = index.Image
	// Filter narrows a List, and Summary is a line of one.
	Filter  = index.Filter
	Summary = index.Summary
	// Use is one container that uses an image.
	Use = index.Use
	// RemoveOptions are the parameters of Remove, and Removed is one thing that it did.
	RemoveOptions = index.RemoveOptions
	Removed       = index.Removed

	// RunConfig is what an image says about its containers.
	RunConfig   = document.RunConfig
	Healthcheck = document.Healthcheck

	// Rootfs is a container's root file system, and Usage the space that its writable layer takes.
	Rootfs = rootfs.Rootfs
	Usage  = rootfs.Usage

	// Registries says how registries are reached, and Auth who asks.
	Registries = registry.Config
	Auth       = registry.Auth

	// Event is one step of a pull, push or load, and Progress receives them.
	Event    = progress.Event
	Progress = progress.Func
)

// DefaultRegistry is where names without a host belong, as docker's clients have it.
var DefaultRegistry = registry.DefaultRegistry

// Key joins the owner of a root file system and its name to a key; see rootfs.Key.
func Key(owner, name string) (string, error) { return rootfs.Key(owner, name) }
