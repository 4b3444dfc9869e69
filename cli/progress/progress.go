// Package progress shows the JSON messages that the engine sends while it pulls, pushes, loads or
// imports (moby/moby:api/swagger.yaml, "CreateImageInfo"): on a terminal one line for each layer,
// redrawn in place; in a pipe one plain line for each change of state, without byte counts.
//
// It promises that no line is wider than the terminal and no block higher, so that redrawing never
// leaves rubbish behind; that the width is asked for anew each time; and that an error in the
// stream is returned as one.
//
// Not for: results. What a stream says that is a result (the ID of an import) is handed to the
// caller.
//
// Tested by golden drawings at several widths.
package progress

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"strake/cli/format"
)

// Options say where progress goes.
type Options struct {
	Out io.Writer
	// Size returns the columns and rows of the terminal that Out is. Nil if Out is no terminal.
	Size func() (columns, rows int)
	// Now is the clock for limiting redraws.
	Now func() time.Time
	// Stream, if not nil, is called with the text of messages that are results ("Loaded image: …").
	Stream func(text string)
	// Status, if not nil, is called with the text of every message that belongs to no layer. If it
	// returns true, the message is not shown.
	Status func(text string) bool
	// Aux, if not nil, is called with results in JSON.
	Aux func(json.RawMessage)
	// Quiet shows nothing but errors.
	Quiet bool
}

// message is one of the stream's.
type message struct {
	ID       string          `json:"id"`
	Status   string          `json:"status"`
	Stream   string          `json:"stream"`
	Aux      json.RawMessage `json:"aux"`
	Progress struct {
		Current    int64  `json:"current"`
		Total      int64  `json:"total"`
		Units      string `json:"units"`
		HideCounts bool   `json:"hidecounts"`
	} `json:"progressDetail"`
	Error       string `json:"error"`
	ErrorDetail *struct {
		Message string `json:"message"`
	} `json:"errorDetail"`
}

// StreamError is an error that the engine reported within the stream.
type StreamError struct{ Message string }

func (e *StreamError) Error() string { return e.Message }

// interval is the least time between redraws; a person sees no more.
const interval = 80 * time.Millisecond

// Show reads messages until the stream ends.
func Show(src io.Reader, opt Options) error {
	d := json.NewDecoder(src)
	p := &painter{opt: opt, last: map[string]string{}, index: map[string]int{}}
	for {
		var m message
		if err := d.Decode(&m); err != nil {
			p.draw(true)
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read the engine's progress: %w", err)
		}
		switch {
		case m.ErrorDetail != nil && m.ErrorDetail.Message != "":
			p.draw(true)
			return &StreamError{m.ErrorDetail.Message}
		case m.Error != "":
			p.draw(true)
			return &StreamError{m.Error}
		case m.Aux != nil:
			if opt.Aux != nil {
				opt.Aux(m.Aux)
			}
		case m.Stream != "":
			p.permanent(func() {
				if opt.Stream != nil {
					opt.Stream(m.Stream)
				} else if !opt.Quiet {
					io.WriteString(opt.Out, m.Stream)
				}
			})
		case m.Status == "":
		case m.ID == "":
			p.permanent(func() {
				if (opt.Status == nil || !opt.Status(m.Status)) && !opt.Quiet {
					io.WriteString(opt.Out, m.Status+"\n")
				}
			})
		case !opt.Quiet:
			p.layer(m)
		}
	}
}

// painter keeps what is on the screen.
type painter struct {
	opt   Options
	lines []message      // in order of appearance
	index map[string]int // of lines, by ID
	drawn int            // lines on the screen that belong to the block
	when  time.Time
	dirty bool
	last  map[string]string // in a pipe: the state last written, by ID
}

func (p *painter) layer(m message) {
	if p.opt.Size == nil {
		// A log gets changes of state, not byte counts.
		if m.Progress.Current == 0 && m.Progress.Total == 0 && p.last[m.ID] != m.Status {
			p.last[m.ID] = m.Status
			io.WriteString(p.opt.Out, m.ID+": "+m.Status+"\n")
		}
		return
	}
	i, ok := p.index[m.ID]
	if !ok {
		i = len(p.lines)
		p.index[m.ID] = i
		p.lines = append(p.lines, m)
	}
	p.lines[i] = m
	p.dirty = true
	p.draw(!ok && len(p.lines) == 1)
}

// permanent writes something below the block, which stays as it is from then on.
func (p *painter) permanent(write func()) {
	p.draw(true)
	p.lines, p.drawn = nil, 0
	clear(p.index)
	write()
}

func (p *painter) draw(now bool) {
	if !p.dirty || p.opt.Size == nil {
		return
	}
	if t := p.opt.Now(); now || t.Sub(p.when) >= interval {
		columns, rows := p.opt.Size()
		p.when, p.dirty = t, false
		block := paint(p.lines, columns, rows)
		var b strings.Builder
		if p.drawn > 0 {
			fmt.Fprintf(&b, "\x1b[%dA", p.drawn)
		}
		for _, line := range block {
			b.WriteString("\r" + line + "\x1b[K\n")
		}
		if len(block) < p.drawn {
			b.WriteString("\x1b[J")
		}
		p.drawn = len(block)
		io.WriteString(p.opt.Out, b.String())
	}
}

// paint draws a block that fits into a terminal. If there are more lines than rows, those that are
// still moving are shown, and a last line counts the others.
func paint(lines []message, columns, rows int) []string {
	room := max(rows-1, 1)
	hidden := 0
	if len(lines) > room {
		var moving []message
		for _, m := range lines {
			if m.Progress.Total > 0 || m.Progress.Current > 0 {
				moving = append(moving, m)
			}
		}
		for _, m := range lines {
			if len(moving) >= room-1 {
				break
			}
			if m.Progress.Total == 0 && m.Progress.Current == 0 {
				moving = append(moving, m)
			}
		}
		moving = moving[:min(len(moving), max(room-1, 0))]
		hidden = len(lines) - len(moving)
		lines = moving
	}
	out := make([]string, 0, len(lines)+1)
	for _, m := range lines {
		out = append(out, paintLine(m, columns))
	}
	if hidden > 0 {
		out = append(out, clip(fmt.Sprintf("… and %d more", hidden), columns))
	}
	return out
}

// paintLine draws one layer: its name, what happens to it, a bar if there is room for one, and
// counts.
func paintLine(m message, columns int) string {
	line := m.ID + ": " + m.Status
	current, total := m.Progress.Current, m.Progress.Total
	if current <= 0 && total <= 0 {
		return clip(line, columns)
	}
	counts := format.Size(current, 4)
	if m.Progress.Units != "" {
		counts = fmt.Sprintf("%d %s", current, m.Progress.Units)
	}
	if total > 0 && current <= total {
		if m.Progress.Units != "" {
			counts = fmt.Sprintf("%d/%d %s", current, total, m.Progress.Units)
		} else {
			counts += "/" + format.Size(total, 4)
		}
	}
	if m.Progress.HideCounts {
		counts = ""
	}
	bar := ""
	// "line [bar] counts", one column left free: some terminals wrap when the last one is written.
	room := min(50, columns-1-len([]rune(line))-len(counts)-len(" [] "))
	if total > 0 && current <= total && room >= 10 {
		full := int(float64(room) * float64(current) / float64(total))
		head := ""
		if full < room {
			head = ">"
		}
		bar = "[" + strings.Repeat("=", full) + head + strings.Repeat(
			" ", max(room-full-1, 0),
		) + "]"
	}
	for _, part := range []string{bar, counts} {
		if part != "" {
			line += " " + part
		}
	}
	return clip(line, columns)
}

// clip keeps a line from reaching the last column.
func clip(line string, columns int) string { return format.Ellipsis(line, max(columns-1, 1)) }
