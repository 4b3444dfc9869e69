// Package engine is what front ends see of containers: the types that a container is created from
// and described by (Spec, State, Info), and the interface that they drive (Containers). It has no
// implementation: package engine/supervisor is one, and documents promises and locks.
//
// Promises: a front end that uses these types compiles without an implementation. The JSON forms of
// Spec, State and HealthResult are recorded on disk (package engine/record) and stay readable.
//
// Not for: HTTP or gRPC (api/...), image formats (image), packets (network), processes (task),
// decisions (engine/state, engine/ocispec).
//
// There is nothing to test here but through the implementation: package engine/supervisor does.
package engine
