package simulator

import (
	"encoding/binary"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// appendRow appends a row as readRow reads it, in the same process: what either
// writes is nobody else's format.
func appendRow(b []byte, r *row) []byte {
	p := packer(b)
	p.name(r.from)
	p.name(r.to)
	p.text(r.cause)
	p.bytes(r.outcome, uint8(r.protocol), uint8(r.recorded), uint8(r.before), uint8(r.after))
	p.numbers(uint64(r.port), r.flows, r.bytes)
	p.span(r.seen)
	p.example(r.example)
	return p
}

func readRow(b []byte) (row, error) {
	u := unpacker{left: b}
	var r row
	r.from, r.to, r.cause = u.name(), u.name(), u.text()
	r.outcome, r.protocol, r.recorded = u.byte(), netset.Protocol(u.byte()), policies.Verdict(u.byte())
	r.before, r.after = policies.Verdict(u.byte()), policies.Verdict(u.byte())
	r.port, r.flows, r.bytes, r.seen = uint16(u.number()), u.number(), u.number(), u.span()
	r.example = u.example()
	return r, u.done()
}

// appendPart appends a part as readPart reads it.
func appendPart(b []byte, of *part) []byte {
	p := packer(b)
	p.owner(&of.owner)
	p.flags(of.pairs != nil, of.example != nil, of.key.half)
	if of.pairs != nil {
		p.pairing(of.pairs)
		return p
	}
	p.bytes(uint8(of.key.verdict))
	p.address(of.key.from)
	p.address(of.key.to)
	p.numbers(of.flows, of.bytes)
	p.span(of.seen)
	if of.example != nil {
		p.example(of.example)
	}
	return p
}

func (r *Replayer) readPart(b []byte) (part, error) {
	u := unpacker{left: b}
	of := part{owner: u.owner(r)}
	is := u.flags()
	if is[0] {
		of.pairs = u.pairing()
		return of, u.done()
	}
	of.key = tallyKey{kind: kind{policies.Verdict(u.byte()), is[2]}, from: u.address(), to: u.address()}
	of.flows, of.bytes, of.seen = u.number(), u.number(), u.span()
	if is[1] {
		of.example = u.example()
		f := of.example.flow()
		of.example.from, of.example.to = r.find(&f.From), r.find(&f.To)
	}
	return of, u.done()
}

// appendPaired appends a tuple as readPaired reads it.
func appendPaired(b []byte, of *paired) []byte {
	p := packer(b)
	p.owner(&of.owner)
	p.numbers(of.tuple)
	p.bytes(uint8(of.by))
	return p
}

func (r *Replayer) readPaired(b []byte) (paired, error) {
	u := unpacker{left: b}
	of := paired{owner: u.owner(r), tuple: u.number(), by: sides(u.byte())}
	return of, u.done()
}

func appendWant(b []byte, w *want) []byte {
	p := packer(b)
	p.signed(w.day)
	p.numbers(w.tuple)
	p.signed(w.at.second)
	p.signed(int64(w.at.nanos))
	return p
}

func readWant(b []byte) (want, error) {
	u := unpacker{left: b}
	w := want{day: u.signed(), tuple: u.number(), at: moment{u.signed(), int32(u.signed())}}
	return w, u.done()
}

func appendID(b []byte, id *uint64) []byte { return binary.BigEndian.AppendUint64(b, *id) }

func readID(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, errUnpacked
	}
	return binary.BigEndian.Uint64(b), nil
}

// packer writes values one after another.
type packer []byte

func (p *packer) bytes(all ...uint8) { *p = append(*p, all...) }

func (p *packer) numbers(all ...uint64) {
	for _, n := range all {
		*p = binary.AppendUvarint(*p, n)
	}
}

func (p *packer) signed(n int64) { *p = binary.AppendVarint(*p, n) }

func (p *packer) flags(all ...bool) {
	var bits uint8
	for i, is := range all {
		if is {
			bits |= 1 << i
		}
	}
	p.bytes(bits)
}

func (p *packer) text(text string) {
	p.numbers(uint64(len(text)))
	*p = append(*p, text...)
}

func (p *packer) texts(all []string) {
	p.numbers(uint64(len(all)))
	for _, text := range all {
		p.text(text)
	}
}

func (p *packer) address(a netip.Addr) {
	text, _ := a.MarshalBinary() // which has no errors
	p.text(string(text))
}

func (p *packer) prefix(of netip.Prefix) {
	p.address(of.Addr())
	p.signed(int64(of.Bits()))
}

func (p *packer) span(s span) {
	p.signed(s.first)
	p.signed(s.last)
	p.numbers(uint64(s.firstNanos), uint64(s.lastNanos))
}

func (p *packer) ref(r policies.Ref) {
	p.text(r.Kind)
	p.text(r.Namespace)
	p.text(r.Name)
}

func (p *packer) name(of *policies.Peer) {
	p.text(of.Namespace)
	p.text(of.Name)
	p.text(of.Kind)
	p.text(of.Pod)
	p.flags(of.CIDR != nil)
	if of.CIDR != nil {
		p.prefix(*of.CIDR)
	}
	p.numbers(uint64(len(of.Except)))
	for _, except := range of.Except {
		p.prefix(except)
	}
}

func (p *packer) end(of *policies.FlowPeer) {
	p.text(of.Namespace)
	p.text(of.Pod)
	p.text(of.PodPrefix)
	p.numbers(uint64(len(of.Workloads)))
	for _, w := range of.Workloads {
		p.ref(w)
	}
	p.flags(of.Labels != nil, of.LabelsPartial, of.Outside, of.Host, of.OwnNode)
	p.numbers(uint64(len(of.Labels)))
	for _, key := range slices.Sorted(maps.Keys(of.Labels)) {
		p.text(key)
		p.text(of.Labels[key])
	}
	p.address(of.Address)
	p.ref(of.Set)
	p.bytes(uint8(of.Network))
	p.texts(of.Names)
}

func (p *packer) example(e *example) {
	p.span(e.seen)
	p.end(&e.from.peer)
	p.end(&e.to.peer)
	p.flags(e.addresses != nil, e.egressOnly, e.onlyOfRecords != nil, e.onlyOfFiles != nil)
	p.bytes(uint8(e.protocol), uint8(e.verdict), uint8(e.reporter))
	p.numbers(e.count, e.bytes, uint64(e.port), uint64(e.sourcePort))
	if e.addresses != nil {
		p.address(e.addresses[0])
		p.address(e.addresses[1])
	}
	if more := e.onlyOfRecords; more != nil {
		p.numbers(more.packets, more.replyBytes, more.replyPackets, uint64(len(more.hits)))
		for i := range more.hits {
			h := &more.hits[i]
			p.text(h.Tier)
			p.ref(h.Policy)
			p.bytes(uint8(h.Action))
			p.signed(int64(h.Rule))
			p.flags(h.Staged)
		}
		p.text(more.format)
		p.signed(int64(more.window))
	}
	if more := e.onlyOfFiles; more != nil {
		p.texts(more.names[0])
		p.texts(more.names[1])
		p.text(more.place.File)
		p.signed(int64(more.place.Line))
		p.signed(int64(more.place.Column))
	}
}

func (p *packer) owner(o *owner) {
	p.flags(o.named != nil, o.leaves)
	if n := o.named; n != nil {
		p.text(n.cause)
		p.texts([]string{n.from.namespace, n.from.name, n.to.namespace, n.to.name})
		p.bytes(uint8(n.protocol))
		p.numbers(uint64(n.port))
		return
	}
	p.numbers(uint64(o.from), uint64(o.to), uint64(o.port))
	p.bytes(uint8(o.protocol))
	for _, is := range [...]*ruling{o.before, o.after} {
		p.bytes(uint8(is.verdict))
		p.text(is.cause)
	}
}

// pairing appends what is counted of each hour, of which most days have few.
func (p *packer) pairing(of *pairing) {
	p.numbers(of.settled)
	p.signed(of.left.hour)
	p.numbers(of.left.counts[:]...)
	for hour, counts := range of.hours(of.days) {
		p.signed(hour)
		p.numbers(counts[:]...)
	}
}

// unpacker reads what a packer wrote.
type unpacker struct {
	left []byte
	bad  bool
}

var errUnpacked = errors.New("what did not fit in memory was read otherwise than it was written")

func (u *unpacker) done() error {
	if u.bad || len(u.left) > 0 {
		return errUnpacked
	}
	return nil
}

func (u *unpacker) take(n int) []byte {
	if n < 0 || n > len(u.left) {
		u.left, u.bad = nil, true
		return make([]byte, 1)
	}
	taken := u.left[:n]
	u.left = u.left[n:]
	return taken
}

func (u *unpacker) byte() uint8 { return u.take(1)[0] }

func (u *unpacker) number() uint64 {
	n, size := binary.Uvarint(u.left)
	u.take(max(size, 1))
	return n
}

func (u *unpacker) signed() int64 {
	n, size := binary.Varint(u.left)
	u.take(max(size, 1))
	return n
}

func (u *unpacker) flags() (is [8]bool) {
	bits := u.byte()
	for i := range is {
		is[i] = bits>>i&1 == 1
	}
	return is
}

func (u *unpacker) owner(r *Replayer) (o owner) {
	is := u.flags()
	if is[0] {
		n := &namedConnection{cause: u.text()}
		texts := listOf(u, u.text)
		if len(texts) != 4 {
			u.bad = true
			return o
		}
		n.from, n.to = endName{texts[0], texts[1]}, endName{texts[2], texts[3]}
		n.protocol, n.port = netset.Protocol(u.byte()), uint16(u.number())
		return owner{named: n}
	}
	o.leaves = is[1]
	o.from, o.to, o.port = int32(u.number()), int32(u.number()), uint16(u.number())
	o.protocol = netset.Protocol(u.byte())
	for _, to := range [...]**ruling{&o.before, &o.after} {
		*to = r.ruling(ruling{policies.Verdict(u.byte()), u.text()})
	}
	return o
}

// pairing reads one to the end.
func (u *unpacker) pairing() *pairing {
	p := &pairing{settled: u.number(), left: remains{hour: u.signed(), counts: [2]uint64{u.number(), u.number()}}}
	for len(u.left) > 0 && !u.bad {
		hour := u.signed()
		for s := range p.left.counts {
			if flows := u.number(); flows > 0 {
				p.addHours(side(s), []HourFlows{{hour, flows}})
			}
		}
	}
	return p
}

// length returns how many of something there are, each of which takes a byte at least.
func (u *unpacker) length() int {
	n := u.number()
	if n > uint64(len(u.left)) {
		u.left, u.bad = nil, true
		return 0
	}
	return int(n)
}

func (u *unpacker) text() string {
	if n := u.length(); n > 0 {
		return string(u.take(n))
	}
	return ""
}

// listOf reads as many values as it is said that there are; nil where there are none.
func listOf[T any](u *unpacker, one func() T) (all []T) {
	n := u.length()
	if n > 0 {
		all = make([]T, 0, n)
	}
	for range n {
		all = append(all, one())
	}
	return all
}

func (u *unpacker) address() (a netip.Addr) {
	text := u.take(u.length())
	u.bad = a.UnmarshalBinary(text) != nil || u.bad
	return a
}

func (u *unpacker) prefix() netip.Prefix { return netip.PrefixFrom(u.address(), int(u.signed())) }

func (u *unpacker) span() span {
	return span{u.signed(), u.signed(), int32(u.number()), int32(u.number())}
}

func (u *unpacker) ref() policies.Ref {
	return policies.Ref{Kind: u.text(), Namespace: u.text(), Name: u.text()}
}

func (u *unpacker) name() *policies.Peer {
	p := &policies.Peer{Namespace: u.text(), Name: u.text(), Kind: u.text(), Pod: u.text()}
	if u.flags()[0] {
		of := u.prefix()
		p.CIDR = &of
	}
	p.Except = listOf(u, u.prefix)
	return p
}

func (u *unpacker) end() policies.FlowPeer {
	p := policies.FlowPeer{Namespace: u.text(), Pod: u.text(), PodPrefix: u.text(), Workloads: listOf(u, u.ref)}
	is := u.flags()
	if is[0] {
		p.Labels = map[string]string{}
	}
	p.LabelsPartial, p.Outside, p.Host, p.OwnNode = is[1], is[2], is[3], is[4]
	for range u.length() {
		key := u.text()
		value := u.text()
		if p.Labels != nil {
			p.Labels[key] = value
		}
	}
	p.Address, p.Set, p.Network, p.Names = u.address(), u.ref(), policies.Network(u.byte()), listOf(u, u.text)
	return p
}

func (u *unpacker) example() *example {
	e := &example{seen: u.span(), from: &recorded{peer: u.end()}, to: &recorded{peer: u.end()}}
	is := u.flags()
	e.egressOnly = is[1]
	e.protocol, e.verdict, e.reporter = netset.Protocol(u.byte()), policies.Verdict(u.byte()), policies.Reporter(u.byte())
	e.count, e.bytes, e.port, e.sourcePort = u.number(), u.number(), uint16(u.number()), uint16(u.number())
	if is[0] {
		e.addresses = &[2]netip.Addr{u.address(), u.address()}
	}
	if is[2] {
		more := &recordOnly{packets: u.number(), replyBytes: u.number(), replyPackets: u.number()}
		more.hits = listOf(u, func() policies.Hit {
			return policies.Hit{Tier: u.text(), Policy: u.ref(), Action: policies.Action(u.byte()), Rule: int(u.signed()), Staged: u.flags()[0]}
		})
		more.format, more.window = u.text(), time.Duration(u.signed())
		e.onlyOfRecords = more
	}
	if is[3] {
		more := &fileOnly{names: [2][]string{listOf(u, u.text), listOf(u, u.text)}}
		more.place = policies.Place{File: u.text(), Line: int(u.signed()), Column: int(u.signed())}
		e.onlyOfFiles = more
	}
	return e
}
