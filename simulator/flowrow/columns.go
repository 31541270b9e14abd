package flowrow

import (
	"slices"
	"time"

	"github.com/weir-policy/weir/policies"
)

// Column is one of those that the files of flows have, but for the tuple.
type Column struct {
	Name string
	Type ColumnType
	of   func(*policies.Flow) any
}

// ColumnType is what a column holds.
type ColumnType uint8

// The types: a text is a string, a number an int64, a moment a time.Time.
const (
	TextColumn ColumnType = iota
	NumberColumn
	MomentColumn
)

// Of returns what a flow has in the column. A moment that was not recorded is nil.
func (c *Column) Of(f *policies.Flow) any { return c.of(f) }

// FlowColumns returns the columns in their order.
func FlowColumns() []Column {
	moment := func(name string, of func(*policies.Flow) time.Time) Column {
		return Column{name, MomentColumn, func(f *policies.Flow) any {
			if at := of(f); !at.IsZero() {
				return at
			}
			return nil
		}}
	}
	words := func(name string, of func(*policies.Flow) string) Column {
		return Column{name, TextColumn, func(f *policies.Flow) any { return of(f) }}
	}
	count := func(name string, of func(*policies.Flow) uint64) Column {
		return Column{name, NumberColumn, func(f *policies.Flow) any { return int64(of(f)) }}
	}
	return slices.Concat(
		[]Column{
			moment("start", func(f *policies.Flow) time.Time { return f.First }),
			moment("end", func(f *policies.Flow) time.Time { return f.Last }),
		},
		endValues("src_", func(f *policies.Flow) *policies.FlowPeer { return &f.From }),
		endValues("dst_", func(f *policies.Flow) *policies.FlowPeer { return &f.To }),
		[]Column{
			words("protocol", func(f *policies.Flow) string { return ProtocolText(f.Protocol) }),
			count("src_port", func(f *policies.Flow) uint64 { return uint64(f.SourcePort) }),
			count("dst_port", func(f *policies.Flow) uint64 { return uint64(f.Port) }),
			words("verdict", func(f *policies.Flow) string { return VerdictText(f.Verdict) }),
			count("egress_only", func(f *policies.Flow) uint64 {
				if f.EgressOnly {
					return 1
				}
				return 0
			}),
			words("reporter", func(f *policies.Flow) string { return f.Origin.Reporter.String() }),
			words("format", func(f *policies.Flow) string { return f.Origin.Format }),
			count("window_us", func(f *policies.Flow) uint64 { return uint64(f.Origin.Window.Microseconds()) }),
			count("flows", func(f *policies.Flow) uint64 { return max(1, f.Count) }),
			count("bytes", func(f *policies.Flow) uint64 { return f.Bytes }),
			count("packets", func(f *policies.Flow) uint64 { return f.Packets }),
			count("reply_bytes", func(f *policies.Flow) uint64 { return f.ReplyBytes }),
			count("reply_packets", func(f *policies.Flow) uint64 { return f.ReplyPackets }),
			words("policies", func(f *policies.Flow) string { return FormatHits(f.Hits) }),
		},
	)
}

func endValues(prefix string, end func(*policies.Flow) *policies.FlowPeer) []Column {
	owner := func(p *policies.FlowPeer) policies.Ref {
		if len(p.Workloads) == 0 {
			return policies.Ref{}
		}
		return p.Workloads[0]
	}
	var all []Column
	for i, of := range [Texts]func(*policies.FlowPeer) string{
		Namespace:   func(p *policies.FlowPeer) string { return p.Namespace },
		Kind:        func(p *policies.FlowPeer) string { return owner(p).Kind },
		Name:        func(p *policies.FlowPeer) string { return owner(p).Name },
		Pod:         func(p *policies.FlowPeer) string { return p.Pod },
		PodPrefix:   func(p *policies.FlowPeer) string { return p.PodPrefix },
		Owners:      formatOwners,
		Labels:      func(p *policies.FlowPeer) string { return FormatLabels(p.Labels) },
		LabelsState: labelsState,
		IP:          func(p *policies.FlowPeer) string { return formatAddress(p.Address) },
		Network:     formatNetwork,
		Set:         func(p *policies.FlowPeer) string { return FormatRef(p.Set) },
		Names:       func(p *policies.FlowPeer) string { return formatNames(p.Names) },
	} {
		all = append(all, Column{prefix + Columns[i], TextColumn, func(f *policies.Flow) any { return of(end(f)) }})
	}
	return all
}
