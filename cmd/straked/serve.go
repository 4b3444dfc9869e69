package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// defaultGroup may use the sockets where the host has such a group and none was named.
const defaultGroup = "strake"

// serve runs the engine until ctx ends.
func serve(ctx context.Context, s *settings, log *slog.Logger) (err error) {
	lock, err := lockInstance(s)
	if err != nil {
		return err
	}
	defer lock.Close()
	if s.Pidfile != "" {
		if err := os.WriteFile(
			s.Pidfile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644,
		); err != nil {
			return fmt.Errorf("pidfile: %w", err)
		}
		defer os.Remove(s.Pidfile)
	}
	listeners, err := listen(s)
	defer func() {
		for _, l := range listeners {
			l.Close()
		}
	}()
	if err != nil {
		return err
	}
	sys, err := open(ctx, s, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sys.close()) }()
	services, err := sys.services(ctx, s, log, listeners)
	if err != nil {
		return err
	}
	return serveAll(ctx, services, func() error {
		log.Info("listening", "hosts", s.Hosts, "data-root", s.DataRoot)
		return ready(s.ReadyFD)
	})
}

// lockInstance makes sure that one process serves an exec root.
func lockInstance(s *settings) (*os.File, error) {
	if err := os.MkdirAll(s.ExecRoot, 0o711); err != nil {
		return nil, err
	}
	path := filepath.Join(s.ExecRoot, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf(
				"another straked serves %s; give this one an --exec-root and a --data-root of its own",
				s.ExecRoot,
			)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// listen opens the sockets. The instance's lock is held, so a socket in the way belongs to no engine.
func listen(s *settings) ([]net.Listener, error) {
	gid, err := socketGroup(s.Group)
	if err != nil {
		return nil, err
	}
	var out []net.Listener
	for _, h := range s.Hosts {
		if strings.HasPrefix(h, "fd://") {
			l, err := activated()
			if err != nil {
				return out, err
			}
			out = append(out, l...)
			continue
		}
		path := strings.TrimPrefix(h, "unix://")
		if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
			return out, err
		}
		if err := removeSocket(path); err != nil {
			return out, err
		}
		// It is made without permissions, so that no client connects before the owner is set.
		old := unix.Umask(0o777)
		l, err := net.Listen("unix", path)
		unix.Umask(old)
		if err != nil {
			return out, fmt.Errorf("listen on %s: %w", h, err)
		}
		out = append(out, l)
		if err := errors.Join(os.Chown(path, 0, gid), os.Chmod(path, 0o660)); err != nil {
			return out, fmt.Errorf("listen on %s: %w", h, err)
		}
	}
	return out, nil
}

// removeSocket removes a socket that a killed process left, unless a process listens on it.
func removeSocket(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("listen on unix://%s: there is something else than a socket", path)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return fmt.Errorf("listen on unix://%s: another process listens there", path)
	}
	return os.Remove(path)
}

// socketGroup is the group that may use the sockets; 0 if none but root may.
func socketGroup(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if name == "" {
		if g, err = user.LookupGroup(defaultGroup); err != nil {
			return 0, nil
		}
	}
	if err != nil {
		if n, nerr := strconv.Atoi(name); nerr == nil && n >= 0 {
			return n, nil
		}
		return 0, fmt.Errorf("--group %q: %w", name, err)
	}
	return strconv.Atoi(g.Gid)
}

// activated takes the sockets of systemd (sd_listen_fds(3)).
func activated() ([]net.Listener, error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, errors.New(
			"--host fd://: no sockets were passed (LISTEN_PID is not this process)",
		)
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 1 {
		return nil, fmt.Errorf("--host fd://: LISTEN_FDS is %q", os.Getenv("LISTEN_FDS"))
	}
	var out []net.Listener
	for fd := 3; fd < 3+n; fd++ {
		f := os.NewFile(uintptr(fd), "LISTEN_FD_"+strconv.Itoa(fd))
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return out, fmt.Errorf("--host fd://: descriptor %d: %w", fd, err)
		}
		out = append(out, l)
	}
	return out, nil
}

// ready tells the process that started straked, and systemd (sd_notify(3)), that it listens.
func ready(fd int) error {
	if fd >= 0 {
		f := os.NewFile(uintptr(fd), "ready")
		_, err := f.Write([]byte{'\n'})
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("--ready-fd %d: %w", fd, err)
		}
	}
	if path := os.Getenv("NOTIFY_SOCKET"); path != "" {
		c, err := net.Dial("unixgram", path)
		if err != nil {
			return fmt.Errorf("notify systemd: %w", err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("READY=1")); err != nil {
			return fmt.Errorf("notify systemd: %w", err)
		}
	}
	return nil
}
