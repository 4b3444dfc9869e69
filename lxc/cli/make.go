package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"strake/lxc"
	"strake/lxc/config"
	"strake/lxc/template"
)

func create(f *pflag.FlagSet) action {
	var o lxc.CreateOptions
	f.StringVarP(&o.ConfigFile, "config", "f", "", "begin the configuration with that of FILE")
	f.StringVarP(
		&o.Template, "template", "t", "", "fill it by a template: none, the path of a program, or "+
			strings.Join(template.Names(), ", "),
	)
	f.StringVarP(&o.Backing, "bdev", "B", "", "how the root file system is kept: dir or best")
	f.StringVar(&o.RootDir, "dir", "", "put the root file system into DIR")
	return func(ctx context.Context, c *call) (int, error) {
		x, err := c.path.Container(c.name)
		if err != nil {
			return 1, err
		}
		if o.Template == "" {
			return 1, errors.New("a template is required: -t none makes a container without one")
		}
		if o.ConfigFile == "" {
			if _, err := os.Stat(c.system.DefaultConfig); err == nil {
				o.ConfigFile = c.system.DefaultConfig
			}
		}
		o.Args = c.args
		o.Output = os.Stderr
		if c.quiet {
			o.Output = nil
		}
		return 0, x.Create(ctx, &o)
	}
}

func showConfig(f *pflag.FlagSet) action {
	all := f.BoolP("list", "L", false, "list all items")
	return func(_ context.Context, c *call) (int, error) {
		if *all {
			for _, key := range config.SystemKeys() {
				fmt.Fprintln(c.Out, key)
			}
			return 0, nil
		}
		if len(c.args) != 1 {
			return 1, errors.New("want one item\nTry lxc-config --help")
		}
		value, err := c.system.Get(c.args[0])
		if err != nil {
			return 1, err
		}
		fmt.Fprintln(c.Out, value)
		return 0, nil
	}
}

func updateConfig(f *pflag.FlagSet) action {
	file := f.StringP("config", "c", "", "the configuration to rewrite")
	return func(_ context.Context, c *call) (int, error) {
		name := *file
		if name == "" && len(c.args) == 1 {
			name = c.args[0]
		}
		if name == "" {
			return 1, errors.New("no configuration is named\nTry lxc-update-config --help")
		}
		return 0, rewrite(name)
	}
}

// rewrite gives a configuration file today's spellings. What it said before is kept beside it.
func rewrite(name string) error {
	old, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var b strings.Builder
	if err := config.Update(strings.NewReader(string(old)), &b); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	st, err := os.Stat(name)
	if err != nil {
		return err
	}
	if err := os.WriteFile(name+".backup", old, st.Mode().Perm()); err != nil {
		return err
	}
	if err := os.WriteFile(name+".new", []byte(b.String()), st.Mode().Perm()); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}
