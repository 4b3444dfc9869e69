package userland

import (
	"errors"
	"strings"
)

// exec reads the command of -exec up to ";" or "{} +".
func (p *findParser) exec() (findTest, error) {
	p.acts = true
	var cmd []string
	for {
		a, ok := p.next()
		if !ok {
			return nil, errors.New(`predicate "-exec" needs a command that ends with ; or {} +`)
		}
		if a == ";" {
			break
		}
		if a == "+" && len(cmd) > 0 && cmd[len(cmd)-1] == "{}" {
			return p.execBatch(cmd[:len(cmd)-1])
		}
		cmd = append(cmd, a)
	}
	if len(cmd) == 0 {
		return nil, errors.New(`predicate "-exec" needs a command`)
	}
	return func(e *found) bool {
		args := make([]string, len(cmd))
		for i, a := range cmd {
			args[i] = strings.ReplaceAll(a, "{}", e.name)
		}
		p.f.w.Flush() // what was found so far stands before what the command writes
		return p.f.c.runCommand(p.f.ctx, args, nil) == exitOK
	}, nil
}

func (p *findParser) execBatch(cmd []string) (findTest, error) {
	if len(cmd) == 0 {
		return nil, errors.New(`predicate "-exec" needs a command`)
	}
	var held []string
	size := 0
	flush := func() {
		if len(held) == 0 {
			return
		}
		p.f.w.Flush()
		if p.f.c.runCommand(p.f.ctx, append(append([]string{}, cmd...), held...), nil) != exitOK {
			p.f.status = exitFault
		}
		held, size = nil, 0
	}
	p.batches = append(p.batches, flush)
	return func(e *found) bool {
		held = append(held, e.name)
		if size += len(e.name) + 9; size > commandBytes {
			flush()
		}
		return true
	}, nil
}
