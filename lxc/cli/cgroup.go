package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

func cgroupItem(*pflag.FlagSet) action {
	return func(ctx context.Context, c *call) (int, error) {
		x, err := c.container(ctx)
		if err != nil {
			return 1, err
		}
		if len(c.args) < 1 || len(c.args) > 2 {
			return 1, errors.New("want a file of the control group, and a value to set it\n" +
				"Try lxc-cgroup --help")
		}
		file, err := x.Group().File(c.args[0])
		if err != nil {
			return 1, err
		}
		if len(c.args) == 2 {
			// Without O_CREAT and O_TRUNC, which such a file does not know.
			f, err := os.OpenFile(file, os.O_WRONLY, 0)
			if err != nil {
				return 1, err
			}
			_, err = f.WriteString(c.args[1])
			return 0, errors.Join(err, f.Close())
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			return 1, err
		}
		fmt.Fprintln(c.Out, strings.TrimRight(string(raw), "\n"))
		return 0, nil
	}
}

func device(*pflag.FlagSet) action {
	return func(ctx context.Context, c *call) (int, error) {
		x, err := c.container(ctx)
		if err != nil {
			return 1, err
		}
		if len(c.args) < 2 || len(c.args) > 3 {
			return 1, errors.New("want add or del, and a device\nTry lxc-device --help")
		}
		name, as := c.args[1], c.args[1]
		if len(c.args) == 3 {
			as = c.args[2]
		}
		switch c.args[0] {
		case "add":
			return 0, x.Devices().Add(ctx, name, as)
		case "del":
			return 0, x.Devices().Remove(ctx, name, as)
		}
		return 1, fmt.Errorf("command %q: want add or del", c.args[0])
	}
}
