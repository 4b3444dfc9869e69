package relay

import (
	"os"
	"os/exec"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// The handlers are not taken back, so the test runs in a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("RELAY_TEST") == "" {
		os.Exit(m.Run())
	}
	r, err := Begin()
	if err != nil {
		println(err.Error())
		os.Exit(1)
	}
	for _, sig := range []unix.Signal{
		unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGUSR1, unix.SIGWINCH, unix.SIGTSTP, 34, 64,
	} {
		if err := unix.Kill(os.Getpid(), sig); err != nil {
			println(err.Error())
			os.Exit(1)
		}
		fds := []unix.PollFd{{Fd: int32(r.FD()), Events: unix.POLLIN}}
		for {
			if _, err := unix.Poll(fds, 10_000); err != unix.EINTR {
				break
			}
		}
		if got := r.Read(); !slices.Equal(got, []unix.Signal{sig}) {
			println("sent", sig, "relayed", len(got))
			os.Exit(1)
		}
	}
	// The Go runtime's own signals still work: a fault is a panic that can be recovered.
	func() {
		defer func() { recover() }()
		var p *int
		*p = 1
	}()
	os.Exit(0)
}

func TestEverySignalOnce(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "RELAY_TEST=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
