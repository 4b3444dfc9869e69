package program

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Print writes the program in a form for people and golden files: one operation on a line, grouped by the field of the configuration that asked
// for it.
func (p *Program) Print(w io.Writer) error {
	var b bytes.Buffer
	labelled := p.jumpTargets()
	if p.clone != 0 {
		fmt.Fprintf(&b, "clone3 %s\n", flagText(nsFlags, p.clone))
	} else {
		b.WriteString("clone3\n")
	}
	field := ""
	for i := range p.ops {
		op := &p.ops[i]
		if op.Field != field {
			field = op.Field
			fmt.Fprintf(&b, "\n# %s\n", field)
		}
		if labelled[i] {
			fmt.Fprintf(&b, "L%d:\n", i)
		}
		fmt.Fprintf(&b, "%5d  %s\n", i, p.Text(i))
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (p *Program) jumpTargets() map[int]bool {
	t := make(map[int]bool)
	for i := range p.ops {
		op := &p.ops[i]
		if op.OnError.n > 0 {
			t[int(p.labels[op.OnError.n-1])] = true
		}
		if op.Code == Jump {
			t[int(p.labels[op.Target.n-1])] = true
		}
	}
	return t
}

// Text is operation i on one line. Precondition: 0 <= i < Len().
func (p *Program) Text(i int) string {
	op := &p.ops[i]
	switch op.Code {
	case Jump:
		if op.Cond == Equal && op.Args[0] == Num(0) && op.Args[1] == Num(0) && op.Args[2] == Num(0) {
			return "goto " + p.place(op.Target)
		}
		v := p.value(op.Args[0])
		if mask := op.Args[1].Value; mask != ^uint64(0) {
			v = fmt.Sprintf("%s & %#x", v, mask)
		}
		return fmt.Sprintf("if %s %s %s goto %s", v, [...]string{"==", "!=", "<", ">="}[op.Cond], p.value(op.Args[2]), p.place(op.Target))
	case ALU:
		dst := "report"
		if op.Dst.off != reportCell {
			dst = cellText(uint64(op.Dst.off))
		}
		if op.Cond == Move {
			return dst + " = " + p.value(op.Args[0])
		}
		sign := map[Cond]string{Add: "+", Sub: "-", And: "&", Or: "|", ShiftL: "<<", ShiftR: ">>"}[op.Cond]
		return fmt.Sprintf("%s = %s %s %s", dst, p.value(op.Args[0]), sign, p.value(op.Args[1]))
	case Fail:
		return "fail " + errnoText(op.Args[0])
	}
	name := CallName(op.Nr)
	args := make([]string, len(op.Args))
	for k, a := range op.Args {
		args[k] = p.argument(name, k, a)
	}
	s := fmt.Sprintf("%s(%s)", name, strings.Join(args, ", "))
	if op.HasDst {
		s = cellText(uint64(op.Dst.off)) + " = " + s
	}
	if len(op.Ignore) > 0 {
		names := make([]string, len(op.Ignore))
		for k, e := range op.Ignore {
			names[k] = ErrnoName(e)
		}
		s += "  unless " + strings.Join(names, ", ")
		if op.OnError.n > 0 {
			s += " goto " + p.place(op.OnError)
		}
	}
	return s
}

func (p *Program) place(l Label) string { return "L" + strconv.Itoa(int(p.labels[l.n-1])) }

func cellText(off uint64) string { return "$" + strconv.FormatUint(off/8, 10) }

func errnoText(a Arg) string {
	if a.Kind == Imm {
		return ErrnoName(uint16(a.Value))
	}
	return cellText(a.Value)
}

// value prints an argument without knowing what it is for.
func (p *Program) value(a Arg) string {
	switch a.Kind {
	case Imm:
		if int64(a.Value) < 0 && int64(a.Value) > -4096 {
			return strconv.FormatInt(int64(a.Value), 10)
		}
		if a.Value > 9 {
			return fmt.Sprintf("%#x", a.Value)
		}
		return strconv.FormatUint(a.Value, 10)
	case Load64:
		if a.Value%8 == 0 {
			return cellText(a.Value)
		}
		return fmt.Sprintf("$%d.%d:64", a.Value/8, a.Value%8)
	case Load32:
		return fmt.Sprintf("$%d.%d:32", a.Value/8, a.Value%8)
	case Load16:
		return fmt.Sprintf("$%d.%d:16", a.Value/8, a.Value%8)
	case Load8:
		return fmt.Sprintf("$%d.%d:8", a.Value/8, a.Value%8)
	case kindPtr:
		return p.pointer(uint32(a.Value))
	case kindInput:
		return "<" + p.inputs[a.Value].Name + ">"
	case kindStart:
		return "<image start>"
	case kindEnd:
		return "<image end>"
	case kindGapFirst:
		return fmt.Sprintf("<gap %d>", a.Value)
	case kindGapLast:
		return fmt.Sprintf("<end of gap %d>", a.Value)
	}
	return "?"
}

// pointer prints what is at an offset of the data: a string, an array of strings, a described structure, or the place.
func (p *Program) pointer(off uint32) string {
	if n, ok := p.notes[off]; ok {
		if text, ok := strings.CutPrefix(n.text, "\x00"); ok {
			return text
		}
		return strconv.Quote(n.text)
	}
	if list, ok := p.stringArray(off); ok {
		return "[" + strings.Join(list, " ") + "]"
	}
	return fmt.Sprintf("&$%d", off/8)
}

func (p *Program) stringArray(off uint32) ([]string, bool) {
	to := make(map[uint32]uint32, len(p.ptrs))
	for _, ptr := range p.ptrs {
		to[ptr.at] = ptr.to
	}
	var list []string
	for ; ; off += 8 {
		target, ok := to[off]
		if !ok {
			return list, len(list) > 0
		}
		n, ok := p.notes[target]
		if !ok || strings.HasPrefix(n.text, "\x00") {
			return nil, false
		}
		list = append(list, strconv.Quote(n.text))
	}
}
