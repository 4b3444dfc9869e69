package backend

import (
	"io"
	"sync"

	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
)

// quietLog is the logger for containerd's libraries and says nothing: what matters comes back as an
// error, and a library must not write to the engine's standard error behind its back. Calls without
// a context use the package's own logger, which is replaced too.
var quietLog = sync.OnceValue(func() *log.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	l.SetLevel(logrus.PanicLevel)
	log.L = logrus.NewEntry(l)
	return log.L
})
