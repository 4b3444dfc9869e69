package supervisor

import (
	"context"

	"strake/engine/record"
	"strake/task"
)

// groupOf names the group of a container, which is where its record, or its configuration, says.
func (e *Engine) groupOf(c *container, st *record.State) task.Group {
	var path string
	var err error
	if st.Task != nil {
		path = st.Task.Group
	}
	if path == "" {
		path, err = e.cfg.Groups.Path(c.spec.CgroupParent, c.id)
	}
	var g task.Group
	if err == nil {
		g, err = e.cfg.Groups.At(path)
	}
	if err != nil {
		e.warn("the control group of a container", err, "container", c.id)
		return task.NoGroup{Err: err}
	}
	return g
}

// removeForeignGroup removes a container's group if its parent is not this engine's own.
func (e *Engine) removeForeignGroup(ctx context.Context, c *container) error {
	if c.spec.CgroupParent == "" {
		return nil
	}
	return e.groupOf(c, &record.State{}).Remove(ctx)
}

// ended says whether a process has ended.
func ended(p task.Process) bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}
