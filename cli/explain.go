package cli

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"

	"strake/cli/api"
	"strake/cli/command"
	"strake/internal/suggest"
)

func didYouMean(word string, candidates []string) string {
	if s := suggest.Nearest(word, candidates); s != "" {
		return "; did you mean " + s + "?"
	}
	return ""
}

// flagError adds the flag that may have been meant.
func flagError(err error, fs *pflag.FlagSet) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return err
	}
	var names []string
	fs.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	name := unknown.GetSpecifiedName()
	if len(name) < 2 {
		return err
	}
	if s := suggest.Nearest(name, names); s != "" {
		return errors.New(err.Error() + "; did you mean --" + s + "?")
	}
	return err
}

// missing are the sentences in which engines, moby's and ours, say that an object does not exist.
// The name is between prefix and suffix.
var missing = [...]struct {
	prefix, suffix string
	kind           command.Kind
}{
	{"No such container: ", "", command.Containers},
	{"No such image: ", "", command.Images},
	{"No such object: ", "", command.Any},
	{"network ", " not found", command.Networks},
	{"get ", ": no such volume", command.Volumes},
}

// suggestTime bounds the request for names of the same kind: the error must not wait for a hint.
const suggestTime = 2 * time.Second

// explain returns the message for an error: its text, and a similar name if a name does not exist.
func explain(ctx context.Context, s *command.Session, err error) string {
	text := strings.TrimSpace(err.Error())
	if !errdefs.IsNotFound(err) || ctx.Err() != nil {
		return text
	}
	for _, m := range missing {
		rest, ok := strings.CutPrefix(text, m.prefix)
		if !ok {
			continue
		}
		name, ok := strings.CutSuffix(rest, m.suffix)
		if !ok || name == "" || strings.Contains(name, " ") {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, suggestTime)
		defer cancel()
		if m.kind == command.Images {
			name = strings.TrimSuffix(name, ":latest")
		}
		return text + didYouMean(name, namesOf(ctx, s, m.kind))
	}
	return text
}

// namesOf asks the engine for the names of all objects of a kind. It ignores errors: what cannot be
// listed is not suggested.
func namesOf(ctx context.Context, s *command.Session, kind command.Kind) []string {
	var names []string
	containers := func(filters string) {
		var list []api.Container
		if s.Get(
			ctx, "/containers/json", command.Query("all", "1", "filters", filters), &list,
		) != nil {
			return
		}
		for _, c := range list {
			for _, n := range c.Names {
				if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") {
					names = append(names, n)
				}
			}
		}
	}
	all := kind == command.Any
	switch kind {
	case command.Running:
		containers(`{"status":{"running":true}}`)
	case command.Stopped:
		containers(`{"status":{"created":true,"exited":true}}`)
	}
	if all || kind == command.Containers {
		containers("")
	}
	if all || kind == command.Images {
		var list []api.Image
		s.Get(ctx, "/images/json", nil, &list)
		for _, m := range list {
			for _, tag := range m.RepoTags {
				if strings.HasPrefix(tag, "<none>") {
					continue
				}
				names = append(names, tag)
				if short, ok := strings.CutSuffix(tag, ":latest"); ok {
					names = append(names, short)
				}
			}
		}
	}
	if all || kind == command.Networks {
		var list []api.Network
		s.Get(ctx, "/networks", nil, &list)
		for _, n := range list {
			names = append(names, n.Name)
		}
	}
	if all || kind == command.Volumes {
		var v api.Volumes
		s.Get(ctx, "/volumes", nil, &v)
		for _, v := range v.Volumes {
			names = append(names, v.Name)
		}
	}
	return names
}
