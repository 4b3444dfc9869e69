package image

import (
	"io"

	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
)

// quietLog is the logger for containerd's libraries and says nothing: what matters comes back as an error, and a library must not write to the
// engine's standard error behind its back.
func quietLog() *log.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	l.SetLevel(logrus.PanicLevel)
	return logrus.NewEntry(l)
}
