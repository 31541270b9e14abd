//go:build linux

package kernel

import (
	"errors"
	"iter"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/weir-policy/weir/enforcer/nft"
)

// chunk is how many elements a message may have: netlink counts their bytes in 16
// bits, and what is beyond gets lost without a word. The largest have 130 of them.
const chunk = 300

func (t *transaction) addCounter(name string) {
	t.conn.AddObject(&nftables.CounterObj{Table: t.table, Name: name})
}

func (t *transaction) addChain(c *nft.Chain) {
	chain := &nftables.Chain{Table: t.table, Name: c.Name}
	if c.Hook != "" {
		accept := nftables.ChainPolicyAccept
		chain.Type, chain.Policy = nftables.ChainTypeFilter, &accept
		chain.Hooknum, chain.Priority = nftables.ChainHookForward, nftables.ChainPriorityRef(nft.Priority)
		if c.Hook == "input" {
			chain.Hooknum = nftables.ChainHookInput
		}
	}
	t.conn.AddChain(chain)
}

func (t *transaction) flush(chain string) {
	t.conn.FlushChain(&nftables.Chain{Table: t.table, Name: chain})
}

var dataTypes = [...]nftables.SetDatatype{
	nft.IPv4: nftables.TypeIPAddr, nft.IPv6: nftables.TypeIP6Addr,
	nft.Protocol: nftables.TypeInetProto, nft.Port: nftables.TypeInetService,
	nft.ICMPType: nftables.TypeICMPType, nft.ICMPCode: nftables.TypeICMPCode,
	nft.ICMPv6Type: nftables.TypeICMP6Type, nft.ICMPv6Code: nftables.TypeICMPV6Code,
	nft.Class: nftables.TypeClassID,
}

// setOf returns a set as the library has it, without its elements.
func (t *transaction) setOf(s *nft.Set) *nftables.Set {
	set := &nftables.Set{
		Table: t.table, Name: t.nameOf(s.Name), KeyType: dataTypes[s.Key[0]], KeyByteOrder: binaryutil.BigEndian,
		IsMap: s.Map || s.Classes, Interval: s.Interval, Concatenation: len(s.Key) > 1,
	}
	switch {
	case s.Map:
		set.DataType = nftables.TypeVerdict
	case s.Classes:
		set.DataType = nftables.TypeClassID
	}
	if s.Key[0] == nft.Class {
		set.KeyByteOrder = binaryutil.NativeEndian
	}
	if len(s.Key) > 1 {
		var all []nftables.SetDatatype
		for _, k := range s.Key {
			all = append(all, dataTypes[k])
		}
		set.KeyType = nftables.MustConcatSetType(all...)
	}
	return set
}

func (t *transaction) addSet(s *nft.Set) {
	set := t.setOf(s)
	t.try(t.conn.AddSet(set, nil))
	t.each(s, s.All(), func(some []nftables.SetElement) error { return t.conn.SetAddElements(set, some) })
}

// update takes elements away before it adds others: some only get another verdict.
func (t *transaction) update(u *nft.Update) {
	set := t.setOf(&u.Set)
	t.each(&u.Set, slices.Values(u.Delete), func(some []nftables.SetElement) error { return t.conn.SetDeleteElements(set, some) })
	t.each(&u.Set, slices.Values(u.Add), func(some []nftables.SetElement) error { return t.conn.SetAddElements(set, some) })
}

func (t *transaction) each(s *nft.Set, all iter.Seq[nft.Element], do func([]nftables.SetElement) error) {
	some := make([]nftables.SetElement, 0, chunk)
	for e := range all {
		if some = appendElement(some, s, e); len(some) >= chunk-1 { // a range is two
			t.try(do(some))
			some = some[:0]
		}
	}
	if len(some) > 0 {
		t.try(do(some))
	}
}

func (t *transaction) try(err error) {
	if t.err == nil {
		t.err = err
	}
}

// appendElement appends an element as the library has it. A range of single keys is two:
// its first key, and the first one behind it.
func appendElement(to []nftables.SetElement, s *nft.Set, e nft.Element) []nftables.SetElement {
	x := nftables.SetElement{Key: []byte(e.First)}
	switch {
	case s.Map:
		x.VerdictData = verdictOf(e.To)
	case s.Classes:
		x.Val = binaryutil.NativeEndian.PutUint32(e.Class)
	}
	if s.Interval && len(s.Key) > 1 {
		x.KeyEnd = []byte(e.Last)
	}
	to = append(to, x)
	if s.Interval && len(s.Key) == 1 {
		if after, ok := next(e.Last); ok {
			to = append(to, nftables.SetElement{Key: after, IntervalEnd: true})
		}
	}
	return to
}

// sizeOf returns how many elements the kernel counts in a set.
func sizeOf(s *nft.Set) int {
	n := s.Len()
	if s.Interval && len(s.Key) == 1 {
		for _, e := range s.Elements {
			if _, ok := next(e.Last); ok {
				n++
			}
		}
	}
	return n
}

// next returns the key behind one; not ok where that is the last.
func next(key string) ([]byte, bool) {
	after := []byte(key)
	for i := len(after) - 1; i >= 0; i-- {
		after[i]++
		if after[i] != 0 {
			return after, true
		}
	}
	return nil, false
}

var verdicts = [...]expr.VerdictKind{
	nft.Drop: expr.VerdictDrop, nft.Accept: expr.VerdictAccept, nft.Return: expr.VerdictReturn,
	nft.Jump: expr.VerdictJump, nft.Goto: expr.VerdictGoto,
}

func verdictOf(v nft.Verdict) *expr.Verdict {
	return &expr.Verdict{Kind: verdicts[v.Action], Chain: v.Chain}
}

func (t *transaction) addRules(c *nft.Chain) {
	for _, r := range c.Rules {
		exprs, err := t.ruleOf(r)
		t.try(err)
		t.conn.AddRule(&nftables.Rule{Table: t.table, Chain: &nftables.Chain{Table: t.table, Name: c.Name}, Exprs: exprs})
	}
}

// ruleOf returns a rule as the library has it.
func (t *transaction) ruleOf(r nft.Rule) ([]expr.Any, error) {
	var all []expr.Any
	for _, s := range r {
		switch s := s.(type) {
		case nft.Established:
			all = append(all, established()...)
		case nft.Labelled:
			all = append(all, labelled(nft.Bit(s.Bit))...)
		case nft.In:
			all = append(all, load(s.Fields)...)
			all = append(all, &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: t.nameOf(s.Set)})
		case nft.Dispatch:
			all = append(all, load(s.Fields)...)
			all = append(all, &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: t.nameOf(s.Map), IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT})
		case nft.Classify:
			all = append(all, load(s.Fields)...)
			all = append(all,
				&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: t.nameOf(s.Map), IsDestRegSet: true, DestRegister: unix.NFT_REG_1},
				&expr.Meta{Key: expr.MetaKeyPRIORITY, Register: unix.NFT_REG_1, SourceRegister: true})
		case nft.Declassify:
			all = append(all,
				&expr.Immediate{Register: unix.NFT_REG_1, Data: make([]byte, 4)},
				&expr.Meta{Key: expr.MetaKeyPRIORITY, Register: unix.NFT_REG_1, SourceRegister: true})
		case nft.Count:
			all = append(all, &expr.Objref{Type: int(nftables.ObjTypeCounter), Name: s.Counter})
		case nft.Label:
			all = append(all,
				&expr.Immediate{Register: unix.NFT_REG_1, Data: s.Bits[:]},
				&expr.Ct{Key: expr.CtKeyLABELS, Register: unix.NFT_REG_1, SourceRegister: true})
		case nft.Log:
			all = append(all,
				&expr.Limit{Type: expr.LimitTypePkts, Rate: s.PerSecond, Unit: expr.LimitTimeSecond, Burst: uint32(s.PerSecond)},
				&expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX, Group: s.Group, Data: []byte(s.Prefix)})
		case nft.Verdict:
			all = append(all, verdictOf(s))
		default:
			return nil, errors.New("statement " + s.String() + " is not known here")
		}
	}
	return all, nil
}

func established() []expr.Any {
	states := binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: unix.NFT_REG_1},
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4, Mask: states, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: make([]byte, 4)},
	}
}

func labelled(bits nft.Bits) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyLABELS, Register: unix.NFT_REG_1},
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 16, Mask: bits[:], Xor: make([]byte, 16)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: make([]byte, 16)},
	}
}

// field is where a field is in a packet, and of what packets.
type field struct {
	base        expr.PayloadBase
	offset, len uint32
	family      byte // 0 for both
	protocol    byte // 0 for all
}

var fields = [...]field{
	nft.Source4:         {expr.PayloadBaseNetworkHeader, 12, 4, unix.NFPROTO_IPV4, 0},
	nft.Destination4:    {expr.PayloadBaseNetworkHeader, 16, 4, unix.NFPROTO_IPV4, 0},
	nft.Source6:         {expr.PayloadBaseNetworkHeader, 8, 16, unix.NFPROTO_IPV6, 0},
	nft.Destination6:    {expr.PayloadBaseNetworkHeader, 24, 16, unix.NFPROTO_IPV6, 0},
	nft.FieldProtocol:   {len: 1},
	nft.FieldClass:      {len: 4},
	nft.DestinationPort: {expr.PayloadBaseTransportHeader, 2, 2, 0, 0},
	nft.FieldICMPType:   {expr.PayloadBaseTransportHeader, 0, 1, unix.NFPROTO_IPV4, unix.IPPROTO_ICMP},
	nft.FieldICMPCode:   {expr.PayloadBaseTransportHeader, 1, 1, unix.NFPROTO_IPV4, unix.IPPROTO_ICMP},
	nft.FieldICMPv6Type: {expr.PayloadBaseTransportHeader, 0, 1, unix.NFPROTO_IPV6, unix.IPPROTO_ICMPV6},
	nft.FieldICMPv6Code: {expr.PayloadBaseTransportHeader, 1, 1, unix.NFPROTO_IPV6, unix.IPPROTO_ICMPV6},
}

// load puts fields into the registers from the first on, one behind the other. Packets
// that have no such fields match nothing.
func load(all []nft.Field) []expr.Any {
	var needs, loads []expr.Any
	var family, protocol byte
	register := uint32(unix.NFT_REG32_00)
	if len(all) == 1 {
		register = unix.NFT_REG_1
	}
	for _, f := range all {
		at := fields[f]
		family, protocol = max(family, at.family), max(protocol, at.protocol)
		switch f {
		case nft.FieldProtocol:
			loads = append(loads, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register})
		case nft.FieldClass:
			loads = append(loads, &expr.Meta{Key: expr.MetaKeyPRIORITY, Register: register})
		default:
			loads = append(loads, &expr.Payload{DestRegister: register, Base: at.base, Offset: at.offset, Len: at.len})
		}
		register += (at.len + 3) / 4
	}
	need := func(key expr.MetaKey, value byte) {
		if value != 0 {
			needs = append(needs,
				&expr.Meta{Key: key, Register: unix.NFT_REG_1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{value}})
		}
	}
	need(expr.MetaKeyNFPROTO, family)
	need(expr.MetaKeyL4PROTO, protocol)
	return append(needs, loads...)
}
