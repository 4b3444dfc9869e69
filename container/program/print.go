package program

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Print writes the program in a form for people and golden files: one operation on a line, grouped
// by the field of the configuration that asked for it.
func (p *Program) Print(w io.Writer) error {
	var b bytes.Buffer
	pr := p.printer()
	labelled := p.jumpTargets()
	if p.img.clone != 0 {
		fmt.Fprintf(&b, "clone3 %s\n", flagText(nsFlags, p.img.clone))
	} else {
		b.WriteString("clone3\n")
	}
	if score, ok := p.img.OOMScore(); ok {
		fmt.Fprintf(&b, "oom_score_adj %d, by the spawner\n", score)
	}
	field := ""
	for i := range p.Len() {
		if f := p.fields[p.about[i].field]; f != field {
			field = f
			fmt.Fprintf(&b, "\n# %s\n", field)
		}
		if labelled[i] {
			fmt.Fprintf(&b, "L%d:\n", i)
		}
		fmt.Fprintf(&b, "%5d  %s\n", i, pr.text(i))
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (p *Program) jumpTargets() map[int]bool {
	t := make(map[int]bool)
	for i := range p.Len() {
		op := p.Op(i)
		if op.Code == Jump {
			t[op.Target] = true
		}
		if op.OnError != i+1 {
			t[op.OnError] = true
		}
	}
	return t
}

// Text is operation i on one line. Precondition: 0 <= i < Len().
func (p *Program) Text(i int) string { return p.printer().text(i) }

// printer is a program with what is in its data.
type printer struct {
	*Program
	strings map[uint32]string // by offset
	words   map[uint32]uint32 // pointers, by offset
}

func (p *Program) printer() *printer {
	pr := &printer{
		p, make(map[uint32]string, len(p.strs)), make(map[uint32]uint32, len(p.img.ptrs)),
	}
	for s, at := range p.strs {
		pr.strings[at.off] = s
	}
	for _, ptr := range p.img.ptrs {
		pr.words[ptr.at] = ptr.to
	}
	return pr
}

func (p *printer) text(i int) string {
	op := p.Op(i)
	switch op.Code {
	case Jump:
		if op.Cond == Equal && op.Args[0] == Num(0) && op.Args[1] == Num(0) &&
			op.Args[2] == Num(0) {
			return "goto " + place(op.Target)
		}
		v := p.value(op.Args[0])
		if mask := op.Args[1].Value; mask != ^uint64(0) {
			v = fmt.Sprintf("%s & %#x", v, mask)
		}
		return fmt.Sprintf(
			"if %s %s %s goto %s", v, [...]string{"==", "!=", "<", ">="}[op.Cond],
			p.value(op.Args[2]), place(op.Target),
		)
	case ALU:
		dst := "report"
		if op.Dst.off != reportCell {
			dst = cellText(uint64(op.Dst.off))
		}
		if op.Cond == Move {
			return dst + " = " + p.value(op.Args[0])
		}
		sign := map[Cond]string{
			Add: "+", Sub: "-", And: "&", Or: "|", ShiftL: "<<", ShiftR: ">>",
		}[op.Cond]
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
		if op.OnError != i+1 {
			s += " goto " + place(op.OnError)
		}
	}
	return s
}

func place(i int) string { return "L" + strconv.Itoa(i) }

func cellText(off uint64) string { return "$" + strconv.FormatUint(off/8, 10) }

func errnoText(a Arg) string {
	if a.Kind == Imm {
		return ErrnoName(uint16(a.Value))
	}
	return cellText(a.Value)
}

// value prints an argument without knowing what it is for.
func (p *printer) value(a Arg) string {
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
		return "<" + p.img.inputs[a.Value] + ">"
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

// pointer prints what is at an offset of the data: a string, an array of strings, a described
// structure, or the place.
func (p *printer) pointer(off uint32) string {
	if note, ok := p.notes[off]; ok {
		return note
	}
	if text, ok := p.strings[off]; ok {
		return strconv.Quote(text)
	}
	if list := p.stringArray(off); len(list) > 0 {
		return "[" + strings.Join(list, " ") + "]"
	}
	return fmt.Sprintf("&$%d", off/8)
}

// stringArray lists the strings that a NULL-terminated array at an offset points to; nil if that is
// no such array.
func (p *printer) stringArray(off uint32) (list []string) {
	for ; ; off += 8 {
		target, ok := p.words[off]
		if !ok {
			return list
		}
		text, ok := p.strings[target]
		if !ok {
			return nil
		}
		list = append(list, strconv.Quote(text))
	}
}
