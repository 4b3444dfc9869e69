package policy

import (
	"bytes"
	"encoding/json"
)

// UnmarshalJSON reads a container strictly: a field that does not exist is an error. A container
// without eviction_priority has the default one.
func (c *Container) UnmarshalJSON(b []byte) error {
	type plain Container
	p := plain{EvictionPriority: DefaultEvictionPriority}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return err
	}
	*c = Container(p)
	return nil
}
