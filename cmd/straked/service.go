package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"time"

	"strake/api/docker"
	"strake/image/base"
	"strake/internal/early"
)

// service is a server of straked: one front end, with the sockets that it answers on.
type service struct {
	name      string
	listeners []net.Listener
	// serve answers on one listener until close; it is called once for each.
	serve func(net.Listener) error
	// close ends the service: requests under way have until ctx ends.
	close func(ctx context.Context) error
}

// services lists what an instance serves. The listeners of the Docker API are given.
func (sys *system) services(
	ctx context.Context, s *settings, log *slog.Logger, listeners []net.Listener,
) ([]service, error) {
	api, err := sys.dockerService(ctx, s, log, listeners)
	if err != nil {
		return nil, err
	}
	list := []service{api}
	if s.services != nil {
		more, err := s.services(sys, s)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	return list, nil
}

// dockerService is the Docker Engine API.
func (sys *system) dockerService(
	ctx context.Context, s *settings, log *slog.Logger, listeners []net.Listener,
) (service, error) {
	name, err := os.Hostname()
	if err != nil {
		return service{}, err
	}
	// Requests end with the process, not with the first signal: what is under way may finish.
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	handler := docker.Handler(docker.Backend{
		Engine: sys.engine, Images: sys.images, Networks: networks{sys.network},
		Volumes: sys.engine.Volumes(), Log: log, Version: version, GitCommit: commit, Name: name,
		Root: s.DataRoot, LogDriver: s.LogDriver, Insecure: s.InsecureRegistries,
		Builtin: sys.builtin(s.DataRoot, log),
	})
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			early.Tend()
			handler.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: 30 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return service{
		name: "docker", listeners: listeners, serve: server.Serve,
		close: func(ctx context.Context) error {
			defer cancel()
			if err := server.Shutdown(ctx); err != nil {
				// Followers of logs and events would stay for ever; they are cut off.
				cancel()
				return server.Close()
			}
			return nil
		},
	}, nil
}

// serveAll runs services until ctx ends or one of them fails, and then closes all of them. listening
// is called when all of them answer.
func serveAll(ctx context.Context, list []service, listening func() error) error {
	n := 0
	for _, s := range list {
		n += len(s.listeners)
	}
	failed := make(chan error, n)
	for _, s := range list {
		for _, l := range s.listeners {
			go func() { failed <- fmt.Errorf("serve %s: %w", s.name, s.serve(l)) }()
		}
	}
	err := listening()
	if err == nil {
		select {
		case <-ctx.Done():
		case err = <-failed:
		}
	}
	patience, stop := context.WithTimeout(context.WithoutCancel(ctx), shutdownPatience)
	defer stop()
	errs := []error{err}
	for _, s := range list {
		if cerr := s.close(patience); cerr != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", s.name, cerr))
		}
	}
	return errors.Join(errs...)
}

// builtin is the image strake/base for the API, which loads it again after it was removed.
func (sys *system) builtin(dataRoot string, log *slog.Logger) docker.Builtin {
	if _, err := base.Mark(runtime.GOARCH); err != nil {
		return docker.Builtin{}
	}
	var mu sync.Mutex // loadBase writes a file
	return docker.Builtin{Ref: base.Ref, Load: func(ctx context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		return loadBase(ctx, dataRoot, sys.images, log)
	}}
}
