// Command hello is the least that a Go program costs; bench measures start-up times against it.
package main

import "os"

func main() { os.Stdout.WriteString("hello\n") }
