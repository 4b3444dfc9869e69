package logwriter

import "time"

// CRI is the format that Kubernetes asks of a container runtime
// (kubernetes/design-proposals-archive node/kubelet-cri-logging.md):
// "2016-10-06T00:17:09.669794202Z stdout F text". The tag is P for a piece of a line that goes on
// in the next record of its stream, and F for the end of a line. What a stream ends with is tagged
// F, as containerd does it: the format cannot say that the newline was missing.
type CRI struct{}

// MaxRecord implements Format.
func (CRI) MaxRecord() int { return maxLine + 64 }

// AppendRecord implements Format.
func (CRI) AppendRecord(b, line []byte, end LineEnd, s Stream, now time.Time) []byte {
	b = now.UTC().AppendFormat(b, time.RFC3339Nano)
	if s == Stdout {
		b = append(b, " stdout "...)
	} else {
		b = append(b, " stderr "...)
	}
	if end == Split {
		b = append(b, "P "...)
	} else {
		b = append(b, "F "...)
	}
	return append(append(b, line...), '\n')
}
