package report

import (
	"github.com/weir-policy/weir/policies"
)

// memory keeps what has been written of a value, for listings name the same
// few peers and ports a million times.
type memory[T any] struct {
	write func(T) string
	known map[string]string
	key   []byte
}

func remember[T any](write func(T) string) *memory[T] {
	return &memory[T]{write: write, known: map[string]string{}}
}

// of returns what is written of value; appendKey appends a text that is the
// same for equal values and no others.
func (m *memory[T]) of(value T, appendKey func(T, []byte) []byte) string {
	m.key = appendKey(value, m.key[:0])
	if text, ok := m.known[string(m.key)]; ok {
		return text
	}
	text := m.write(value)
	m.known[string(m.key)] = text
	return text
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
