package cli

// verbs are LXC's, in the order of their names, and "end", which the keeper executes.
var verbs = []verb{
	{
		name: "attach", usage: "[-- COMMAND [ARG...]]",
		about: "Execute a command in a running container", flags: attach,
	},
	{
		name: "autostart", about: "Start, stop or list the containers that start by themselves",
		flags: autostart, free: true,
	},
	{
		name: "cgroup", usage: "FILE [VALUE]",
		about: "Show or set a file of a container's control group", flags: cgroupItem,
	},
	{
		name: "checkconfig", free: true, flags: checkConfig,
		about: "Show what the kernel has that containers need",
	},
	{
		name: "config", usage: "ITEM", about: "Show an item of the host's configuration",
		flags: showConfig, free: true,
	},
	{
		name: "console", about: "Connect to a terminal of a container", flags: console,
	},
	{
		name: "copy", usage: "[-N NEWNAME] [-- ARG...]",
		about: "Copy or rename a container, or start an ephemeral copy", flags: copyContainer,
	},
	{
		name: "create", usage: "-t TEMPLATE [-- ARG...]", about: "Create a container",
		flags: create,
	},
	{name: "destroy", about: "Destroy a container", flags: destroy},
	{
		name: "device", usage: "add|del DEVICE [NAME]",
		about: "Give a running container a device, or take it away", flags: device,
	},
	{
		name: "end", about: "Do what follows the end of a container: its keeper executes this",
		flags: end,
	},
	{
		name: "execute", usage: "[-- COMMAND [ARG...]]",
		about: "Execute a command in a container without its init", flags: execute,
	},
	{name: "freeze", about: "Freeze all processes of a container", flags: freeze},
	{name: "info", about: "Show a container", flags: info},
	{name: "ls", usage: "[FILTER]", about: "List containers", flags: list, free: true},
	{
		name: "monitor", usage: "[NAME]", about: "Show changes of the state of containers",
		flags: monitor, free: true,
	},
	{name: "snapshot", about: "Make, list, restore and destroy snapshots", flags: snapshot},
	{name: "start", usage: "[-- COMMAND]", about: "Start a container", flags: start},
	{name: "stop", about: "Stop a container", flags: stop},
	{
		name: "teardown", free: true, flags: teardown,
		about: "Kill all containers and remove what they have in the kernel",
	},
	{name: "top", about: "Show what containers use", flags: top, free: true},
	{name: "unfreeze", about: "Let the processes of a frozen container go on", flags: unfreeze},
	{
		name: "unshare", usage: "-s NAMESPACES [--] COMMAND [ARG...]",
		about: "Execute a command in new namespaces", flags: unshare, free: true, own: true,
	},
	{
		name: "update-config", usage: "-c FILE",
		about: "Rewrite a configuration from before LXC 2.1", flags: updateConfig, free: true,
	},
	{
		name: "usernsexec", usage: "[-m MAP]... [--] [COMMAND [ARG...]]", free: true, own: true,
		about: "Execute a command as root of a new user namespace", flags: usernsExec,
	},
	{name: "wait", about: "Wait until a container is in a state", flags: wait},
}
