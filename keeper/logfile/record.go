package logfile

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
)

// parse reads one record, newline included; ok is false for a damaged one.
func parse(raw []byte) (l Line, ok bool) {
	// After a loss of power a file may have zeros where a line was.
	raw = bytes.TrimLeft(raw, "\x00")
	if len(raw) > 0 && raw[0] != '{' {
		return parseCRI(raw)
	}
	err := json.Unmarshal(raw, &l)
	return l, err == nil
}

// parseCRI reads "TIME STREAM TAGS TEXT". Tags are separated by colons, and the first one is P for
// a piece of a line or F for its end (the kubelet reads them so too: kubernetes/kubernetes
// pkg/kubelet/kuberuntime/logs/logs.go).
func parseCRI(raw []byte) (l Line, ok bool) {
	text, whole := strings.CutSuffix(string(raw), "\n")
	at, rest, ok1 := strings.Cut(text, " ")
	stream, rest, ok2 := strings.Cut(rest, " ")
	tags, text, ok3 := strings.Cut(rest, " ")
	if !whole || !ok1 || !ok2 || !ok3 || stream != "stdout" && stream != "stderr" {
		return l, false
	}
	t, err := time.Parse(time.RFC3339Nano, at)
	if err != nil {
		return l, false
	}
	switch tag, _, _ := strings.Cut(tags, ":"); tag {
	case "F":
		text += "\n"
	case "P":
	default:
		return l, false
	}
	return Line{Stream: stream, Time: t, Text: text}, true
}
