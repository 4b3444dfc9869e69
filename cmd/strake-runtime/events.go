package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// event is one line of events, in the form that runc prints.
type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

func (a *app) events(ctx context.Context, fs *flag.FlagSet, args []string) (int, error) {
	interval := fs.Duration("interval", 5*time.Second, "`time` between two readings")
	once := fs.Bool("stats", false, "print one reading and end")
	id, err := oneID(fs, args)
	if err != nil {
		return 1, err
	}
	if *interval <= 0 {
		return 1, errors.New("--interval: want more than 0")
	}
	c, err := a.rt.Load(id)
	if err != nil {
		return 1, err
	}
	if status, err := c.Status(); err != nil {
		return 1, err
	} else if status == specs.StateStopped {
		return 1, errors.New("container " + id + " is not running")
	}
	enc := json.NewEncoder(a.out)
	tick := time.NewTicker(*interval)
	defer tick.Stop()
	ooms := -1
	for {
		s, err := c.Stats()
		if errors.Is(err, errdefs.ErrNotFound) {
			return 0, nil // it has been deleted meanwhile
		}
		if err != nil {
			return 1, err
		}
		n, err := c.OOMCount()
		if err == nil && ooms >= 0 && n > ooms {
			if err := enc.Encode(event{Type: "oom", ID: id}); err != nil {
				return 1, err
			}
		}
		ooms = n
		if err := enc.Encode(event{Type: "stats", ID: id, Data: statsOf(s)}); err != nil || *once {
			return 0, err
		}
		select {
		case <-ctx.Done():
			return 0, nil
		case <-tick.C:
		}
		if status, err := c.Status(); err != nil || status == specs.StateStopped {
			return 0, err
		}
	}
}

func isNotFound(err error) bool { return errors.Is(err, errdefs.ErrNotFound) }
