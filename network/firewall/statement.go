package firewall

import (
	"encoding/binary"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// statement is one part of a rule.
type statement struct {
	text  string
	exprs []expr.Any
}

// rule joins statements.
func rule(parts ...statement) Rule {
	var r Rule
	texts := make([]string, len(parts))
	for i, p := range parts {
		texts[i] = p.text
		r.exprs = append(r.exprs, p.exprs...)
	}
	r.Text = strings.Join(texts, " ")
	return r
}

type membership bool

const (
	in    membership = false
	notIn membership = true
)

// iface matches the name of an interface against a set.
func iface(key expr.MetaKey, text, set string, m membership) statement {
	op := " @"
	if m == notIn {
		op = " != @"
	}
	return statement{text + op + set, []expr.Any{
		&expr.Meta{Key: key, Register: reg0},
		&expr.Lookup{SourceRegister: reg0, SetName: set, Invert: bool(m)},
	}}
}

// pair matches the incoming and the outgoing interface against a set of pairs. An interface name
// takes four registers.
func pair(set string) statement {
	return statement{"iifname . oifname @" + set, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg0},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg0 + 4},
		&expr.Lookup{SourceRegister: reg0, SetName: set},
	}}
}

// near matches packets that go to a bridge from an address behind the same bridge.
func near(set string) statement {
	text, proto, offset, length := "ip saddr", byte(unix.NFPROTO_IPV4), uint32(12), uint32(4)
	if set == setNear6 {
		text, proto, offset, length = "ip6 saddr", unix.NFPROTO_IPV6, 8, 16
	}
	return statement{"oifname . " + text + " @" + set, append(family(proto),
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg0},
		&expr.Payload{
			DestRegister: reg0 + 4, Base: expr.PayloadBaseNetworkHeader, Offset: offset,
			Len: length,
		},
		&expr.Lookup{SourceRegister: reg0, SetName: set},
	)}
}

// family matches IPv4 or IPv6 packets.
func family(proto byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg0},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: []byte{proto}},
	}
}

// prefix4 matches the address at offset in the IPv4 header against 127.0.0.0/8.
func prefix4(field string, offset uint32) statement {
	return statement{"ip " + field + " 127.0.0.0/8", append(family(unix.NFPROTO_IPV4),
		&expr.Payload{
			DestRegister: reg0, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 1,
		},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: []byte{127}},
	)}
}

// loopback6 matches packets to ::1.
func loopback6() statement {
	return statement{"ip6 daddr ::1", append(family(unix.NFPROTO_IPV6),
		&expr.Payload{DestRegister: reg0, Base: expr.PayloadBaseNetworkHeader, Offset: 24, Len: 16},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: append(make([]byte, 15), 1)},
	)}
}

// notLocal matches packets to addresses that are not this host's.
func notLocal() statement {
	return statement{"fib daddr type != local", []expr.Any{
		&expr.Fib{Register: reg0, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: native(unix.RTN_LOCAL)},
	}}
}

// ctBits matches when one of bits is set in what connection tracking knows of the packet.
func ctBits(key expr.CtKey, text string, bits uint32) statement {
	return statement{text, []expr.Any{
		&expr.Ct{Key: key, Register: reg0},
		&expr.Bitwise{
			SourceRegister: reg0, DestRegister: reg0, Len: 4, Mask: native(bits), Xor: native(0),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: native(0)},
	}}
}

// publishedPort translates the destination by a map of published ports.
func publishedPort(name string) statement {
	var (
		proto          = byte(unix.NFPROTO_IPV4)
		text           = "dnat ip to meta l4proto . ip daddr . th dport map @"
		offset, length = uint32(16), uint32(4)
		words          = uint32(1)
	)
	if name == mapPorts6 || name == mapPorts6Any {
		proto, text = unix.NFPROTO_IPV6, "dnat ip6 to meta l4proto . ip6 daddr . th dport map @"
		offset, length, words = 24, 16, 4
	}
	next := uint32(reg0 + 1)
	exprs := append(family(proto), &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg0})
	if name == mapPorts4 || name == mapPorts6 {
		exprs = append(
			exprs,
			&expr.Payload{
				DestRegister: next, Base: expr.PayloadBaseNetworkHeader, Offset: offset,
				Len: length,
			},
		)
		next += words
	} else {
		text = strings.Replace(strings.Replace(text, "ip daddr . ", "", 1), "ip6 daddr . ", "", 1)
	}
	exprs = append(exprs,
		&expr.Payload{DestRegister: next, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: reg0, DestRegister: reg0, IsDestRegSet: true, SetName: name},
		&expr.NAT{
			Type: expr.NATTypeDestNAT, Family: uint32(proto), RegAddrMin: reg0, RegAddrMax: reg0,
			RegProtoMin: reg0 + words, RegProtoMax: reg0 + words, Specified: true,
		},
	)
	return statement{text + name, exprs}
}

func masquerade() statement {
	return statement{"masquerade", []expr.Any{&expr.Masq{}}}
}

func verdict(kind expr.VerdictKind) statement {
	text := map[expr.VerdictKind]string{
		expr.VerdictAccept: "accept", expr.VerdictDrop: "drop", expr.VerdictReturn: "return",
	}[kind]
	return statement{text, []expr.Any{&expr.Verdict{Kind: kind}}}
}

// native is a 32-bit number in host byte order, as registers hold them.
func native(v uint32) []byte {
	return binary.NativeEndian.AppendUint32(nil, v)
}
