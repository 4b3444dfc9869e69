// Package archive reads and writes images in one tar: OCI image layouts and what docker save
// writes.
//
// An archive is untrusted: its files never become files of their names, links lead nowhere but to
// its own files, and its numbers and sizes are bounded. What is read are document.Sources, whose
// layers are verified by those who unpack them.
//
// Not for: archives of docker before 1.10, which carry no verifiable configuration; unpacking
// layers (package unpack).
//
// Tested by archives that the tests build, hostile ones among them, in memory, by a fuzzer of
// Read, and with a store through package image.
package archive
