package server

import (
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/keeper"
	"strake/keeper/wire"
)

// raw is a connection that says what it likes.
func raw(t *testing.T, r *rig) int {
	t.Helper()
	fd, err := wire.Connect(r.launch.Socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(
		fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(patience.Seconds())},
	); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// converse sends a packet and returns the answer; nil if the keeper hung up.
func converse(t *testing.T, fd int, packet []byte, fds ...int) wire.Body {
	t.Helper()
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(fd, packet, oob, nil, unix.MSG_NOSIGNAL); err != nil {
		return nil
	}
	buf, control := make([]byte, wire.MaxMessage), make([]byte, 4096)
	n, oobn, _, _, err := unix.Recvmsg(fd, buf, control, unix.MSG_CMSG_CLOEXEC)
	if err == unix.EAGAIN {
		t.Fatal("no answer")
	}
	closeAll(received(control[:max(oobn, 0)]))
	if err != nil || n == 0 {
		return nil
	}
	_, b, err := wire.Decode(buf[:n])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Whatever a client says, the keeper and its processes live on, and nothing is left behind.
func TestHostileMessages(t *testing.T) {
	r := newRig(t)
	req := r.request("a", "read x")
	req.Stdio.Stdin = true
	r.start(req)
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	nullFD := int(null.Fd())
	before := r.descriptors()
	encode := func(b wire.Body) []byte {
		packet, err := wire.Encode(nil, 1, b)
		if err != nil {
			t.Fatal(err)
		}
		return packet
	}
	for _, tc := range []struct {
		name   string
		packet []byte
		fds    int
		hangUp bool
		class  wire.Class
	}{
		{name: "garbage", packet: []byte("GET / HTTP/1.1\r\n"), hangUp: true},
		{name: "one byte", packet: []byte{1}, hangUp: true},
		{
			name:   "other version",
			packet: append([]byte{wire.Version + 1}, encode(&wire.Hello{})[1:]...), hangUp: true,
		},
		{
			name: "number of events", packet: append(encode(&wire.Hello{})[:3], 0, 0, 0, 0, 0),
			hangUp: true,
		},
		{name: "too long", packet: make([]byte, wire.MaxMessage+1), hangUp: true},
		{name: "an answer", packet: encode(&wire.Error{}), class: wire.ClassInvalidArgument},
		{
			name: "an event", packet: encode(&wire.StreamsClosedEvent{}),
			class: wire.ClassInvalidArgument,
		},
		{name: "unknown process", packet: encode(&wire.Signal{ID: "x"}), class: wire.ClassNotFound},
		{
			name: "no such signal", packet: encode(&wire.Signal{ID: "a", Signal: 1000}),
			class: wire.ClassInvalidArgument,
		},
		{
			name: "start without descriptors", packet: encode(&wire.Start{ID: "x"}),
			class: wire.ClassInvalidArgument,
		},
		{
			name: "start with too many", packet: encode(&wire.Start{ID: "x"}), fds: 2,
			class: wire.ClassInvalidArgument,
		},
		{
			name: "image that is no image", packet: encode(&wire.Start{ID: "x"}), fds: 1,
			class: wire.ClassInvalidArgument,
		},
		{
			name:   "input given twice",
			packet: encode(&wire.Start{ID: "x", Inputs: []string{"i", "i"}}), fds: 3,
			class: wire.ClassInvalidArgument,
		},
		{
			name:   "subscriber that is none",
			packet: encode(&wire.Start{ID: "x", Attach: []wire.Attachment{{Stdout: true}}}), fds: 2,
			class: wire.ClassInvalidArgument,
		},
		{
			name:   "subscription to nothing",
			packet: encode(&wire.Start{ID: "x", Attach: []wire.Attachment{{}}}), fds: 1,
			class: wire.ClassInvalidArgument,
		},
		{
			name: "same that is not",
			packet: encode(
				&wire.Attach{ID: "a", Attachment: wire.Attachment{Stderr: true, Same: true}},
			),
			class: wire.ClassInvalidArgument,
		},
		{
			name:   "attach without descriptors",
			packet: encode(&wire.Attach{ID: "a", Attachment: wire.Attachment{Stdout: true}}),
			class:  wire.ClassInvalidArgument,
		},
		{
			name: "adopt nothing", packet: encode(&wire.Adopt{Process: wire.Process{ID: "x"}}),
			class: wire.ClassInvalidArgument,
		},
		{
			name: "adopt what is no process",
			packet: encode(
				&wire.Adopt{Process: wire.Process{ID: "x", FDs: wire.Descriptors{PidFD: true}}},
			),
			fds: 1, class: wire.ClassInvalidArgument,
		},
		{
			name:   "adopt with a bad end command",
			packet: encode(&wire.Adopt{Process: wire.Process{ID: "x", EndCommand: []string{"x"}}}),
			class:  wire.ClassInvalidArgument,
		},
		{
			name:   "adopt what is kept and does not come",
			packet: encode(&wire.Adopt{Process: wire.Process{ID: "x", Kept: []string{"tty1"}}}),
			class:  wire.ClassInvalidArgument,
		},
		{
			name: "upgrade to nothing", packet: encode(&wire.Empty{T: wire.TypeUpgrade}),
			class: wire.ClassInvalidArgument,
		},
		{
			name: "upgrade to a device", packet: encode(&wire.Empty{T: wire.TypeUpgrade}), fds: 1,
			class: wire.ClassFailedPrecondition,
		},
		{
			name:   "descriptors that nobody wants",
			packet: encode(&wire.Simple{T: wire.TypeForget, ID: "x"}), fds: 250,
			class: wire.ClassNotFound,
		},
	} {
		fd := raw(t, r)
		var fds []int
		for range tc.fds {
			fds = append(fds, nullFD)
		}
		b := converse(t, fd, tc.packet, fds...)
		e, _ := b.(*wire.Error)
		switch {
		case tc.hangUp && b != nil:
			t.Errorf("%s: answer %+v, want none", tc.name, b)
		case !tc.hangUp && (e == nil || e.Class != tc.class):
			t.Errorf("%s: answer %+v, want class %d", tc.name, b, tc.class)
		}
		unix.Close(fd)
	}
	if list, err := r.List(r.ctx()); err != nil || len(list) != 1 ||
		list[0].State != keeper.Running {
		t.Errorf("list %v, %v", list, err)
	} else {
		list[0].Close()
	}
	if after := r.descriptors(); !reflect.DeepEqual(before, after) {
		t.Errorf("descriptors before %q\nafter %q", before, after)
	}
}

// Random damage to requests that are right.
func TestDamagedMessages(t *testing.T) {
	r := newRig(t)
	rnd := rand.New(rand.NewPCG(5, 6))
	good := []wire.Body{
		&wire.Hello{Events: true},
		&wire.Start{ID: "x", Inputs: []string{"in"}, Attach: []wire.Attachment{{Stdout: true}}},
		&wire.Attach{ID: "x"}, &wire.Signal{ID: "x", Signal: 9},
		&wire.Start{ID: "x", EndCommand: []string{"/nonesuch", "x"}, Keep: []string{"tty1"}},
		&wire.Adopt{Process: wire.Process{ID: "y"}},
		&wire.Adopt{Process: wire.Process{ID: "y", Kept: []string{"tty1"}}},
		&wire.Empty{T: wire.TypeList},
	}
	fd := raw(t, r)
	for range 2000 {
		packet, err := wire.Encode(nil, 1+rnd.Uint32N(5), good[rnd.IntN(len(good))])
		if err != nil {
			t.Fatal(err)
		}
		for range 1 + rnd.IntN(3) {
			packet[rnd.IntN(len(packet))] ^= 1 << rnd.IntN(8)
		}
		if packet[2] == byte(wire.TypeShutdown) {
			continue
		}
		if converse(t, fd, packet) == nil {
			unix.Close(fd)
			fd = raw(t, r)
		}
	}
	unix.Close(fd)
	if _, err := r.List(r.ctx()); err != nil {
		t.Error(err)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ args, want string }{
		{"--socket /s --state /d", ""},
		{"--fd 3 --state /d --log /l --spill 5", ""},
		{"--check 4", ""},
		{"--state /d", "exactly one"},
		{"--socket /s --fd 3 --state /d", "exactly one"},
		{"--socket /s", `--state ""`},
		{"--socket /s --state d", `--state "d"`},
		{"--socket /s --state /d --log l", `--log "l"`},
		{"--socket /s --state /d --spill -1", "--spill -1"},
		{"--socket /s --state /d more", `"more"`},
		{"--sockets /s", "sockets"},
	} {
		_, err := parse(strings.Fields(tc.args))
		if tc.want == "" && err != nil || tc.want != "" &&
			(!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %v, want %q", tc.args, err, tc.want)
		}
	}
}

func TestParseStat(t *testing.T) {
	t.Parallel()
	got, err := parseStat(
		"12 (a) S) R (x)) Z 1 2 3 4 -1 4194380 0 0 0 0 0 0 0 0 20 0 1 0 5123456 0 0\n",
	)
	want := stat{name: "a) S) R (x)", state: 'Z', flags: 4194380, ticks: 5123456}
	if err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, text := range []string{"", "12 (a", "12 a) Z", "12 (a) Z 1", ")("} {
		if _, err := parseStat(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}
