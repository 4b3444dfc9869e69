package lmctfy

import "strings"

// fields are the names of container/cgroup, which are those of a runtime's configuration, with what
// they are in a specification. The longest of a beginning come first.
var fields = strings.NewReplacer(
	"linux.resources.cpu.cpus", "cpu.mask",
	"linux.resources.cpu.idle", "cpu.scheduling_latency",
	"linux.resources.cpu.shares", "cpu.limit",
	"linux.resources.cpu.quota", "cpu.max_limit",
	"linux.resources.cpu.period", "cpu.max_limit",
	"linux.resources.memory.limit", "memory.limit",
	"linux.resources.memory.swap", "memory.swap_limit",
	"linux.resources.devices", "device.restrictions_set",
	"linux.resources.blockIO.weight", "blockio.device_limit_set",
	"linux.resources.blockIO.throttle", "blockio.max_device_limit_set ",
)

// fieldError is an error whose text names fields of a specification.
type fieldError struct {
	text string
	err  error
}

func (e *fieldError) Error() string { return e.text }

func (e *fieldError) Unwrap() error { return e.err }

// renamed is an error of container/cgroup with the names of fields that the user knows.
func renamed(err error) error {
	text := fields.Replace(err.Error())
	if text == err.Error() {
		return err
	}
	return &fieldError{text: text, err: err}
}
