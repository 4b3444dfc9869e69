package supervisor

import (
	"fmt"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/internal/message"
)

// parseSignal reads "SIGTERM", "TERM", "15", "SIGRTMIN+3".
func parseSignal(s string) (syscall.Signal, error) {
	var n int
	if _, err := fmt.Sscanf(s, "%d", &n); err == nil && fmt.Sprint(n) == s && n > 0 && n <= 64 {
		return syscall.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	for _, rt := range []struct {
		prefix    string
		base, dir int
	}{{"SIGRTMIN", 34, 1}, {"SIGRTMAX", 64, -1}} {
		rest, ok := strings.CutPrefix(name, rt.prefix)
		if !ok {
			continue
		}
		k := 0
		if rest != "" {
			var sign rune
			if _, err := fmt.Sscanf(rest, "%c%d", &sign, &k); err != nil ||
				(sign == '+') != (rt.dir == 1) || k < 0 || k > 30 {
				break
			}
		}
		return syscall.Signal(rt.base + rt.dir*k), nil
	}
	return 0, message.New(errdefs.ErrInvalidArgument, "Invalid signal: %s", s)
}
