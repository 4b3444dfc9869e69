package system

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"strake/cli/api"
	"strake/cli/client"
	"strake/cli/command"
	"strake/cli/format"
)

// Events is `strake events`.
func Events() command.Command {
	return command.Command{
		Name: "events", Path: "system events", Args: "[OPTIONS]",
		Short: "Get real time events from the engine",
		Setup: func(fs *pflag.FlagSet) command.Action {
			since := fs.String("since", "", "Show all events created since timestamp")
			until := fs.String("until", "", "Stream events until this timestamp")
			text := fs.String(
				"format", "", "Format output: 'json' (one object a line) or a Go template",
			)
			output := fs.StringP(
				"output", "o", "", "Output form: 'json' (one array, written when the stream ends)",
			)
			filters := fs.StringArrayP(
				"filter", "f", nil, "Filter output based on conditions provided",
			)
			command.CompleteFlag(
				fs, "filter", "container=", "event=", "image=", "label=", "network=", "type=",
				"volume=",
			)
			return func(ctx context.Context, s *command.Session, _ []string) error {
				from, err := command.Timestamp(*since, s.Now())
				if err != nil {
					return command.Misused(fmt.Errorf("--since: %w", err))
				}
				to, err := command.Timestamp(*until, s.Now())
				if err != nil {
					return command.Misused(fmt.Errorf("--until: %w", err))
				}
				filter, err := command.Filters(*filters)
				if err != nil {
					return err
				}
				show, err := eventWriter(s, *text, *output)
				if err != nil {
					return err
				}
				resp, err := s.Do(
					ctx,
					client.Request{
						Method: "GET", Path: "/events",
						Query: command.Query("since", from, "until", to, "filters", filter),
					},
				)
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				d := json.NewDecoder(resp.Body)
				for {
					var raw json.RawMessage
					err := d.Decode(&raw)
					if errors.Is(err, io.EOF) {
						return show(nil)
					}
					if err != nil {
						return fmt.Errorf("read events: %w", err)
					}
					if err := show(raw); err != nil {
						return err
					}
				}
			}
		},
	}
}

// eventWriter returns what is done with each event, and with nil at the end of the stream.
func eventWriter(s *command.Session, text, output string) (func(json.RawMessage) error, error) {
	switch {
	case output != "" && output != "json":
		return nil, command.Misused(fmt.Errorf("--output %q: want json", output))
	case output == "json" && text != "":
		return nil, command.Misused(errors.New("conflicting options: -o json and --format"))
	case output == "json":
		all := []json.RawMessage{}
		return func(raw json.RawMessage) error {
			if raw != nil {
				all = append(all, raw)
				return nil
			}
			return json.NewEncoder(s.Out).Encode(all)
		}, nil
	case text != "":
		if _, err := format.Parse(text); err != nil {
			return nil, command.Misused(err)
		}
		return func(raw json.RawMessage) error {
			if raw == nil {
				return nil
			}
			return format.Object(s.Out, text, raw)
		}, nil
	}
	return func(raw json.RawMessage) error {
		if raw == nil {
			return nil
		}
		var e api.Event
		if err := json.Unmarshal(raw, &e); err != nil {
			return fmt.Errorf("decode an event: %w", err)
		}
		_, err := io.WriteString(s.Out, eventLine(&e))
		return err
	}, nil
}

// eventLine is what Docker's client prints for an event:
// 2006-01-02T15:04:05.000000000Z07:00 container start ID (image=…, name=…).
func eventLine(e *api.Event) string {
	at := time.Unix(e.Time, 0)
	if e.TimeNano != 0 {
		at = time.Unix(0, e.TimeNano)
	}
	line := fmt.Sprintf(
		"%s %s %s %s", at.Format("2006-01-02T15:04:05.000000000Z07:00"), e.Type, e.Action,
		e.Actor.ID,
	)
	if len(e.Actor.Attributes) > 0 {
		var pairs []string
		for k, v := range e.Actor.Attributes {
			pairs = append(pairs, k+"="+v)
		}
		sort.Strings(pairs)
		line += " (" + strings.Join(pairs, ", ") + ")"
	}
	return line + "\n"
}
