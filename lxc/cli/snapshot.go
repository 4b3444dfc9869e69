package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"strake/lxc"
)

func snapshot(f *pflag.FlagSet) action {
	list := f.BoolP("list", "L", false, "list all snapshots")
	restore := f.StringP("restore", "r", "", "restore snapshot NAME, such as snap0")
	newName := f.StringP("newname", "N", "", "with -r: make another container of it")
	destroy := f.StringP("destroy", "d", "", "destroy snapshot NAME; ALL: all snapshots")
	comment := f.StringP("comment", "c", "", "keep the file FILE as a comment")
	show := f.BoolP("showcomments", "C", false, "with -L: show comments")
	return func(ctx context.Context, c *call) (int, error) {
		x, err := c.container(ctx)
		if err != nil {
			return 1, err
		}
		chosen := 0
		for _, is := range []bool{*list, *restore != "", *destroy != ""} {
			if is {
				chosen++
			}
		}
		switch {
		case chosen > 1:
			return 1, errors.New("want one of -L, -r and -d")
		case *list:
			return 0, c.listSnapshots(x, *show)
		case *destroy != "":
			return 0, x.Snapshots().Destroy(ctx, *destroy)
		case *restore != "":
			if *newName == "" && len(c.args) == 1 {
				*newName = c.args[0]
			} else if len(c.args) > 0 {
				return 1, errors.New("too many arguments")
			}
			var to *lxc.Container
			if *newName != "" {
				if to, err = c.path.Container(*newName); err != nil {
					return 1, err
				}
			}
			return 0, x.Snapshots().Restore(ctx, *restore, to)
		}
		var text []byte
		if *comment != "" {
			if text, err = os.ReadFile(*comment); err != nil {
				return 1, fmt.Errorf("comment: %w", err)
			}
		}
		_, err = x.Snapshots().Make(ctx, text)
		return 0, err
	}
}

func (c *call) listSnapshots(x *lxc.Container, comments bool) error {
	list, err := x.Snapshots().List()
	if err != nil {
		return err
	}
	if len(list) == 0 {
		fmt.Fprintln(c.Out, "No snapshots")
	}
	for _, s := range list {
		fmt.Fprintf(c.Out, "%s (%s) %s\n", s.Name, s.Dir, s.Time)
		if comments {
			fmt.Fprint(c.Out, s.Comment)
		}
	}
	return nil
}
