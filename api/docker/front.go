package docker

import (
	"encoding/json"
	"fmt"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"strake/engine"
)

// front is what the API stores in engine.Spec.Front and returns on inspect: the request as
// normalize and adapt left it.
type front struct {
	Config     *container.Config         `json:"config"`
	HostConfig *container.HostConfig     `json:"hostConfig"`
	Networking *network.NetworkingConfig `json:"networking,omitempty"`
}

func frontOf(info *engine.Info) (front, error) {
	var f front
	if len(info.Spec.Front) > 0 {
		if err := json.Unmarshal(info.Spec.Front, &f); err != nil {
			return f, fmt.Errorf("container %s: %w", info.ID, err)
		}
	}
	if f.Config == nil {
		f.Config = &container.Config{
			Image: info.Spec.Image, Labels: info.Spec.Labels, Tty: info.Spec.TTY,
			OpenStdin: info.Spec.OpenStdin,
		}
	}
	if f.HostConfig == nil {
		f.HostConfig = &container.HostConfig{}
	}
	return f, nil
}
