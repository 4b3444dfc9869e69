package docker

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"syscall"

	apivolume "github.com/moby/moby/api/types/volume"

	"strake/engine"
	"strake/image"
	"strake/volume"
)

// usageAPI serves GET /system/df.
type usageAPI struct {
	engine interface {
		lister
		sizer
	}
	images interface {
		imageLister
		DiskUsage(ctx context.Context) (image.DiskUsage, error)
	}
	volumes interface{ List() []volume.Volume }
}

// usage is what one kind of object takes on disk (moby/moby/api, types/*/disk_usage.go), in bytes.
type usage struct {
	ActiveCount int   `json:",omitempty"`
	Items       []any `json:",omitempty"`
	Reclaimable int64 `json:",omitempty"`
	TotalCount  int   `json:",omitempty"`
	TotalSize   int64 `json:",omitempty"`
}

func (a *usageAPI) routes() map[string]handler {
	return map[string]handler{
		"GET /system/df": a.diskUsage,
	}
}

// diskUsage adds up the disk usage of containers, images and volumes.
func (a *usageAPI) diskUsage(w http.ResponseWriter, r *request) error {
	wanted, err := usageTypes(r)
	if err != nil {
		return err
	}
	containers, err := a.engine.List(r.Context())
	if err != nil {
		return err
	}
	out := map[string]any{}
	verbose := r.version >= 52 && r.flag("verbose")
	// add puts one kind into the answer, in the old form, the new one or, in 1.52, both.
	add := func(key, list string, u *usage) {
		if r.version < 53 && !verbose {
			out[list] = orEmpty(u.Items)
		}
		if r.version >= 52 {
			brief := *u
			if !verbose {
				brief.Items = nil
			}
			out[key] = brief
		}
	}
	if wanted["container"] {
		add("ContainerUsage", "Containers", a.ofContainers(r, containers))
	}
	if wanted["image"] {
		u, err := a.ofImages(r, containers)
		if err != nil {
			return err
		}
		add("ImageUsage", "Images", u)
		if r.version < 53 && !verbose {
			out["LayersSize"] = u.TotalSize
		}
	}
	if wanted["volume"] {
		u, err := a.ofVolumes(r.Context())
		if err != nil {
			return err
		}
		add("VolumeUsage", "Volumes", u)
	}
	if wanted["build-cache"] {
		add("BuildCacheUsage", "BuildCache", &usage{})
		if r.version < 42 {
			out["BuilderSize"] = 0
		}
	}
	return writeJSON(w, http.StatusOK, out)
}

// usageTypes reads the parameter type, which came with 1.42. Without it everything is wanted.
func usageTypes(r *request) (map[string]bool, error) {
	all := map[string]bool{"container": true, "image": true, "volume": true, "build-cache": true}
	list := r.URL.Query()["type"]
	if r.version < 42 || len(list) == 0 {
		return all, nil
	}
	wanted := map[string]bool{}
	for _, t := range list {
		if !all[t] {
			return nil, invalid("unknown object type: %s", t)
		}
		wanted[t] = true
	}
	return wanted, nil
}

func (a *usageAPI) ofContainers(r *request, list []engine.Info) *usage {
	out := &usage{TotalCount: len(list)}
	for i := range list {
		sum := summary(&list[i], r.version)
		if rw, root, err := a.engine.Usage(r.Context(), list[i].ID); err == nil {
			sum.SizeRw, sum.SizeRootFs = rw, root
		}
		out.TotalSize += sum.SizeRw
		switch list[i].State.Status {
		case engine.Running, engine.Paused, engine.Restarting:
			out.ActiveCount++
		default:
			out.Reclaimable += sum.SizeRw
		}
		out.Items = append(out.Items, sum)
	}
	return out
}

func (a *usageAPI) ofImages(r *request, containers []engine.Info) (*usage, error) {
	du, err := a.images.DiskUsage(r.Context())
	if err != nil {
		return nil, err
	}
	list, err := a.images.List(r.Context(), image.Filter{SharedSize: true})
	if err != nil {
		return nil, err
	}
	uses := usesOf(containers)
	out := &usage{TotalCount: len(list), TotalSize: du.LayerBytes + du.BlobBytes + du.PartialBytes}
	for i := range list {
		m := &list[i]
		if uses[m.ID.String()] > 0 {
			out.ActiveCount++
		} else {
			out.Reclaimable += m.Size - max(m.SharedSize, 0)
		}
		item := map[string]any{
			"Id": m.ID.String(), "ParentId": m.Parent.String(), "RepoTags": orEmpty(m.RepoTags),
			"RepoDigests": orEmpty(m.RepoDigests),
			"Created":     m.Created.Unix(), "Size": m.Size, "SharedSize": m.SharedSize,
			"Labels": m.Labels, "Containers": uses[m.ID.String()],
		}
		if r.version < 44 {
			item["VirtualSize"] = m.Size
		}
		out.Items = append(out.Items, item)
	}
	return out, nil
}

func (a *usageAPI) ofVolumes(ctx context.Context) (*usage, error) {
	out := &usage{}
	for _, v := range a.volumes.List() {
		size := int64(-1) // unknown: the volume is a directory elsewhere, or unreadable
		if v.Options["device"] == "" {
			if n, err := treeSize(ctx, v.Path); err == nil {
				size = n
			}
		}
		out.TotalCount++
		out.TotalSize += max(size, 0)
		if len(v.Users) > 0 {
			out.ActiveCount++
		} else {
			out.Reclaimable += max(size, 0)
		}
		one := volumeOf(&v)
		one.UsageData = &apivolume.UsageData{RefCount: int64(len(v.Users)), Size: size}
		out.Items = append(out.Items, one)
	}
	return out, ctx.Err()
}

// treeSize is the sum of the sizes of the files below a directory in bytes. A file with several
// hard links counts once, a file that a container removes meanwhile counts nothing, and symbolic
// links are not followed.
func treeSize(ctx context.Context, dir string) (int64, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer root.Close()
	type file struct{ device, inode uint64 }
	seen := map[file]bool{}
	var sum int64
	err = fs.WalkDir(root.FS(), ".", func(_ string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var info fs.FileInfo
		if err == nil && !d.IsDir() {
			info, err = d.Info()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || info == nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
			f := file{uint64(st.Dev), st.Ino}
			if seen[f] {
				return nil
			}
			seen[f] = true
		}
		sum += info.Size()
		return nil
	})
	return sum, err
}
