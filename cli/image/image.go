// Package image has the verbs that work on images: images, pull, push, load, save, import, tag,
// rmi, history.
//
// It promises Docker's flags and columns, results on standard output and progress on standard
// error, and that an archive never goes to a terminal.
//
// Not for: logins (registry), or what is in an image.
//
// Tested by tables, and by the scripts of package cli against a server that plays the engine.
package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"

	"strake/cli/api"
	"strake/cli/client"
	"strake/cli/command"
	"strake/cli/format"
	"strake/cli/progress"
	"strake/cli/registry"
)

// Commands are the verbs of `strake image`, under the names they have there.
func Commands() []command.Command {
	return []command.Command{
		History(), Import(), Inspect(), Load(), List("ls"), Prune(), Pull(), Push(), Remove("rm"),
		Save(), Tag(),
	}
}

func path(name string, more ...string) string {
	return client.Path(append([]string{"images", name}, more...)...)
}

// Pull is `strake pull`.
func Pull() command.Command {
	return command.Command{
		Name: "pull", Path: "image pull", Args: "[OPTIONS] NAME[:TAG|@DIGEST]",
		Short: "Download an image from a registry", Group: command.Common,
		Min: 1, Max: 1, Complete: []command.Kind{command.Images},
		Setup: func(fs *pflag.FlagSet) command.Action {
			all := fs.BoolP("all-tags", "a", false, "Download all tagged images in the repository")
			platform := fs.String(
				"platform", "", "Set platform if server is multi-platform capable",
			)
			quiet := fs.BoolP("quiet", "q", false, "Suppress verbose output")
			return func(ctx context.Context, s *command.Session, args []string) error {
				ref := args[0]
				name, tag := registry.Split(ref)
				if *all && tag != "" {
					return command.Misused(errors.New("tag can't be used with --all-tags/-a"))
				}
				if tag == "" && !*all {
					ref = name + ":latest"
					if !*quiet {
						fmt.Fprintln(s.Err, "Using default tag: latest")
					}
				}
				if err := registry.Pull(ctx, s, ref, *platform, *all, *quiet); err != nil {
					return err
				}
				fmt.Fprintln(s.Out, ref)
				return nil
			}
		},
	}
}

// Push is `strake push`.
func Push() command.Command {
	return command.Command{
		Name: "push", Path: "image push", Args: "[OPTIONS] NAME[:TAG]",
		Short: "Upload an image to a registry", Group: command.Common,
		Min: 1, Max: 1, Complete: []command.Kind{command.Images},
		Setup: func(fs *pflag.FlagSet) command.Action {
			all := fs.BoolP("all-tags", "a", false, "Push all tags of an image to the repository")
			platform := fs.String(
				"platform", "",
				"Push a platform-specific manifest as a single-platform image to the registry",
			)
			quiet := fs.BoolP("quiet", "q", false, "Suppress verbose output")
			return func(ctx context.Context, s *command.Session, args []string) error {
				return registry.Push(ctx, s, args[0], *platform, *all, *quiet)
			}
		},
	}
}

// Load is `strake load`.
func Load() command.Command {
	return command.Command{
		Name: "load", Path: "image load", Args: "[OPTIONS]",
		Short: "Load an image from a tar archive or STDIN",
		Setup: func(fs *pflag.FlagSet) command.Action {
			input := fs.StringP("input", "i", "", "Read from tar archive file, instead of STDIN")
			quiet := fs.BoolP("quiet", "q", false, "Suppress the load output")
			command.CompleteFlag(fs, "input", string(command.Files))
			return func(ctx context.Context, s *command.Session, _ []string) error {
				src := s.In
				if *input != "" && *input != "-" {
					f, err := os.Open(s.Path(*input))
					if err != nil {
						return fmt.Errorf("load: %w", err)
					}
					defer f.Close()
					src = f
				} else if command.IsTerminal(s.In) {
					return command.Misused(
						errors.New("requested load from stdin, but stdin is a terminal: name a " +
							"file with -i, or pipe an archive in"),
					)
				}
				resp, err := s.Do(
					ctx,
					client.Request{
						Method: "POST", Path: "/images/load",
						Query: command.Query("quiet", command.If(*quiet)), Stream: src,
					},
				)
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				opt := registry.Progress(s)
				opt.Quiet = *quiet
				return progress.Show(resp.Body, opt)
			}
		},
	}
}

// Save is `strake save`.
func Save() command.Command {
	return command.Command{
		Name: "save", Path: "image save", Args: "[OPTIONS] IMAGE [IMAGE...]",
		Short: "Save one or more images to a tar archive (streamed to STDOUT by default)",
		Min:   1, Max: -1, Complete: []command.Kind{command.Images},
		Setup: func(fs *pflag.FlagSet) command.Action {
			output := fs.StringP("output", "o", "", "Write to a file, instead of STDOUT")
			command.CompleteFlag(fs, "output", string(command.Files))
			return func(ctx context.Context, s *command.Session, args []string) error {
				if *output == "" && command.IsTerminal(s.Out) {
					return command.Misused(
						errors.New(
							"cowardly refusing to save to a terminal. Use the -o flag or redirect",
						),
					)
				}
				resp, err := s.Do(
					ctx,
					client.Request{
						Method: "GET", Path: "/images/get", Query: url.Values{"names": args},
					},
				)
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				if *output == "" {
					_, err = io.Copy(s.Out, resp.Body)
				} else {
					err = writeWhole(s.Path(*output), resp.Body)
				}
				if err != nil {
					return fmt.Errorf("save: %w", err)
				}
				return nil
			}
		},
	}
}

// writeWhole writes a file that is there completely or not at all. What is no regular file (a pipe,
// a device) is written into.
func writeWhole(name string, src io.Reader) error {
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, src)
		return errors.Join(err, f.Close())
	}
	f, err := os.OpenFile(name+".strake-part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, src)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// Import is `strake import`.
func Import() command.Command {
	return command.Command{
		Name: "import", Path: "image import", Args: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
		Min: 1, Max: 2,
		Short:    "Import the contents from a tarball to create a filesystem image",
		Complete: []command.Kind{command.Files, command.Images},
		Setup: func(fs *pflag.FlagSet) command.Action {
			changes := fs.StringArrayP(
				"change", "c", nil, "Apply Dockerfile instruction to the created image",
			)
			message := fs.StringP("message", "m", "", "Set commit message for imported image")
			platform := fs.String(
				"platform", "", "Set platform if server is multi-platform capable",
			)
			return func(ctx context.Context, s *command.Session, args []string) error {
				r := client.Request{Method: "POST", Path: "/images/create"}
				source := "-"
				switch {
				case args[0] == "-":
					r.Stream = s.In
				case strings.HasPrefix(args[0], "http://") || strings.HasPrefix(
					args[0], "https://",
				):
					source = args[0]
				default:
					f, err := os.Open(s.Path(args[0]))
					if err != nil {
						return fmt.Errorf("import: %w", err)
					}
					defer f.Close()
					r.Stream = f
				}
				var repo, tag string
				if len(args) == 2 {
					repo, tag = registry.Split(args[1])
				}
				r.Query = command.Query(
					"fromSrc", source, "repo", repo, "tag", tag, "message", *message, "platform",
					*platform,
				)
				for _, c := range *changes {
					r.Query.Add("changes", c)
				}
				resp, err := s.Do(ctx, r)
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				opt := registry.Progress(s)
				opt.Status = func(text string) bool {
					if !strings.HasPrefix(text, "sha256:") {
						return false
					}
					fmt.Fprintln(s.Out, text)
					return true
				}
				return progress.Show(resp.Body, opt)
			}
		},
	}
}

// Tag is `strake tag`.
func Tag() command.Command {
	return command.Command{
		Name: "tag", Path: "image tag", Args: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
		Short: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
		Min:   2, Max: 2, Complete: []command.Kind{command.Images},
		Setup: func(*pflag.FlagSet) command.Action {
			return func(ctx context.Context, s *command.Session, args []string) error {
				if strings.Contains(args[1], "@") {
					return command.Misused(
						fmt.Errorf("%q: refusing to create a tag with a digest reference", args[1]),
					)
				}
				repo, tag := registry.Split(args[1])
				return s.Post(
					ctx, path(args[0], "tag"), command.Query("repo", repo, "tag", tag), nil, nil,
				)
			}
		},
	}
}

// Remove is `strake rmi`, under the name given.
func Remove(name string) command.Command {
	c := command.Command{
		Name: name, Path: "image " + name, Args: "[OPTIONS] IMAGE [IMAGE...]",
		Short: "Remove one or more images", Min: 1, Max: -1,
		Complete: []command.Kind{command.Images},
		Setup: func(fs *pflag.FlagSet) command.Action {
			force := fs.BoolP("force", "f", false, "Force removal of the image")
			noPrune := fs.Bool("no-prune", false, "Do not delete untagged parents")
			return func(ctx context.Context, s *command.Session, args []string) error {
				failed := false
				for _, ref := range args {
					var deleted []api.ImageDeleted
					err := s.Delete(
						ctx, path(ref),
						command.Query("force", command.If(*force), "noprune", command.If(*noPrune)),
						&deleted,
					)
					if err != nil {
						failed = failed || !*force || !errdefs.IsNotFound(err)
						s.Tell(err)
						continue
					}
					printDeleted(s, deleted)
				}
				if failed {
					return command.Exit(1)
				}
				return nil
			}
		},
	}
	if name == "rm" {
		c.Aliases = []string{"rmi", "remove"}
	} else {
		c.Path = name
	}
	return c
}

func printDeleted(s *command.Session, list []api.ImageDeleted) {
	for _, d := range list {
		if d.Untagged != "" {
			fmt.Fprintln(s.Out, "Untagged:", d.Untagged)
		}
		if d.Deleted != "" {
			fmt.Fprintln(s.Out, "Deleted:", d.Deleted)
		}
	}
}

// Inspect is `strake image inspect`.
func Inspect() command.Command {
	return command.Command{
		Name: "inspect", Path: "image inspect", Args: "[OPTIONS] IMAGE [IMAGE...]",
		Short: "Display detailed information on one or more images",
		Min:   1, Max: -1, Complete: []command.Kind{command.Images},
		Setup: func(fs *pflag.FlagSet) command.Action {
			text := fs.StringP("format", "f", "", "Format output: 'json' or a Go template")
			return func(ctx context.Context, s *command.Session, args []string) error {
				get := func(name string) (raw json.RawMessage, err error) {
					err = s.Get(ctx, path(name, "json"), nil, &raw)
					return raw, err
				}
				return command.InspectEach(s, *text, args, get)
			}
		},
	}
}

// Prune is `strake image prune`.
func Prune() command.Command {
	return command.Command{
		Name: "prune", Path: "image prune", Args: "[OPTIONS]", Short: "Remove unused images",
		Setup: func(fs *pflag.FlagSet) command.Action {
			all := fs.BoolP("all", "a", false, "Remove all unused images, not just dangling ones")
			force := fs.BoolP("force", "f", false, "Do not prompt for confirmation")
			filters := fs.StringArray(
				"filter", nil, `Provide filter values (e.g. "until=<timestamp>")`,
			)
			return func(ctx context.Context, s *command.Session, _ []string) error {
				given := *filters
				warning := "WARNING! This will remove all dangling images."
				if *all {
					given = append(given, "dangling=false")
					warning = "WARNING! This will remove all images without at least one " +
						"container associated to them."
				}
				filter, err := command.Filters(given)
				if err != nil {
					return err
				}
				if !*force {
					fmt.Fprintln(s.Err, warning)
					if ok, err := s.Confirm("Are you sure you want to continue?"); err != nil ||
						!ok {
						return err
					}
				}
				var p api.Pruned
				if err := s.Post(
					ctx, "/images/prune", command.Query("filters", filter), nil, &p,
				); err != nil {
					return err
				}
				if len(p.ImagesDeleted) > 0 {
					fmt.Fprintln(s.Out, "Deleted Images:")
					for _, d := range p.ImagesDeleted {
						if d.Untagged != "" {
							fmt.Fprintln(s.Out, "untagged:", d.Untagged)
						} else {
							fmt.Fprintln(s.Out, "deleted:", d.Deleted)
						}
					}
					fmt.Fprintln(s.Out)
				}
				fmt.Fprintln(s.Out, "Total reclaimed space:", format.Size(p.SpaceReclaimed, 4))
				return nil
			}
		},
	}
}
