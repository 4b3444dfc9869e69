package container

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"strake/container/launch"
	"strake/container/netdevice"
	"strake/container/plan"
	"strake/container/program"
	"strake/container/spawn"
	"strake/internal/inroot"
)

// assistant does what a program asks of its spawner while it waits (plan.Assist). It works on
// descriptors that the child has opened in the container's view of its files, and leaves the
// directories that they refer to neither through links nor through "..".
type assistant struct {
	m     *spawn.Machine
	plan  *plan.Plan
	child *spawn.Child
	first int // the descriptor of the first message, or -1

	devices map[string]specs.LinuxNetDevice
	moved   []*netdevice.Device
	network *os.File // of the child, while a device may have to be moved back
}

// take handles a message, if it is of an assist.
func (a *assistant) take(ctx context.Context, m spawn.Message) (bool, error) {
	if m.Stage < program.StageAssist {
		return false, nil
	}
	n := int(m.Stage - program.StageAssist)
	if n >= len(a.plan.Assists) || m.FD < 0 {
		return true, fmt.Errorf("request %d of the child is not in its program", n)
	}
	if a.first < 0 {
		a.first = m.FD
		return true, nil
	}
	w := &a.plan.Assists[n]
	first := a.first
	a.first = -1
	defer unix.Close(first)
	defer unix.Close(m.FD)
	if err := a.assist(ctx, w, first, m.FD); err != nil {
		if w.Kind == plan.MapTree {
			return true, err // it names the field
		}
		return true, fmt.Errorf("%s: %w", w.Field, err)
	}
	for range w.Continue {
		if err := a.child.Continue(); err != nil {
			return true, err
		}
	}
	return true, nil
}

func (a *assistant) close() {
	if a.first >= 0 {
		unix.Close(a.first)
		a.first = -1
	}
}

func (a *assistant) assist(ctx context.Context, w *plan.Assist, first, second int) error {
	switch w.Kind {
	case plan.MakeTarget:
		var st unix.Stat_t
		if err := unix.Fstat(second, &st); err != nil {
			return fmt.Errorf("fstat: %w", err)
		}
		uid, gid := hostID(a.plan.UIDMap), hostID(a.plan.GIDMap)
		return inroot.Make(
			first, w.Path, st.Mode&unix.S_IFMT == unix.S_IFDIR,
			func(f func() error) error { return actAs(uid, gid, f) },
		)
	case plan.CopyUp:
		if err := copyUp(ctx, first, second, w.Owner); err != nil {
			return fmt.Errorf("tmpcopyup: %w", err)
		}
		return nil
	case plan.MoveDevices:
		return a.moveDevices()
	case plan.MapTree:
		return launch.MapTree(a.m, first, &w.Tree)
	}
	return fmt.Errorf("work of kind %d: %w", w.Kind, errdefs.ErrNotImplemented)
}

// moveDevices moves the devices in the order of their names.
func (a *assistant) moveDevices() error {
	// By the number: the child waits for this.
	network, err := os.Open("/proc/" + strconv.Itoa(a.child.Pid) + "/ns/net")
	if err != nil {
		return err
	}
	a.network = network
	for _, name := range slices.Sorted(maps.Keys(a.devices)) {
		d, err := netdevice.Move(name, a.devices[name].Name, network)
		if err != nil {
			return err
		}
		a.moved = append(a.moved, d)
	}
	return nil
}

// giveBack moves the devices back where they were.
func (a *assistant) giveBack() (err error) {
	for _, d := range slices.Backward(a.moved) {
		err = errors.Join(err, d.Back())
	}
	a.moved = nil
	return err
}

// leave lets go of the child's network: what was moved there stays.
func (a *assistant) leave() {
	if a != nil && a.network != nil {
		a.network.Close()
	}
}

// hostID is whom root of a new user namespace is outside of it.
func hostID(list []specs.LinuxIDMapping) int {
	for _, m := range list {
		if m.ContainerID == 0 && m.Size > 0 {
			return int(m.HostID)
		}
	}
	return 0
}

// actAs makes the system calls of f with other IDs for files (setfsuid(2)): a filesystem of a user
// namespace takes nothing from a user that the namespace does not have.
func actAs(uid, gid int, f func() error) error {
	if uid == 0 && gid == 0 {
		return f()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	oldGid, err := unix.SetfsgidRetGid(gid)
	if err != nil {
		return fmt.Errorf("setfsgid: %w", err)
	}
	defer unix.Setfsgid(oldGid)
	oldUid, err := unix.SetfsuidRetUid(uid)
	if err != nil {
		return fmt.Errorf("setfsuid: %w", err)
	}
	defer unix.Setfsuid(oldUid)
	return f()
}
