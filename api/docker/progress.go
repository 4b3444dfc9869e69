package docker

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"strake/image"
)

// progress writes a stream of JSON messages, the answer to pulls, pushes and loads. An error after
// the first message becomes a message of the stream.
type progress struct {
	mu    sync.Mutex
	enc   *json.Encoder
	begun bool
	w     http.ResponseWriter
}

func newProgress(w http.ResponseWriter) *progress {
	return &progress{enc: json.NewEncoder(newFlusher(w)), w: w}
}

func (p *progress) send(v any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.begun {
		p.begun = true
		p.w.Header().Set("Content-Type", "application/json")
		p.w.WriteHeader(http.StatusOK)
	}
	p.enc.Encode(v)
}

func (p *progress) event(e image.Event) {
	m := map[string]any{"status": e.Status}
	if e.ID != "" {
		m["id"] = e.ID
	}
	if e.Total > 0 || e.Current > 0 {
		detail := map[string]int64{"current": e.Current}
		if e.Total > 0 {
			detail["total"] = e.Total
		}
		m["progressDetail"] = detail
		m["progress"] = bar(e.Current, e.Total)
	} else if e.ID != "" {
		m["progressDetail"] = struct{}{}
	}
	p.send(m)
}

// bar is the progress bar for clients that do not draw one.
func bar(current, total int64) string {
	if total <= 0 || current > total {
		return byteText(current)
	}
	n := int(50 * current / total)
	line := strings.Repeat("=", n)
	if n < 50 {
		line += ">" + strings.Repeat(" ", 49-n)
	}
	return fmt.Sprintf("[%s] %9s/%s", line, byteText(current), byteText(total))
}

func byteText(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	v, i := float64(n), 0
	for v >= 1000 && i < len(units)-1 {
		v, i = v/1000, i+1
	}
	return fmt.Sprintf("%.4g%s", v, units[i])
}

// end finishes the stream. An error becomes the last message, or the result of the handler if no
// message has been sent.
func (p *progress) end(err error) error {
	if err == nil {
		if !p.begun {
			p.w.Header().Set("Content-Type", "application/json")
			p.w.WriteHeader(http.StatusOK)
		}
		return nil
	}
	if !p.begun {
		return err
	}
	return p.fail(err)
}

// fail ends the stream with an error, also if it is the first message: the answer is 200 then.
func (p *progress) fail(err error) error {
	p.send(
		map[string]any{
			"errorDetail": map[string]any{"message": sentence(err)}, "error": sentence(err),
		},
	)
	return errAnswered
}
