package layering

// rule forbids packages to import packages, directly or through others, and says why. From and To
// are lists, separated by spaces. A path stands for the package and all below it; with "/." at its
// end, for the package alone. Packages of Except are not judged as importers and not found as
// imports.
type rule struct {
	From, To, Why string
	Except        []string
}

const (
	library    = "the library stands alone"
	parsing    = "the keeper parses nothing that a user wrote"
	apart      = "capabilities do not know one another"
	downwards  = "imports point downwards"
	protocol   = "the engine knows no wire protocol"
	contract   = "front ends compile against a contract without its implementation"
	pure       = "decisions are pure: they do no I/O"
	ports      = "the engine reaches the host through the interfaces that it declares"
	medium     = "a format or a medium of images can be used without the store"
	client     = "the client speaks the API only"
	quick      = "the client starts in milliseconds"
	daemonless = "system and resource containers need no engine"
	small      = "the runtime imports container and keeper only"
	instant    = "the runtime starts in a millisecond"
)

var (
	// logReader is the package that only readers of logs import: it decodes what containers wrote.
	logReader = []string{"strake/keeper/logfile"}
	// place is a value that others hand to the network; it has no implementation.
	place = []string{"strake/network/place"}
)

var rules = []rule{
	{From: "strake", To: "strake/userland", Why: "the commands of strake/base are another module"},
	{
		From: "strake",
		To: "strake/internal/testneed strake/task/tasktest strake/container/leader/leadertest " +
			"strake/image/internal/testregistry strake/cli/internal/verbtest",
		Why: "only tests need it",
	},
	{
		From: "strake/internal",
		To: "strake/container strake/keeper strake/task strake/sandbox strake/image " +
			"strake/network strake/volume strake/engine",
		Why: downwards,
	},

	// The library.
	{
		From: "strake/container",
		To: "strake/keeper strake/task strake/sandbox strake/image strake/network strake/volume " +
			"strake/engine",
		Why: library,
	},
	{From: "strake/container", To: "net/http", Why: instant},
	{
		From: "strake/container", To: "strake/container/.",
		Why: "the keeper and tasks use the parts without the runtime's state directory",
	},
	{
		From: "strake/container/leader", To: "strake/container/launch strake/container/plan",
		Why: "a process is found and signalled without knowing how it was started",
	},
	{
		From: "strake/container/plan", To: "strake/container/spawn",
		Why: "a plan is pure: it runs nothing",
	},
	{
		From: "strake/container/plan", To: "strake/container/cgroup",
		Why: "a plan is pure: it touches no cgroup",
	},
	{
		From: "strake/container/program", To: "strake/container/plan",
		Why: "programs know nothing of containers",
	},

	// The keeper.
	{From: "strake/keeper", To: "strake/engine", Why: "the keeper outlives the engine"},
	{
		From: "strake/keeper",
		To:   "strake/task strake/sandbox strake/image strake/network strake/volume",
		Why:  downwards,
	},
	{From: "strake/keeper", To: "strake/container/plan strake/container/launch", Why: parsing},
	{From: "strake/keeper", To: "encoding/json", Why: parsing, Except: logReader},
	{
		From: "strake/keeper/. strake/keeper/server strake/keeper/wire strake/keeper/logwriter",
		To:   "strake/keeper/logfile", Why: parsing,
	},
	{From: "strake/keeper", To: "net/http", Why: "the keeper is small"},

	// Capabilities.
	{From: "strake/image", To: "strake/network strake/volume", Why: apart},
	{From: "strake/network", To: "strake/image strake/volume", Why: apart},
	{From: "strake/volume", To: "strake/image strake/network", Why: apart},
	{
		From: "strake/image strake/network strake/volume",
		To:   "strake/container strake/keeper strake/task strake/sandbox", Why: apart,
	},
	{From: "strake/image strake/network strake/volume", To: "strake/engine", Why: downwards},
	{
		From: "strake/network/place", To: "strake",
		Why: "sandboxes and the engine's contract import it in place of the network",
	},
	{From: "strake/image", To: "strake/image/.", Why: medium},
	{
		From: "strake/image/document strake/image/index strake/image/registry " +
			"strake/image/archive strake/image/rootfs strake/image/layer strake/image/name " +
			"strake/image/overlay strake/image/progress",
		To: "strake/image/backend", Why: medium,
	},

	// Tasks and sandboxes.
	{
		From: "strake/task strake/sandbox",
		To:   "strake/engine strake/image strake/network strake/volume", Why: downwards,
		Except: place,
	},
	{From: "strake/task", To: "strake/sandbox", Why: downwards},
	{
		From: "strake/task", To: "strake/keeper strake/task/host",
		Why:    "a task may be a process or a machine; task/host alone knows the keeper",
		Except: []string{"strake/task/host", "strake/task/tasktest"},
	},
	{From: "strake/task/tasktest", To: "strake/task/host strake/task/group", Why: contract},
	{From: "strake/sandbox", To: "strake/keeper strake/task/host strake/task/group", Why: contract},

	// Front ends without a daemon.
	{
		From: "strake/lxc strake/lmctfy",
		To:   "strake/engine strake/api strake/image strake/volume strake/sandbox net/http",
		Why:  daemonless,
	},
	{From: "strake/lxc", To: "strake/lmctfy", Why: apart},
	{From: "strake/lmctfy", To: "strake/lxc strake/keeper strake/task strake/network", Why: apart},
	{
		From: "strake/lxc/config strake/lxc/ocispec strake/lxc/seccomp",
		To: "os/exec strake/lxc/. strake/keeper strake/task strake/network strake/container/spawn " +
			"strake/container/launch strake/container/cgroup",
		Why: pure,
	},
	{
		From: "strake/lmctfy/name strake/lmctfy/spec strake/lmctfy/policy/. " +
			"strake/lmctfy/policy/simulate",
		To:  "os/exec strake/container strake/lmctfy/. strake/lmctfy/policy/driver",
		Why: pure,
	},
	{
		From: "strake/engine strake/api strake/task strake/sandbox strake/keeper strake/network",
		To:   "strake/lxc strake/lmctfy", Why: downwards,
	},

	// The engine.
	{From: "strake/engine", To: "strake/api", Why: protocol},
	{From: "strake/engine", To: "net/http", Why: protocol},
	{From: "strake/engine", To: "strake/cli", Why: downwards},
	{
		From: "strake/engine/.",
		To: "strake/image strake/network strake/volume strake/sandbox strake/keeper " +
			"strake/task/host strake/task/group strake/engine/supervisor",
		Why: contract, Except: place,
	},
	{
		From: "strake/engine/state strake/engine/ocispec strake/engine/naming " +
			"strake/engine/userdb",
		To: "os/exec net/. net/http strake/image strake/network strake/volume strake/sandbox " +
			"strake/keeper strake/task/host strake/task/group strake/engine/supervisor",
		Why: pure, Except: place,
	},
	{From: "strake/engine", To: "strake/network", Why: ports, Except: place},
	{From: "strake/engine", To: "strake/keeper", Why: ports, Except: logReader},
	{From: "strake/engine", To: "strake/task/host strake/task/group", Why: ports},

	// Front ends.
	{From: "strake/api", To: "strake/cli", Why: downwards},
	{
		From: "strake/api",
		To: "strake/engine/supervisor strake/task/host strake/task/group strake/sandbox " +
			"strake/network strake/keeper",
		Why: contract, Except: place,
	},
	{
		From: "strake/cli strake/cmd/strake",
		To: "strake/api strake/engine strake/task strake/sandbox strake/keeper " +
			"strake/container strake/image strake/network strake/volume",
		Why: client,
	},
	{
		From: "strake/cmd/strake",
		To: "google.golang.org/grpc google.golang.org/protobuf go.opentelemetry.io " +
			"github.com/moby/moby/api",
		Why: quick,
	},

	// The runtime.
	{
		From: "strake/cmd/strake-runtime",
		To: "strake/engine strake/task strake/sandbox strake/image strake/network " +
			"strake/volume strake/cli",
		Why: small,
	},
	{From: "strake/cmd/strake-runtime", To: "strake/keeper/logfile", Why: parsing},
	{
		From: "strake/cmd/strake-runtime",
		To:   "net/http google.golang.org github.com/containerd/containerd", Why: instant,
	},
	{
		// The first two link the C library where it is there, whose start takes longer than the
		// runtime's; the third prepares tables at each start.
		From: "strake/cmd/strake-runtime", To: "os/user net/. regexp", Why: instant,
	},
}

// exceptions names, for an importer and an import, the package through which the one may reach the
// other: the engine gets net/http with the registry client of images.
var exceptions = map[string]string{
	"strake/engine net/http": "strake/image",
}
