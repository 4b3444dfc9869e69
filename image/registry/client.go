// Package registry is the client of image registries (distribution-spec): it pulls images as
// document.Sources, pushes them, lists tags and checks credentials.
//
// Promises:
//
//   - What the network cut is asked for again, from the byte where it stopped, five times in all. A
//     transfer without a byte for a minute counts as cut, as does one that brings less than 1 KiB
//     for each second that it is waited for. What a registry refuses or sends wrong is not asked
//     for again.
//   - A registry that does not take what is pushed to it for a minute, or does not answer, counts as
//     cut too.
//   - All that a registry sends is bounded: blobs by the sizes in their descriptors, manifests by 4
//     MiB, other documents by 16 MiB, tokens by 1 MiB, heads by 256 KiB, redirects by 10.
//   - Credentials go to the registry that they are for, never to its mirrors.
//   - Descriptors lead to no other host. Redirects and the address of a token server may, as the
//     protocol has it, but to no other scheme, not from TLS to plain HTTP, with no credentials of
//     the registry, and not to this host or its link unless the registry is on this host.
//
// Not for: keeping what it fetched, verifying layers (those who store them do), schema 1 manifests.
//
// Tested by servers in the test's process that want passwords, refuse and answer in pages, and by a
// fake one that cuts, stalls and sends wrong documents, on a fake clock. Pulls and pushes of whole
// images are tested through package image, which also has registries that lie (TestLies there).
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
	if cfg.RetryWait == 0 {
		cfg.RetryWait = 500 * time.Millisecond
	}
	return &Client{cfg: cfg, uploads: semaphore.NewWeighted(int64(uploads))}
}
