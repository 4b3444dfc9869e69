// Package naming makes container names that people can say, and checks the ones that people chose.
//
// Not for: IDs. Tested by tables.
package naming

import (
	"fmt"
	"math/rand/v2"
	"regexp"

	"github.com/containerd/errdefs"

	"strake/internal/message"
)

var first = [...]string{
	"able", "agile", "airy", "amber", "ample", "apt", "ardent", "autumn", "azure", "balmy",
	"blithe", "bold", "brave", "bright", "brisk",
	"calm", "candid", "careful", "cheery", "civil", "clear", "clever", "cobalt", "coastal",
	"copper", "cordial", "crisp", "curious", "dapper",
	"daring", "deft", "distant", "dry", "dusky", "eager", "early", "earnest", "easy", "even",
	"fair", "faithful", "fearless", "fleet", "fond",
	"frank", "free", "fresh", "gallant", "gentle", "glad", "golden", "graceful", "green", "hale",
	"handy", "hardy", "hearty", "honest",
	"humble", "jolly", "just", "keen", "kind", "lively", "lucid", "lucky", "mellow", "merry",
	"mild", "modest", "neat", "nimble", "noble",
	"northern", "open", "patient", "placid", "plucky", "polite", "prompt", "proud", "quick",
	"quiet", "ready", "royal", "sandy", "serene",
	"sharp", "silver", "simple", "sleek", "smooth", "snug", "sober", "solid", "southern", "spry",
	"staunch", "steady", "stout", "sturdy",
	"sunny", "swift", "tidy", "trim", "trusty", "upright", "vivid", "warm", "wary", "western",
	"willing", "windy", "wise", "witty", "zesty",
}

var second = [...]string{
	"albatross", "anchor", "anvil", "auk", "ballast", "barge", "beacon", "binnacle", "bosun",
	"bowline", "bowsprit", "breaker", "brig",
	"buoy", "cable", "canvas", "capstan", "caravel", "catboat", "channel", "cleat", "clipper",
	"coble", "compass", "coral", "corvette",
	"coxswain", "current", "cutter", "davit", "deckhand", "derrick", "dinghy", "dolphin", "dory",
	"ebb", "eddy", "estuary", "fathom",
	"fender", "ferry", "figurehead", "fjord", "flotilla", "foghorn", "forecastle", "foresail",
	"frigate", "galleon", "galley", "gangway",
	"gannet", "gimbal", "grapnel", "gull", "gunwale", "halyard", "harbour", "hatch", "hawser",
	"helm", "heron", "hull", "island", "jetty",
	"jib", "kedge", "keel", "ketch", "kittiwake", "lagoon", "lanyard", "lantern", "lighthouse",
	"locker", "longboat", "lugger", "mainsail",
	"mariner", "marlin", "mast", "mizzen", "mooring", "narwhal", "oar", "osprey", "outrigger",
	"paddle", "pelican", "pennant", "petrel",
	"pier", "pilot", "pinnace", "plank", "porpoise", "pulley", "puffin", "quay", "rigging",
	"rudder", "sailor", "schooner", "seal",
	"sextant", "shoal", "shroud", "skiff", "skipper", "sloop", "sounding", "spar", "spinnaker",
	"sprit", "stern", "strait", "sunfish",
	"tern", "thwart", "tide", "tiller", "topsail", "transom", "trawler", "tugboat", "wherry",
	"winch", "windlass", "yardarm", "yawl",
}

// Pick returns a name that taken refuses not. After some attempts it appends a digit, then more.
func Pick(taken func(string) bool) string {
	for attempt := 0; ; attempt++ {
		name := first[rand.IntN(len(first))] + "_" + second[rand.IntN(len(second))]
		if attempt >= 5 {
			name += fmt.Sprint(rand.IntN(10 << min(3*(attempt-5), 40)))
		}
		if !taken(name) {
			return name
		}
	}
}

var valid = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// Check says whether a chosen name is allowed, in dockerd's words. The class is
// errdefs.ErrInvalidArgument.
func Check(name string) error {
	if !valid.MatchString(name) {
		return message.New(
			errdefs.ErrInvalidArgument,
			"Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name,
		)
	}
	if len(name) > 253 {
		return message.New(
			errdefs.ErrInvalidArgument,
			"Invalid container name of %d bytes, at most 253 are allowed", len(name),
		)
	}
	return nil
}
