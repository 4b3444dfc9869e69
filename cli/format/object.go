package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Objects shows JSON objects as inspect does: an indented array, one object a line ("json"), or a
// template for each.
func Objects(w io.Writer, text string, objects []json.RawMessage) error {
	var b bytes.Buffer
	switch text = unescape(text); text {
	case "":
		var all bytes.Buffer
		all.WriteByte('[')
		for i, o := range objects {
			if i > 0 {
				all.WriteByte(',')
			}
			all.Write(bytes.TrimSpace(o))
		}
		all.WriteByte(']')
		if err := json.Indent(&b, all.Bytes(), "", "    "); err != nil {
			return fmt.Errorf("indent: %w", err)
		}
		b.WriteByte('\n')
	case "json":
		for _, o := range objects {
			if err := json.Compact(&b, o); err != nil {
				return fmt.Errorf("compact: %w", err)
			}
			b.WriteByte('\n')
		}
	default:
		for _, o := range objects {
			if err := object(&b, text, o); err != nil {
				return err
			}
			b.WriteByte('\n')
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// Object executes a template ("json" is the whole object) on one JSON object.
func Object(w io.Writer, text string, raw json.RawMessage) error {
	text = unescape(text)
	if text == "json" {
		text = "{{json .}}"
	}
	var b bytes.Buffer
	if err := object(&b, text, raw); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}

func object(b *bytes.Buffer, text string, raw json.RawMessage) error {
	t, err := Parse(text)
	if err != nil {
		return err
	}
	v, err := decode(raw)
	if err != nil {
		return err
	}
	start := b.Len()
	err = t.Execute(b, v)
	if err == nil {
		return nil
	}
	// Docker executes templates on its own types, whose names differ from those of the JSON here
	// and there; both work for its users.
	b.Truncate(start)
	alias(v)
	if t.Execute(b, v) == nil {
		return nil
	}
	b.Truncate(start)
	return err
}

// decode makes maps of JSON with whole numbers as int64, which templates can compare.
func decode(raw json.RawMessage) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return numbers(v), nil
}

func numbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = numbers(e)
		}
	case []any:
		for i, e := range v {
			v[i] = numbers(e)
		}
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	}
	return v
}

// goNames are fields whose name in moby's Go types is not that of the JSON.
const goNames = "Id:ID ImageId:ImageID CpuShares:CPUShares NanoCpus:NanoCPUs CpuPeriod:CPUPeriod " +
	"CpuQuota:CPUQuota Dns:DNS DnsOptions:DNSOptions " +
	"DnsSearch:DNSSearch HostIp:HostIP ApiVersion:APIVersion NCPU:NumCPU SizeRootFs:SizeRootFS"

func alias(v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, e := range v {
			alias(e)
		}
		for pair := range strings.FieldsSeq(goNames) {
			wire, name, _ := strings.Cut(pair, ":")
			e, ok := v[wire]
			if _, taken := v[name]; ok && !taken {
				v[name] = e
			}
		}
	case []any:
		for _, e := range v {
			alias(e)
		}
	}
}
