package firewall

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// operand is what a register was loaded with.
type operand struct {
	text  string
	reg   uint32 // first 32-bit register
	words uint32
}

// decompiler turns a rule's expressions as the kernel returns them into text. It is written from
// nft(8) and the kernel's headers, not from what compiles the rules.
type decompiler struct {
	family  byte
	loaded  []operand
	mapped  string // key and name of a map whose value the next translation takes
	mapReg  uint32
	clauses []string
}

func decompile(exprs []expr.Any) string {
	d := &decompiler{}
	for _, e := range exprs {
		d.step(e)
	}
	if len(d.loaded) > 0 || d.mapped != "" {
		d.say("(loaded and not used: %v %s)", d.loaded, d.mapped)
	}
	return strings.Join(d.clauses, " ")
}

func (d *decompiler) say(format string, args ...any) {
	d.clauses = append(d.clauses, fmt.Sprintf(format, args...))
}

// register numbers 32-bit registers from 0. The kernel returns a register that starts at a multiple
// of 16 bytes by its old name, NFT_REG_1 to NFT_REG_4.
func register(r uint32) uint32 {
	if r >= unix.NFT_REG32_00 {
		return r - unix.NFT_REG32_00
	}
	return (r - 1) * 4
}

func (d *decompiler) load(text string, reg, words uint32) {
	d.loaded = append(d.loaded, operand{text, register(reg), words})
}

// key takes what was loaded as one key: its parts lie in consecutive registers from reg on.
func (d *decompiler) key(reg uint32) string {
	var parts []string
	at := register(reg)
	for _, o := range d.loaded {
		if o.reg != at {
			return fmt.Sprintf("(key has %v, wants register %d)", d.loaded, at)
		}
		at += o.words
		parts = append(parts, o.text)
	}
	d.loaded = nil
	return strings.Join(parts, " . ")
}

func (d *decompiler) step(e expr.Any) {
	switch e := e.(type) {
	case *expr.Meta:
		d.meta(e)
	case *expr.Payload:
		d.payload(e)
	case *expr.Cmp:
		d.compare(e)
	case *expr.Fib:
		if e.FlagDADDR && e.ResultADDRTYPE && !e.FlagSADDR {
			d.load("fib daddr type", e.Register, 1)
		}
	case *expr.Ct:
		d.load(map[expr.CtKey]string{
			expr.CtKeySTATE: "ct state", expr.CtKeySTATUS: "ct status",
		}[e.Key], e.Register, 1)
	case *expr.Bitwise:
		d.mask(e)
	case *expr.Lookup:
		d.lookup(e)
	case *expr.NAT:
		d.translate(e)
	case *expr.Masq:
		d.say("masquerade")
	case *expr.Verdict:
		d.say("%s", map[expr.VerdictKind]string{
			expr.VerdictAccept: "accept", expr.VerdictDrop: "drop", expr.VerdictReturn: "return",
		}[e.Kind])
	default:
		d.say("(%T)", e)
	}
}

func (d *decompiler) meta(e *expr.Meta) {
	words := uint32(1)
	text := ""
	switch e.Key {
	case expr.MetaKeyIIFNAME:
		text, words = "iifname", unix.IFNAMSIZ/4
	case expr.MetaKeyOIFNAME:
		text, words = "oifname", unix.IFNAMSIZ/4
	case expr.MetaKeyNFPROTO:
		text = "meta nfproto"
	case expr.MetaKeyL4PROTO:
		text = "meta l4proto"
	}
	d.load(text, e.Register, words)
}

// payload reads offsets of RFC 791 and RFC 8200; the family is known by then.
func (d *decompiler) payload(e *expr.Payload) {
	type field struct {
		base           expr.PayloadBase
		family         byte
		offset, length uint32
	}
	text := map[field]string{
		{expr.PayloadBaseNetworkHeader, unix.NFPROTO_IPV4, 12, 4}:  "ip saddr",
		{expr.PayloadBaseNetworkHeader, unix.NFPROTO_IPV4, 16, 4}:  "ip daddr",
		{expr.PayloadBaseNetworkHeader, unix.NFPROTO_IPV4, 12, 1}:  "ip saddr/8",
		{expr.PayloadBaseNetworkHeader, unix.NFPROTO_IPV4, 16, 1}:  "ip daddr/8",
		{expr.PayloadBaseNetworkHeader, unix.NFPROTO_IPV6, 8, 16}:  "ip6 saddr",
		{expr.PayloadBaseNetworkHeader, unix.NFPROTO_IPV6, 24, 16}: "ip6 daddr",
	}[field{e.Base, d.family, e.Offset, e.Len}]
	if e.Base == expr.PayloadBaseTransportHeader && e.Offset == 2 && e.Len == 2 {
		text = "th dport"
	}
	if text == "" {
		text = fmt.Sprintf("(payload %+v)", *e)
	}
	d.load(text, e.DestRegister, (e.Len+3)/4)
}

func (d *decompiler) compare(e *expr.Cmp) {
	what := d.key(e.Register)
	equal := map[expr.CmpOp]bool{expr.CmpOpEq: true, expr.CmpOpNeq: false}[e.Op]
	switch {
	case what == "meta nfproto" && equal:
		d.family = e.Data[0]
	case strings.HasSuffix(what, "/8") && equal:
		d.say("%s %d.0.0.0/8", strings.TrimSuffix(what, "/8"), e.Data[0])
	case strings.HasPrefix(what, "ip6 ") && equal:
		a, _ := netip.AddrFromSlice(e.Data)
		d.say("%s %s", what, a)
	case what == "fib daddr type" && !equal && binary.NativeEndian.Uint32(e.Data) == unix.RTN_LOCAL:
		d.say("%s != local", what)
	case strings.HasPrefix(what, "ct ") && !equal && binary.NativeEndian.Uint32(e.Data) == 0:
		d.say("%s", what)
	default:
		d.say("(%s %v %x)", what, e.Op, e.Data)
	}
}

// mask names the bits that are asked of connection tracking: NF_CT_STATE_BIT of the kernel's
// include/net/netfilter/nf_conntrack.h, IPS_DST_NAT of nf_conntrack_common.h.
func (d *decompiler) mask(e *expr.Bitwise) {
	if len(d.loaded) != 1 || len(e.Mask) != 4 || binary.NativeEndian.Uint32(e.Xor) != 0 ||
		register(e.SourceRegister) != d.loaded[0].reg || e.SourceRegister != e.DestRegister {
		d.say("(mask %+v)", *e)
		return
	}
	names := map[string]map[uint32]string{
		"ct state":  {1: "invalid", 2: "established", 4: "related", 8: "new"},
		"ct status": {16: "snat", 32: "dnat"},
	}[d.loaded[0].text]
	var set []string
	for left := binary.NativeEndian.Uint32(e.Mask); left != 0; left &= left - 1 {
		name := names[left&-left]
		if name == "" {
			name = fmt.Sprintf("(bit %#x)", left&-left)
		}
		set = append(set, name)
	}
	slices.Sort(set)
	d.loaded[0].text += " " + strings.Join(set, ",")
}

func (d *decompiler) lookup(e *expr.Lookup) {
	key := d.key(e.SourceRegister)
	switch {
	case e.IsDestRegSet:
		d.mapped, d.mapReg = key+" map @"+e.SetName, register(e.DestRegister)
	case e.Invert:
		d.say("%s != @%s", key, e.SetName)
	default:
		d.say("%s @%s", key, e.SetName)
	}
}

// translate reads a destination translation whose address and port come from a map.
func (d *decompiler) translate(e *expr.NAT) {
	name, words := "ip", uint32(1)
	if e.Family == unix.NFPROTO_IPV6 {
		name, words = "ip6", 4
	}
	if e.Type != expr.NATTypeDestNAT || byte(e.Family) != d.family || d.mapped == "" ||
		register(e.RegAddrMin) != d.mapReg || register(e.RegProtoMin) != d.mapReg+words {
		d.say("(nat %+v of %q at %d)", *e, d.mapped, d.mapReg)
		return
	}
	d.say("dnat %s to %s", name, d.mapped)
	d.mapped = ""
}
