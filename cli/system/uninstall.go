package system

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"strake/cli/command"
	"strake/cli/launch"
	"strake/internal/early"
)

// Manifest is where `make install` lists what it installed, below its PREFIX: absolute paths of
// files and of directories that belong to strake alone, one on a line; empty lines and those that
// begin with # mean nothing. The manifest need not list itself.
const Manifest = "share/strake/install-manifest"

// Uninstall is `strake system uninstall`, the mirror image of `make install`: it ends the engine
// with everything it runs, removes the engine's directories, then the files that were installed,
// and itself last. Nothing that is not listed is touched.
func Uninstall() command.Command {
	return command.Command{
		Name: "uninstall", Path: "system uninstall", Args: "[OPTIONS]",
		Short: "Remove strake and everything it put on this host",
		Setup: func(flags *pflag.FlagSet) command.Action {
			u := uninstall{}
			flags.BoolVarP(&u.yes, "yes", "y", false, "Do not ask")
			flags.BoolVar(
				&u.keep, "keep-data", false,
				"Leave images, containers' files and volumes where they are",
			)
			flags.StringVar(
				&u.prefix, "prefix", "",
				"Where strake was installed (default: where this program is)",
			)
			flags.StringVar(
				&u.dataRoot, "data-root", "/var/lib/strake",
				"The engine's directory for what survives a reboot",
			)
			flags.StringVar(
				&u.execRoot, "exec-root", "/run/strake", "The engine's directory for what does not",
			)
			flags.BoolVar(&u.dry, "dry-run", false, "Only show what would be removed")
			command.CompleteFlag(flags, "prefix", string(command.Dirs))
			return u.run
		},
	}
}

type uninstall struct {
	yes, keep, dry             bool
	prefix, dataRoot, execRoot string
}

func (u *uninstall) run(ctx context.Context, s *command.Session, _ []string) error {
	if u.prefix == "" {
		own := s.Executable
		if real, err := filepath.EvalSymlinks(own); err == nil {
			own = real
		}
		u.prefix = filepath.Dir(filepath.Dir(own))
	}
	manifest := filepath.Join(u.prefix, Manifest)
	files, err := readManifest(manifest)
	if err != nil {
		return err
	}
	for flag, dir := range map[string]string{"data-root": u.dataRoot, "exec-root": u.execRoot} {
		if !filepath.IsAbs(dir) || strings.Count(filepath.Clean(dir), "/") < 2 {
			return command.Misused(
				fmt.Errorf(
					"--%s %q: want an absolute path that is no directory of the system itself",
					flag, dir,
				),
			)
		}
	}
	roots := []string{u.execRoot}
	if !u.keep {
		roots = append(roots, u.dataRoot)
	}
	fmt.Fprintln(s.Err, "This will end all of strake's containers and remove:")
	for _, name := range slices.Concat(roots, files, []string{manifest}) {
		if _, err := os.Lstat(name); err == nil {
			fmt.Fprintln(s.Err, "  "+name)
		}
	}
	if u.dry {
		return nil
	}
	if s.UID != 0 {
		return fmt.Errorf(
			"uninstalling takes root's privileges: run sudo %s system uninstall: %w", s.Executable,
			fs.ErrPermission,
		)
	}
	if !u.yes {
		if ok, err := s.Confirm("Are you sure you want to continue?"); err != nil || !ok {
			return err
		}
	}
	if err := u.teardown(ctx, s); err != nil {
		return err
	}
	if err := teardownLXC(ctx, s); err != nil {
		return err
	}
	for _, dir := range roots {
		if err := removeTree(dir); err != nil {
			return err
		}
	}
	return removeFiles(files, manifest, s.Executable)
}

// teardown lets the engine end and unmount everything. It has to be there: removing files below
// mounts would remove what is mounted.
func (u *uninstall) teardown(ctx context.Context, s *command.Session) error {
	engine, err := launch.Find("straked", s.Executable, s.Getenv("PATH"))
	if err != nil {
		return fmt.Errorf("end the engine: %w", err)
	}
	defer early.Lock()()
	cmd := exec.CommandContext(
		ctx, engine, "--teardown", "--data-root", u.dataRoot, "--exec-root", u.execRoot,
	)
	cmd.Env, cmd.Stdout, cmd.Stderr = s.Environ, s.Err, s.Err
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("end the engine (%s --teardown): %w; nothing was removed", engine, err)
	}
	return nil
}

// lxcRun is where strake-lxc keeps what a reboot of the host ends.
const lxcRun = "/run/strake-lxc"

// teardownLXC ends LXC's containers, of the directory that LXC has them in. They stay as they are on
// disk, which is LXC's.
func teardownLXC(ctx context.Context, s *command.Session) error {
	if _, err := os.Stat(lxcRun); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	program, err := launch.Find("strake-lxc", s.Executable, s.Getenv("PATH"))
	if err != nil {
		return fmt.Errorf("end LXC's containers: %w", err)
	}
	defer early.Lock()()
	cmd := exec.CommandContext(ctx, program, "lxc", "teardown")
	cmd.Env, cmd.Stdout, cmd.Stderr = s.Environ, s.Err, s.Err
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("end LXC's containers (%s lxc teardown): %w", program, err)
	}
	return nil
}

// readManifest reads and checks the list.
func readManifest(name string) ([]string, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf(
			"no list of what was installed: %w (was strake installed with make install? --prefix "+
				"says where)",
			err,
		)
	}
	if err != nil {
		return nil, fmt.Errorf("read the list of what was installed: %w", err)
	}
	defer f.Close()
	var files []string
	sc := bufio.NewScanner(f)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if !filepath.IsAbs(line) || filepath.Clean(line) != line || strings.Count(line, "/") < 2 {
			return nil, fmt.Errorf(
				"%s:%d: %q: want a clean absolute path below a directory of the system", name, n,
				line,
			)
		}
		files = append(files, line)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return files, nil
}

// removeTree removes a directory unless something is still mounted in it.
func removeTree(dir string) error {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("remove %q: %w", dir, err)
	}
	for line := range strings.SplitSeq(string(raw), "\n") {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			return fmt.Errorf(
				"remove %q: %q is still mounted there: unmount it, then repeat", dir, f[4],
			)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove %q: %w", dir, err)
	}
	return nil
}

// removeFiles removes what was installed: files first, then directories if they are empty, deepest
// first; the own program after all others, so that an uninstallation that failed can be repeated,
// and the list at the very end.
func removeFiles(files []string, manifest, own string) error {
	files = slices.Clone(files)
	// what is inside a directory before it
	slices.SortFunc(files, func(a, b string) int { return strings.Compare(b, a) })
	var last, dirs []string
	for _, name := range files {
		info, err := os.Lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fmt.Errorf("remove %q: %w", name, err)
		case info.IsDir():
			dirs = append(dirs, name)
		case name == own:
			last = append(last, name)
		default:
			if err := os.Remove(name); err != nil {
				return err
			}
		}
	}
	for _, name := range append(last, manifest) {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, name := range append(dirs, filepath.Dir(manifest)) {
		os.Remove(name) // fails if it is not empty: then it holds files of others
	}
	return nil
}
