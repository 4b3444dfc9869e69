// Package engine is the contract between front ends and the engine: what a container is created
// from, what is known about one, and the interface Containers. A front end compiles against it
// without the implementation, which is package engine/supervisor.
//
// Promises: values of these types are plain data that a front end may keep; the JSON form of Spec
// and State is what records on disk have; errors are of the classes of
// github.com/containerd/errdefs, and their messages are the user's.
//
// Not for: code that does anything (engine/supervisor), decisions (engine/state, engine/ocispec),
// HTTP or gRPC (api/...).
package engine
