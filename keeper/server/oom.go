package server

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// protected is the keeper's own score: killed last, but not exempt (proc_pid_oom_score_adj(5)).
const protected = -999

// Protection changes the calling process's oom_score_adj. A child inherits the score of the moment,
// and not every program sets one, so the protection is lifted while children are cloned. The zero
// value does nothing.
type Protection struct {
	file          *os.File
	score, normal int
}

// protect gives this process a score. Where the privilege is missing (CAP_SYS_RESOURCE) nothing is
// changed. normal is the score that children are to have; nil for the present one.
func protect(score int, normal *int) (Protection, error) {
	f, err := os.OpenFile("/proc/self/oom_score_adj", os.O_RDWR, 0)
	if err != nil {
		return Protection{}, err
	}
	p := Protection{file: f, score: score}
	if normal != nil {
		p.normal = *normal
	} else {
		b := make([]byte, 16)
		n, err := f.Read(b)
		if err == nil {
			p.normal, err = strconv.Atoi(strings.TrimSpace(string(b[:n])))
		}
		if err != nil {
			f.Close()
			return Protection{}, fmt.Errorf("oom_score_adj: %w", err)
		}
	}
	if err := p.set(score); err != nil {
		f.Close()
		return Protection{normal: p.normal}, nil
	}
	return p, nil
}

func (p *Protection) set(score int) error {
	if p.file == nil {
		return nil
	}
	_, err := unix.Pwrite(int(p.file.Fd()), strconv.AppendInt(nil, int64(score), 10), 0)
	return err
}

// guardScore is the score that the guard gets: this process's, or nil if that was not changed.
func (p *Protection) guardScore() *int {
	if p.file == nil {
		return nil
	}
	return &p.score
}

// lift gives the process the score that its children are to have.
func (p *Protection) lift() error { return p.set(p.normal) }

// restore ends lift.
func (p *Protection) restore() error { return p.set(p.score) }
