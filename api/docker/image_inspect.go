package docker

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"strake/image"
)

// imageConfig are the fields of an image's configuration that versions until 1.51 show also if they
// are empty.
var imageConfig = []string{
	"Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "User", "Volumes", "WorkingDir",
}

// inspect answers GET /images/{name}/json.
func (a *imageAPI) inspect(w http.ResponseWriter, r *request, name string) error {
	if r.version >= 49 {
		if r.form("platform") != "" && r.flag("manifests") {
			return invalid("conflicting options: manifests and platform options cannot both be set")
		}
		if err := ofPlatform(r, a.images, name, "platform"); err != nil {
			return err
		}
	}
	d, err := a.images.Inspect(r.Context(), name)
	if err != nil {
		return err
	}
	out, err := imageOf(&d, r.version)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, out)
}

func imageOf(d *image.Detail, v version) (map[string]any, error) {
	layers := make([]string, len(d.DiffIDs))
	for i, id := range d.DiffIDs {
		layers[i] = id.String()
	}
	config, err := imageConfigOf(&d.Config, v)
	if err != nil {
		return nil, err
	}
	out := map[string]any{
		"Id": d.ID.String(), "RepoTags": orEmpty(d.RepoTags), "RepoDigests": orEmpty(d.RepoDigests),
		"Config":       config,
		"Architecture": d.Platform.Architecture, "Os": d.Platform.OS, "Size": d.Size,
		"RootFS":   map[string]any{"Type": "layers", "Layers": layers},
		"Metadata": map[string]any{"LastTagTime": timeText(d.LastTagged)},
	}
	if v < 44 || !d.Created.IsZero() {
		out["Created"] = timeText(d.Created)
	}
	if len(d.Dirs) > 0 {
		data := map[string]string{"UpperDir": d.Dirs[0]}
		if len(d.Dirs) > 1 {
			data["LowerDir"] = strings.Join(d.Dirs[1:], ":")
		}
		out["GraphDriver"] = map[string]any{"Name": "overlayfs", "Data": data}
	}
	if v < 44 {
		out["VirtualSize"] = d.Size
	}
	if v < 45 {
		// The classic builder recorded the container that it committed; no image here has one.
		out["Container"], out["ContainerConfig"] = "", map[string]any{}
	}
	if v >= 48 && d.Target.Digest != "" {
		out["Descriptor"] = d.Target
	}
	for key, value := range map[string]string{
		"Variant": d.Platform.Variant, "OsVersion": d.Platform.OSVersion,
	} {
		if value != "" {
			out[key] = value
		}
	}
	for key, value := range map[string]string{
		"Parent": d.Parent.String(), "Comment": d.Comment, "DockerVersion": d.DockerVersion,
		"Author": d.Author,
	} {
		if v < 52 || value != "" {
			out[key] = value
		}
	}
	return out, nil
}

// imageConfigOf is the field Config. Until 1.49 it has the fields of a container's configuration,
// until 1.51 all fields of an image's, and since then those that are set.
func imageConfigOf(c *image.RunConfig, v version) (map[string]any, error) {
	out := map[string]any{}
	if v < 50 {
		for _, key := range []string{
			"AttachStderr", "AttachStdin", "AttachStdout", "OpenStdin", "StdinOnce", "Tty",
		} {
			out[key] = false
		}
		for _, key := range []string{"Domainname", "Hostname", "Image"} {
			out[key] = ""
		}
	}
	for key, value := range map[string]any{
		"Cmd": c.Cmd, "Entrypoint": c.Entrypoint, "Env": c.Env, "ExposedPorts": c.ExposedPorts,
		"Labels": c.Labels, "OnBuild": c.OnBuild, "Shell": c.Shell,
		"StopSignal": c.StopSignal, "User": c.User, "Volumes": c.Volumes,
		"WorkingDir": c.WorkingDir, "Healthcheck": c.Healthcheck,
	} {
		raw, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		empty := slices.Contains([]string{"null", `""`, "[]", "{}"}, string(raw))
		if !empty || v < 52 && slices.Contains(imageConfig, key) {
			out[key] = json.RawMessage(raw)
		}
	}
	return out, nil
}
