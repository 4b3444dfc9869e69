// Package spec is the specification and the statistics of resource containers, as lmctfy 0.5.0
// writes them: protocol buffers in text or in binary form.
//
// [Parse] and [ParseInit] read, [Text] and [Binary] write, [Validate] finds what no host can do,
// [CheckUpdate] and [Merge] are what an update means. All are pure. Errors name the field, as in
// "memory.limit", and what is allowed there.
//
// Not for: what this host can do (package lmctfy).
//
// lmctfy.pb.go is generated from lmctfy.proto by go generate, which runs protoc of Debian's package
// protobuf-compiler with the generator that go.mod names.
//
// Tested by tables, golden texts, and a comparison of the fields' numbers with the original's.
package spec

//go:generate sh generate
