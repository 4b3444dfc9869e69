package main

import (
	"os"

	"strake/keeper/server"
)

// keeperMain is the other personality: the parent of all containers of an engine.
func keeperMain(args []string) int {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	return server.Main([]string{self, "keeper"}, args, os.Environ())
}
