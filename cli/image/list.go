package image

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"strake/cli/api"
	"strake/cli/command"
	"strake/cli/format"
	"strake/cli/registry"
)

// row is a line of `images`: docker/cli:docs/reference/commandline/image_ls.md, "Format the
// output".
type row struct {
	Containers   string `head:"CONTAINERS"`
	CreatedAt    string `head:"CREATED AT"`
	CreatedSince string `head:"CREATED"`
	Digest       string `head:"DIGEST"`
	ID           string `head:"IMAGE ID"`
	Repository   string `head:"REPOSITORY"`
	SharedSize   string `head:"SHARED SIZE"`
	Size         string `head:"SIZE"`
	Tag          string `head:"TAG"`
	UniqueSize   string `head:"UNIQUE SIZE"`
	VirtualSize  string `head:"SIZE"`
}

// List is `strake images`, under the name given.
func List(name string) command.Command {
	c := command.Command{
		Name: name, Path: "image " + name, Args: "[OPTIONS] [REPOSITORY[:TAG]]",
		Short: "List images", Min: 0, Max: 1,
		Complete: []command.Kind{command.Images},
		Setup: func(fs *pflag.FlagSet) command.Action {
			l := &listFlags{
				Listing: command.ListingFlags(
					fs, "Only show image IDs", "before", "dangling", "label", "reference", "since",
					"until",
				),
			}
			fs.BoolVarP(
				&l.all, "all", "a", false, "Show all images (default hides intermediate images)",
			)
			fs.BoolVar(&l.digests, "digests", false, "Show digests")
			return l.run
		},
	}
	if name == "ls" {
		c.Aliases = []string{"list"}
	} else {
		c.Path, c.Group = name, command.Common
	}
	return c
}

type listFlags struct {
	*command.Listing
	all, digests bool
}

func (l *listFlags) run(ctx context.Context, s *command.Session, args []string) error {
	if len(args) == 1 {
		l.AddFilter("reference=" + args[0])
	}
	filters, err := l.Filters()
	if err != nil {
		return err
	}
	var list []api.Image
	if err := s.Get(
		ctx, "/images/json", command.Query("all", command.If(l.all), "filters", filters), &list,
	); err != nil {
		return err
	}
	var rows []row
	digests := l.digests || strings.Contains(l.Format, ".Digest")
	for i := range list {
		for _, r := range names(&list[i], digests) {
			rows = append(rows, l.row(&list[i], r, s.Now()))
		}
	}
	columns := "Repository Tag ID CreatedSince Size"
	if l.digests {
		columns = "Repository Tag Digest ID CreatedSince Size"
	}
	return command.Show(s, l.Listing, "ID", columns, rows)
}

const none = "<none>"

type name struct{ repository, tag, digest string }

// names are the lines of one image: one for each tag, or for each tag and digest of its repository
// when digests are shown.
func names(m *api.Image, digests bool) []name {
	digestsOf := map[string][]string{}
	var order []string
	for _, ref := range m.RepoDigests {
		repo, d := registry.Split(ref)
		if repo == none {
			continue
		}
		if digestsOf[repo] == nil {
			order = append(order, repo)
		}
		digestsOf[repo] = append(digestsOf[repo], d)
	}
	var out []name
	tagged := map[string]bool{}
	for _, ref := range m.RepoTags {
		repo, tag := registry.Split(ref)
		if repo == none {
			continue
		}
		tagged[repo] = true
		if !digests || len(digestsOf[repo]) == 0 {
			out = append(out, name{repo, tag, none})
			continue
		}
		for _, d := range digestsOf[repo] {
			out = append(out, name{repo, tag, d})
		}
	}
	for _, repo := range order {
		if tagged[repo] {
			continue
		}
		if !digests {
			out = append(out, name{repo, none, none})
			continue
		}
		for _, d := range digestsOf[repo] {
			out = append(out, name{repo, none, d})
		}
	}
	if len(out) == 0 {
		out = []name{{none, none, none}}
	}
	return out
}

func (l *listFlags) row(m *api.Image, n name, now time.Time) row {
	r := row{
		ID: l.ID(m.ID), Repository: n.repository, Tag: n.tag, Digest: n.digest,
		Size: format.Size(m.Size, 3), VirtualSize: format.Size(m.Size, 3),
		CreatedAt: time.Unix(m.Created, 0).String(), CreatedSince: since(m.Created, now),
		Containers: "N/A", SharedSize: "N/A", UniqueSize: "N/A",
	}
	if m.Containers >= 0 {
		r.Containers = strconv.FormatInt(m.Containers, 10)
	}
	if m.SharedSize > 0 {
		r.SharedSize, r.UniqueSize = format.Size(m.SharedSize, 3), format.Size(
			m.Size-m.SharedSize, 3,
		)
	}
	return r
}

// since says how old something is. Images built reproducibly carry no date, which is 1970 or
// before.
func since(created int64, now time.Time) string {
	if created <= 0 {
		return "N/A"
	}
	return format.Duration(now.Sub(time.Unix(created, 0))) + " ago"
}

// layerRow is a line of `history`.
type layerRow struct {
	Comment      string `head:"COMMENT"`
	CreatedAt    string `head:"CREATED AT"`
	CreatedBy    string `head:"CREATED BY"`
	CreatedSince string `head:"CREATED"`
	ID           string `head:"IMAGE"`
	Size         string `head:"SIZE"`
}

// History is `strake history`.
func History() command.Command {
	return command.Command{
		Name: "history", Path: "image history", Args: "[OPTIONS] IMAGE",
		Short: "Show the history of an image", Min: 1, Max: 1,
		Complete: []command.Kind{command.Images},
		Setup: func(fs *pflag.FlagSet) command.Action {
			l := command.ListingFlags(fs, "Only show image IDs")
			human := fs.BoolP("human", "H", true, "Print sizes and dates in human readable format")
			return func(ctx context.Context, s *command.Session, args []string) error {
				var layers []api.Layer
				if err := s.Get(ctx, path(args[0], "history"), nil, &layers); err != nil {
					return err
				}
				rows := make([]layerRow, 0, len(layers))
				for _, y := range layers {
					at := time.Unix(y.Created, 0).Format(time.RFC3339)
					r := layerRow{
						Comment: y.Comment, CreatedAt: at,
						CreatedBy: strings.ReplaceAll(y.CreatedBy, "\t", " "), ID: l.ID(y.ID),
					}
					if r.CreatedSince, r.Size = since(
						y.Created, s.Now(),
					), format.Size(y.Size, 3); !*human {
						r.CreatedSince, r.Size = at, strconv.FormatInt(y.Size, 10)
					}
					if !l.NoTrunc {
						r.CreatedBy = format.Ellipsis(r.CreatedBy, 45)
					}
					rows = append(rows, r)
				}
				return command.Show(s, l, "ID", "ID CreatedSince CreatedBy Size Comment", rows)
			}
		},
	}
}
