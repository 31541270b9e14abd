//go:build linux

package record

import "github.com/weir-policy/weir/policies"

// Decision is what a policy, or the end of a tier, decided.
type Decision struct {
	Tier   string
	Policy policies.Ref // zero at the end of a tier where it is nobody's in particular
	Action policies.Action
}

// Decided is what was decided alike. Packets and Bytes are those of both ways.
type Decided struct{ Connections, Packets, Bytes uint64 }

// decided adds what a record stands for to what its policies decided.
func (b *book) decided(l line, s *sum) {
	for _, h := range l.story.flow.Hits {
		if h.Staged || h.Action == policies.ActionPass || h.Action == policies.ActionLog {
			continue
		}
		at := Decision{h.Tier, h.Policy, h.Action}
		d := b.counts.Decisions[at]
		d.Connections += s.count
		for _, c := range s.counters {
			d.Packets += c.Packets
			d.Bytes += c.Bytes
		}
		b.counts.Decisions[at] = d
	}
}
