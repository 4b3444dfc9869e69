package spec

import (
	"errors"
	"fmt"
	"strings"

	"strake/cli/api"
)

// Source is what of the user's surroundings flags may refer to.
type Source struct {
	// LookupEnv finds a variable that -e names without a value.
	LookupEnv func(string) (string, bool)
	// ReadFile reads files of --env-file, --label-file and seccomp profiles.
	ReadFile func(string) ([]byte, error)
	// Dir is the working directory, which relative sources of -v begin in.
	Dir string
}

// Create makes the request for a container of image with the given command. The streams it is
// attached to are those of a container in the foreground; Detach changes that.
func (f *Flags) Create(image string, cmd []string, src Source) (*api.CreateRequest, error) {
	r := &api.CreateRequest{}
	r.Image, r.Cmd = image, cmd
	for _, step := range []func(*api.CreateRequest, Source) error{
		f.putProcess, f.putSecurity, f.putResources, f.putFiles, f.putPorts, f.putNetworks,
		f.putLifecycle, f.putHealth,
	} {
		if err := step(r, src); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Detach makes the request one of a container in the background.
func (f *Flags) Detach(r *api.CreateRequest) error {
	if len(f.attach) > 0 {
		return errors.New("conflicting options: cannot specify both --attach and --detach")
	}
	r.AttachStdin, r.AttachStdout, r.AttachStderr, r.StdinOnce = false, false, false, false
	return nil
}

func (f *Flags) putProcess(r *api.CreateRequest, src Source) error {
	for _, s := range f.attach {
		switch strings.ToLower(s) {
		case "stdin":
			r.AttachStdin = true
		case "stdout":
			r.AttachStdout = true
		case "stderr":
			r.AttachStderr = true
		default:
			return fmt.Errorf("--attach %q: want stdin, stdout or stderr", s)
		}
	}
	if len(f.attach) == 0 {
		r.AttachStdout, r.AttachStderr = true, true
		r.AttachStdin = f.stdin
	}
	if f.stdin {
		r.AttachStdin = r.AttachStdin || len(f.attach) == 0
		r.OpenStdin = true
		r.StdinOnce = r.AttachStdin
	}
	r.Tty = f.tty
	r.Hostname, r.Domainname, r.User = f.hostname, f.domainname, f.user
	r.WorkingDir, r.StopSignal = f.workdir, f.stopSignal
	r.HostConfig.GroupAdd = f.groupAdd
	if f.fs.Changed("init") {
		r.HostConfig.Init = &f.init
	}
	if f.fs.Changed("stop-timeout") {
		r.StopTimeout = &f.stopTimeout
	}
	if f.fs.Changed("entrypoint") {
		// One empty string says that the image's is not wanted; an empty list would say nothing.
		r.Entrypoint = []string{f.entrypoint}
	}
	var err error
	if r.Env, err = Environment(f.envFile, f.env, src); err != nil {
		return err
	}
	if r.Labels, err = labels(f.labelFile, f.labels, src); err != nil {
		return err
	}
	r.HostConfig.Annotations, err = Pairs("annotation", f.annotations)
	return err
}

func (f *Flags) putLifecycle(r *api.CreateRequest, _ Source) error {
	h := &r.HostConfig
	policy, err := RestartPolicy(f.restart)
	if err != nil {
		return err
	}
	h.AutoRemove = f.autoRemove
	if policy.Name != "no" {
		if f.autoRemove {
			return errors.New("conflicting options: cannot specify both --restart and --rm")
		}
		h.RestartPolicy = policy
	}
	options, err := Pairs("log-opt", f.logOpt)
	if err != nil {
		return err
	}
	if f.logDriver == "none" && len(options) > 0 {
		return fmt.Errorf("invalid logging opts for driver %s", f.logDriver)
	}
	if f.logDriver != "" || len(options) > 0 {
		h.LogConfig = &api.LogConfig{Type: f.logDriver, Config: options}
	}
	h.Runtime, h.ContainerIDFile = f.runtime, f.cidFile
	return nil
}

func (f *Flags) putHealth(r *api.CreateRequest, _ Source) error {
	given := f.healthCmd != "" || f.healthInterval != 0 || f.healthTimeout != 0 ||
		f.healthStartPeriod != 0 || f.healthStartInterval != 0 || f.healthRetries != 0
	switch {
	case f.noHealthcheck && given:
		return errors.New("--no-healthcheck conflicts with --health-* options")
	case f.noHealthcheck:
		r.Healthcheck = &api.Health{Test: []string{"NONE"}}
	case given:
		for name, n := range map[string]int64{
			"--health-interval": int64(f.healthInterval),
			"--health-timeout":  int64(f.healthTimeout), "--health-retries": int64(f.healthRetries),
			"--health-start-period":   int64(f.healthStartPeriod),
			"--health-start-interval": int64(f.healthStartInterval),
		} {
			if n < 0 {
				return fmt.Errorf("%s cannot be negative", name)
			}
		}
		r.Healthcheck = &api.Health{
			Interval: int64(f.healthInterval), Timeout: int64(f.healthTimeout),
			Retries:     f.healthRetries,
			StartPeriod: int64(f.healthStartPeriod), StartInterval: int64(f.healthStartInterval),
		}
		if f.healthCmd != "" {
			r.Healthcheck.Test = []string{"CMD-SHELL", f.healthCmd}
		}
	}
	return nil
}
