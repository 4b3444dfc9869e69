package cli

import "context"

// command is a command or a menu of commands.
type command struct {
	name, args, about string
	takes             string // letters of the flags for some commands that it takes
	least, most       int    // number of arguments; most -1: any
	changes           bool
	setsUp            bool // it needs no machine that is set up
	run               func(*call, context.Context) error
	sub               []command
}

const (
	specArgs   = "[-c <config file>] <container name> [<spec proto in text or binary form>]"
	updateText = "Update a container from a specification, in text or in binary form, on the " +
		"command line or in the file of -c. "
	statsText = " statistics of what a container uses of each resource that it isolates, by " +
		"default those of the calling process' container: a ContainerStats message in text form, " +
		"with -b in binary form."
	ofContainer = " of the container, by default of the calling process' container. With -r " +
		"those of the containers inside too."
)

// commands are sorted by their names.
var commands = []command{
	{
		name: "create", args: specArgs, takes: "c", least: 1, most: 2, changes: true,
		run: (*call).create,
		about: "Create a container from a specification, in text or in binary form, on the " +
			"command line or in the file of -c.",
	},
	{
		name: "destroy", args: "[-f] <container name>", takes: "f", least: 1, most: 1,
		changes: true, run: (*call).destroy,
		about: "Destroy a container. Without -f it must have no containers, processes or threads " +
			"in it.",
	},
	{
		name: "detect", args: "[<PID/TID>]", most: 1, run: (*call).detect,
		about: "Print the container that a process or thread is in, by default the calling " +
			"process.",
	},
	{
		name: "enter", args: "<container name> [<space-separated list of TIDs>]", least: 1,
		most: -1, changes: true, run: (*call).enter,
		about: "Move threads into a container, by default the calling process.",
	},
	{
		name: "init", args: "<spec proto in text or binary form> | -c <config file>", takes: "c",
		most: 1, setsUp: true, run: (*call).init,
		about: "Set the machine up, once after it has booted: mount the cgroup hierarchies that " +
			"the InitSpec lists. With an empty one those that are mounted are used.",
	},
	{
		name: "killall", args: "<container name>", least: 1, most: 1, changes: true,
		run:   (*call).killall,
		about: "Kill all processes and threads of a container, not those of containers inside.",
	},
	{
		name: "list", args: "<list type> <container name>",
		about: "List what is in a container.",
		sub: []command{
			{
				name: "containers", args: "[-r] [<container name>]", takes: "r", most: 1,
				run: (*call).listContainers, about: "List the containers" + ofContainer,
			},
			{
				name: "pids", args: "[-r] [<container name>]", takes: "r", most: 1,
				run: (*call).listPids, about: "List the processes" + ofContainer,
			},
			{
				name: "tids", args: "[-r] [<container name>]", takes: "r", most: 1,
				run: (*call).listTids, about: "List the threads" + ofContainer,
			},
		},
	},
	{
		name: "notify", args: "<resource> <event> <container name> [<event arguments>]",
		about: "Wait for an event of a container, and exit when it happens.",
		sub: []command{{
			name: "memory", args: "<event> <container name> [<event arguments>]",
			about: "Wait for an event about memory.",
			sub: []command{
				{
					name: "oom", args: "<container name>", least: 1, most: 1, changes: true,
					run:   (*call).notifyOOM,
					about: "Wait until the container runs out of memory.",
				},
				{
					name: "threshold", args: "<container name> <threshold in bytes>", least: 2,
					most: 2, changes: true, run: (*call).notifyThreshold,
					about: "Wait until the container's use of memory crosses a threshold.",
				},
			},
		}},
	},
	{
		name: "pause", args: "<container name>", least: 1, most: 1, changes: true,
		run: (*call).pause, about: "Pause a container and all containers in it.",
	},
	{
		name: "resume", args: "<container name>", least: 1, most: 1, changes: true,
		run: (*call).resume, about: "Resume a container that was paused.",
	},
	{
		name: "run", args: "[-n] <container name> <command...>", takes: "n", least: 2, most: -1,
		changes: true, run: (*call).run,
		about: "Run a command in a container, in the place of this program. A single argument " +
			"with a space in it is a command for /bin/sh. With -n the command runs in the " +
			"background, and its PID is printed.",
	},
	{
		name: "spec", args: "[-b] [<container name>]", takes: "b", most: 1, run: (*call).spec,
		about: "Print the specification of a container as the kernel enforces it, by default of " +
			"the calling process' container: a ContainerSpec message in text form, with -b in " +
			"binary form.",
	},
	{
		name: "stats", args: "<stats type> [-b] [<container name>]",
		about: "Print statistics of a container's use of resources.",
		sub: []command{
			{
				name: "full", args: "[-b] [<container name>]", takes: "b", most: 1,
				run: (*call).statsFull, about: "Print all" + statsText,
			},
			{
				name: "summary", args: "[-b] [<container name>]", takes: "b", most: 1,
				run: (*call).statsSummary, about: "Print a summary of" + statsText,
			},
		},
	},
	{
		name: "update", args: "<update policy> " + specArgs,
		about: "Update a container from a specification.",
		sub: []command{
			{
				name: "diff", args: specArgs, takes: "c", least: 1, most: 2, changes: true,
				run: (*call).updateDiff,
				about: updateText + "Fields that are not set stay as they are. Repeated fields " +
					"are always set.",
			},
			{
				name: "replace", args: specArgs, takes: "c", least: 1, most: 2, changes: true,
				run: (*call).updateReplace,
				about: updateText + "Fields that are not set get their defaults. Repeated fields " +
					"are always set.",
			},
		},
	},
}
