package report

import (
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// memory keeps what has been written of a value, for listings share the same
// few peers and grants between a million rows.
type memory[K comparable] struct {
	write func(K) string
	known map[K]string
}

func remember[K comparable](write func(K) string) *memory[K] {
	return &memory[K]{write: write, known: map[K]string{}}
}

func (m *memory[K]) of(value K) string {
	text, ok := m.known[value]
	if !ok {
		text = m.write(value)
		m.known[value] = text
	}
	return text
}

func rememberPeers(write func(policies.Peer) string) *memory[*policies.Peer] {
	return remember(func(p *policies.Peer) string { return write(*p) })
}

// rememberGrants remembers both halves of grants.
func rememberGrants(write func(netset.Ports) string) (allow, unknown *memory[*policies.Grant]) {
	return remember(func(g *policies.Grant) string { return write(g.Allow) }),
		remember(func(g *policies.Grant) string { return write(g.Unknown) })
}

func appendPeerKey(p policies.Peer, b []byte) []byte {
	if p.CIDR != nil {
		b = p.CIDR.AppendTo(b)
		for _, e := range p.Except {
			b = e.AppendTo(append(b, ','))
		}
		return b
	}
	b = append(b, p.Kind...)
	b = append(append(b, 0), p.Namespace...)
	b = append(append(b, 0), p.Name...)
	return append(append(b, 0), p.Pod...)
}
