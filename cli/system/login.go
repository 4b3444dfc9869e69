package system

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"strake/cli/api"
	"strake/cli/command"
	"strake/cli/registry"
	"strake/cli/terminal"
)

// Login is `strake login`. The engine tries the login before it is kept.
func Login() command.Command {
	return command.Command{
		Name: "login", Path: "login", Args: "[OPTIONS] [SERVER]",
		Short: "Authenticate to a registry", Group: command.Common, Min: 0, Max: 1,
		Setup: func(fs *pflag.FlagSet) command.Action {
			user := fs.StringP("username", "u", "", "Username")
			password := fs.StringP("password", "p", "", "Password or Personal Access Token (PAT)")
			stdin := fs.Bool(
				"password-stdin", false,
				"Take the Password or Personal Access Token (PAT) from stdin",
			)
			return func(ctx context.Context, s *command.Session, args []string) error {
				switch {
				case *stdin && fs.Changed("password"):
					return command.Misused(
						errors.New("--password and --password-stdin are mutually exclusive"),
					)
				case *stdin && *user == "":
					return command.Misused(
						errors.New("must provide --username with --password-stdin"),
					)
				case fs.Changed("password"):
					s.Warn("Using --password via the CLI is insecure. Use --password-stdin.")
				}
				server := ""
				if len(args) == 1 {
					server = registry.Hostname(args[0])
				}
				address, err := registry.Address(ctx, s, server)
				if err != nil {
					return err
				}
				c, err := registry.Load(s.ConfigDir)
				if err != nil {
					return err
				}
				c.Env = s.Environ
				auth := api.AuthConfig{ServerAddress: address, Username: *user, Password: *password}
				if *stdin {
					raw, err := io.ReadAll(io.LimitReader(s.In, 64<<10))
					if err != nil {
						return fmt.Errorf("read the password: %w", err)
					}
					auth.Password = strings.TrimRight(string(raw), "\r\n")
				} else if err := ask(s, &auth); err != nil {
					return err
				}
				if auth.Username == "" || auth.Password == "" {
					return errors.New("username and password are required")
				}
				var status api.AuthStatus
				if err := s.Post(ctx, "/auth", nil, auth, &status); err != nil {
					return err
				}
				auth.IdentityToken = status.IdentityToken
				if err := c.Put(ctx, auth); err != nil {
					return err
				}
				if status.Status == "" {
					status.Status = "Login Succeeded"
				}
				fmt.Fprintln(s.Out, status.Status)
				return nil
			}
		},
	}
}

// ask reads the missing user name and password from the terminal. It fails if In is no terminal.
func ask(s *command.Session, auth *api.AuthConfig) error {
	if auth.Username != "" && auth.Password != "" {
		return nil
	}
	fd, ok := terminal.FD(s.In)
	if !ok {
		return errors.New(
			"cannot ask for a login without a terminal: use --username and --password-stdin",
		)
	}
	if auth.Username == "" {
		fmt.Fprint(s.Err, "Username: ")
		if _, err := fmt.Fscanln(s.In, &auth.Username); err != nil {
			return errors.New("username is required")
		}
	}
	if auth.Password == "" {
		fmt.Fprint(s.Err, "Password: ")
		raw, err := term.ReadPassword(fd)
		fmt.Fprintln(s.Err)
		if err != nil {
			return fmt.Errorf("read the password: %w", err)
		}
		auth.Password = string(raw)
	}
	return nil
}

// Logout is `strake logout`.
func Logout() command.Command {
	return command.Command{
		Name: "logout", Path: "logout", Args: "[SERVER]", Short: "Log out from a registry",
		Group: command.Common, Min: 0, Max: 1,
		Setup: func(*pflag.FlagSet) command.Action {
			return func(ctx context.Context, s *command.Session, args []string) error {
				var address string
				var err error
				if len(args) == 1 {
					address = registry.Hostname(args[0])
				}
				if address, err = registry.Address(ctx, s, address); err != nil {
					return err
				}
				c, err := registry.Load(s.ConfigDir)
				if err != nil {
					return err
				}
				c.Env = s.Environ
				found, err := c.Remove(ctx, address)
				if err != nil {
					return err
				}
				if !found {
					fmt.Fprintln(s.Out, "Not logged in to", address)
					return nil
				}
				fmt.Fprintln(s.Out, "Removing login credentials for", address)
				return nil
			}
		},
	}
}
