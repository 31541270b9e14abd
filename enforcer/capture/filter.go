//go:build linux

package capture

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/net/bpf"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// What BPF finds where in a packet.
const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd

	udpLite netset.Protocol = 136

	// extensions is how many extension headers of IPv6 are looked behind.
	extensions = 6
)

// Words of BPF's scratch memory.
const (
	atProtocol = iota // what is behind the last header of IP
	atOffset          // where that begins
	atWhole           // 1 where it begins in this packet: it is no later fragment
)

// longestProgram is what the kernel takes.
const longestProgram = 4096

// compile returns the filters as a program that keeps so many bytes of each packet
// that one of them wants, 0 being all, and nothing of any other one. Packets begin
// with a header of link bytes: 14 of Ethernet, or none. What a filter asks of IP no
// other packet has, and a packet that is too short to tell is not wanted; ports only
// first fragments have.
func compile(filters []policies.CaptureFilter, snap, link int) ([]bpf.Instruction, error) {
	if snap == 0 {
		snap = 256 << 10
	}
	keep := bpf.RetConstant{Val: uint32(snap)}
	if len(filters) == 0 {
		return []bpf.Instruction{keep}, nil
	}
	p := &program{}
	four, six, none := p.label(), p.label(), p.label()
	if link == 0 {
		p.emit(bpf.LoadAbsolute{Off: 0, Size: 1}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4})
		p.when(bpf.JumpEqual, 4, four)
		p.when(bpf.JumpEqual, 6, six)
	} else {
		p.emit(bpf.LoadAbsolute{Off: uint32(link) - 2, Size: 2})
		p.when(bpf.JumpEqual, etherIPv4, four)
		p.when(bpf.JumpEqual, etherIPv6, six)
	}
	p.jump(none)

	p.here(four)
	p.headerOf4(uint32(link))
	p.any(filters, uint32(link), false, keep)
	p.jump(none)

	p.here(six)
	p.headerOf6(uint32(link))
	p.any(filters, uint32(link), true, keep)

	p.here(none)
	p.emit(bpf.RetConstant{Val: 0})
	if len(p.code) > longestProgram {
		return nil, fmt.Errorf("the filters are too long for the kernel: %d steps, more than %d; leave out ports and addresses, or make several captures of them", len(p.code), longestProgram)
	}
	return p.resolve(), nil
}

// program is instructions with jumps to places further down, which are labels until
// all are there.
type program struct {
	code   []bpf.Instruction
	jumps  map[int]int // by the jump's own index
	labels []int       // where they are
}

func (p *program) emit(more ...bpf.Instruction) { p.code = append(p.code, more...) }

func (p *program) label() int {
	p.labels = append(p.labels, -1)
	return len(p.labels) - 1
}

func (p *program) here(label int) { p.labels[label] = len(p.code) }

func (p *program) jump(label int) {
	if p.jumps == nil {
		p.jumps = map[int]int{}
	}
	p.jumps[len(p.code)] = label
	p.emit(bpf.Jump{})
}

// when jumps if the condition holds. A conditional jump reaches 255 instructions
// only, so each leads to, or past, one that reaches any.
func (p *program) when(c bpf.JumpTest, value uint32, label int) {
	p.emit(bpf.JumpIf{Cond: c, Val: value, SkipFalse: 1})
	p.jump(label)
}

// unless jumps if the condition does not hold.
func (p *program) unless(c bpf.JumpTest, value uint32, label int) {
	p.emit(bpf.JumpIf{Cond: c, Val: value, SkipTrue: 1})
	p.jump(label)
}

func (p *program) resolve() []bpf.Instruction {
	for at, label := range p.jumps {
		p.code[at] = bpf.Jump{Skip: uint32(p.labels[label] - at - 1)}
	}
	return p.code
}

// set puts a constant into the scratch memory.
func (p *program) set(word int, value uint32) {
	p.emit(bpf.LoadConstant{Dst: bpf.RegA, Val: value}, bpf.StoreScratch{Src: bpf.RegA, N: word})
}

func (p *program) headerOf4(at uint32) {
	whole := p.label()
	p.set(atWhole, 1)
	p.emit(bpf.LoadAbsolute{Off: at + 19, Size: 1}) // or the packet is too short
	p.emit(bpf.LoadAbsolute{Off: at + 6, Size: 2})
	p.unless(bpf.JumpBitsSet, 0x1fff, whole)
	p.set(atWhole, 0)
	p.here(whole)
	p.emit(
		bpf.LoadAbsolute{Off: at + 9, Size: 1}, bpf.StoreScratch{Src: bpf.RegA, N: atProtocol},
		bpf.LoadMemShift{Off: at}, bpf.TXA{}, bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: at}, bpf.StoreScratch{Src: bpf.RegA, N: atOffset},
	)
}

// The extension headers of IPv6 that are looked behind.
const (
	hopByHop       = 0
	routing        = 43
	fragment       = 44
	authentication = 51
	destination    = 60
	mobility       = 135
)

func (p *program) headerOf6(at uint32) {
	end := p.label()
	p.set(atWhole, 1)
	p.set(atOffset, at+40)
	p.emit(bpf.LoadAbsolute{Off: at + 39, Size: 1}) // or the packet is too short
	p.emit(bpf.LoadAbsolute{Off: at + 6, Size: 1}, bpf.StoreScratch{Src: bpf.RegA, N: atProtocol})
	for range extensions {
		eights, fours, piece, next := p.label(), p.label(), p.label(), p.label()
		p.emit(bpf.LoadScratch{Dst: bpf.RegX, N: atOffset}, bpf.LoadScratch{Dst: bpf.RegA, N: atProtocol})
		for _, header := range []uint32{hopByHop, routing, destination, mobility} {
			p.when(bpf.JumpEqual, header, eights)
		}
		p.when(bpf.JumpEqual, authentication, fours)
		p.when(bpf.JumpEqual, fragment, piece)
		p.jump(end)

		p.here(eights)
		p.emit(bpf.LoadIndirect{Off: 1, Size: 1}, bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: 1}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 3})
		p.jump(next)
		p.here(fours)
		p.emit(bpf.LoadIndirect{Off: 1, Size: 1}, bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: 2}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 2})
		p.jump(next)
		p.here(piece)
		first := p.label()
		p.emit(bpf.LoadIndirect{Off: 2, Size: 2})
		p.unless(bpf.JumpBitsSet, 0xfff8, first)
		p.set(atWhole, 0)
		p.emit(bpf.LoadIndirect{Off: 0, Size: 1}, bpf.StoreScratch{Src: bpf.RegA, N: atProtocol})
		p.jump(end) // what follows is no header
		p.here(first)
		p.emit(bpf.LoadConstant{Dst: bpf.RegA, Val: 8})

		p.here(next) // A is the header's length, X where it begins
		p.emit(
			bpf.ALUOpX{Op: bpf.ALUOpAdd}, bpf.StoreScratch{Src: bpf.RegA, N: atOffset},
			bpf.LoadIndirect{Off: 0, Size: 1}, bpf.StoreScratch{Src: bpf.RegA, N: atProtocol},
		)
	}
	p.here(end)
}

// any keeps what one of the filters wants of one family, and falls through otherwise.
func (p *program) any(filters []policies.CaptureFilter, at uint32, ipv6 bool, keep bpf.RetConstant) {
	for _, f := range filters {
		var addresses []netip.Prefix
		for _, a := range f.Addresses {
			if a.Addr().Is6() == ipv6 {
				addresses = append(addresses, a)
			}
		}
		if len(f.Addresses) > 0 && len(addresses) == 0 {
			continue
		}
		not := p.label()
		if f.Protocol != 0 {
			p.emit(bpf.LoadScratch{Dst: bpf.RegA, N: atProtocol})
			p.unless(bpf.JumpEqual, uint32(f.Protocol), not)
		}
		if len(addresses) > 0 {
			found := p.label()
			for _, a := range addresses {
				source, size := at+12, uint32(4)
				if ipv6 {
					source, size = at+8, 16
				}
				p.inBlock(source, a, found)
				p.inBlock(source+size, a, found)
			}
			p.jump(not)
			p.here(found)
		}
		if len(f.Ports) > 0 {
			p.onPorts(f.Ports, not)
		}
		p.emit(keep)
		p.here(not)
	}
}

// inBlock jumps if the address at an offset is in the block.
func (p *program) inBlock(offset uint32, block netip.Prefix, found int) {
	not := p.label()
	bytes := block.Addr().AsSlice()
	for bits := block.Bits(); bits > 0; bits -= 32 {
		mask := ^uint32(0)
		if bits < 32 {
			mask <<= 32 - bits
		}
		p.emit(bpf.LoadAbsolute{Off: offset, Size: 4})
		if bits < 32 {
			p.emit(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask})
		}
		p.unless(bpf.JumpEqual, binary.BigEndian.Uint32(bytes)&mask, not)
		offset, bytes = offset+4, bytes[4:]
	}
	p.jump(found)
	p.here(not)
}

// onPorts jumps unless a port of either end is one of these.
func (p *program) onPorts(spans []policies.PortSpan, not int) {
	ports, found := p.label(), p.label()
	p.emit(bpf.LoadScratch{Dst: bpf.RegA, N: atWhole})
	p.when(bpf.JumpEqual, 0, not)
	p.emit(bpf.LoadScratch{Dst: bpf.RegA, N: atProtocol})
	for _, protocol := range []netset.Protocol{netset.TCP, netset.UDP, netset.SCTP, udpLite} {
		p.when(bpf.JumpEqual, uint32(protocol), ports)
	}
	p.jump(not)
	p.here(ports)
	p.emit(bpf.LoadScratch{Dst: bpf.RegX, N: atOffset})
	for _, at := range []uint32{0, 2} {
		p.emit(bpf.LoadIndirect{Off: at, Size: 2})
		for _, s := range spans {
			if s.First == s.Last {
				p.when(bpf.JumpEqual, uint32(s.First), found)
				continue
			}
			below := p.label()
			p.unless(bpf.JumpGreaterOrEqual, uint32(s.First), below)
			p.unless(bpf.JumpGreaterThan, uint32(s.Last), found)
			p.here(below)
		}
	}
	p.jump(not)
	p.here(found)
}
