// Package registry is the client of image registries (distribution-spec): it pulls images as
// document.Sources, pushes them, lists tags and checks credentials.
//
// Promises:
//
//   - What the network cut is asked for again, from the byte where it stopped; a transfer without a
//     byte for a minute counts as cut. What a registry refuses or sends wrong is not asked for
//     again.
//   - Credentials go to the registry that they are for, never to its mirrors.
//   - A registry does not choose which other hosts are talked to: neither descriptors nor answers
//     lead to one.
//
// Not for: keeping what it fetched, verifying layers (those who store them do), schema 1 manifests.
//
// Tested by servers in the test's process that want passwords, refuse and answer in pages, and by a
// fake one that cuts, stalls and sends wrong documents, on a fake clock. Pulls and pushes of whole
// images are tested through package image.
package registry

import (
	"time"

	"golang.org/x/sync/semaphore"
)

// Client reaches registries. All methods may be called concurrently.
type Client struct {
	cfg     Config
	uploads *semaphore.Weighted
}

// New returns a client with a valid configuration, which sends up to so many blobs at once.
func New(cfg Config, uploads int) *Client {
	if cfg.UserAgent == "" {
		cfg.UserAgent = "strake"
	}
	if cfg.StallTimeout == 0 {
		cfg.StallTimeout = time.Minute
	}
	return &Client{cfg: cfg, uploads: semaphore.NewWeighted(int64(uploads))}
}
