package flowstore

import (
	"fmt"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator/flowrow"
)

// The words of small columns, by number.

func protocolText(p int) string { return flowrow.ProtocolText(netset.Protocol(p)) }

func verdictText(v int) string { return flowrow.VerdictText(policies.Verdict(v)) }

func reporterText(r int) string { return policies.Reporter(r).String() }

// each parses the texts of a dictionary.
func each[T any](texts []string, parse func(string) (T, error)) ([]T, error) {
	all := make([]T, len(texts))
	for i, text := range texts {
		var err error
		if all[i], err = parse(text); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// flowReader turns the columns of flows into rows of a table.
type flowReader struct {
	*groupReader
	table     *table
	group     int // the row group of the words below
	protocols []netset.Protocol
	verdicts  []policies.Verdict
	reporters []policies.Reporter
	tuples    []uint32 // by code, plus one
	source    endReader
	target    endReader
	texts     [2][]uint32 // of the formats and policies
	rows      []row
}

// endReader knows which end of the table some codes mean.
type endReader struct {
	last  [flowrow.Texts]int32
	end   uint32
	known map[[flowrow.Texts]int32]uint32
}

func newFlowReader(b blob, t *table) (*flowReader, error) {
	g, err := newGroupReader(b, flowLayout, nil)
	if err != nil {
		return nil, err
	}
	return &flowReader{groupReader: g, table: t, group: -1}, nil
}

// setTable goes on with another table.
func (f *flowReader) setTable(t *table) { f.table, f.group = t, -1 }

// next returns some more rows, none at the end. They are valid until the next
// call.
func (f *flowReader) next() ([]row, error) { return f.nextUpTo(batchRows) }

func (f *flowReader) nextUpTo(most int64) ([]row, error) {
	n, err := f.readUpTo(most)
	if err != nil || n == 0 {
		return nil, err
	}
	if f.group != f.at {
		if err := f.newWords(); err != nil {
			return nil, err
		}
	}
	if cap(f.rows) < n {
		f.rows = make([]row, n)
	}
	f.rows = f.rows[:n]
	v := f.vectors
	format, hits := f.texts[0], f.texts[1]
	for i := range f.rows {
		from, to := f.source.of(f.table, v[flowSource:flowTarget], i), f.target.of(f.table, v[flowTarget:flowProtocol], i)
		code := v[flowTuple].codes[i]
		tuple := f.tuples[code] - 1
		if f.tuples[code] == 0 {
			tuple = f.table.tupleOf(uint64(v[flowTuple].numbers[code]), from, to, f.protocols[v[flowProtocol].codes[i]], uint16(v[flowPort].numbers[v[flowPort].codes[i]]))
			f.tuples[code] = tuple + 1
		}
		f.rows[i] = row{
			start: v[flowStart].numbers[i], end: v[flowEnd].numbers[i], from: from, to: to, tuple: tuple,
			count: uint64(v[flowCount].numbers[v[flowCount].codes[i]]), bytes: uint64(v[flowBytes].numbers[i]), packets: uint64(v[flowPackets].numbers[i]),
			replyBytes: uint64(v[flowReplyBytes].numbers[i]), replyPackets: uint64(v[flowReplyPackets].numbers[i]),
			window: v[flowWindow].numbers[v[flowWindow].codes[i]], sourcePort: uint16(v[flowSourcePort].numbers[v[flowSourcePort].codes[i]]),
			verdict: f.verdicts[v[flowVerdict].codes[i]], reporter: f.reporters[v[flowReporter].codes[i]],
			egressOnly: v[flowEgressOnly].numbers[v[flowEgressOnly].codes[i]] != 0,
			format:     format[v[flowFormat].codes[i]], hits: hits[v[flowPolicies].codes[i]],
		}
	}
	return f.rows, nil
}

// newWords reads the dictionaries of a row group.
func (f *flowReader) newWords() error {
	f.group, f.tuples = f.at, make([]uint32, len(f.vectors[flowTuple].numbers))
	f.source, f.target = newEndReader(), newEndReader()
	var errs [3]error
	f.protocols, errs[0] = each(f.vectors[flowProtocol].texts, flowrow.ParseProtocol)
	f.verdicts, errs[1] = each(f.vectors[flowVerdict].texts, flowrow.ParseVerdict)
	f.reporters, errs[2] = each(f.vectors[flowReporter].texts, policies.ParseReporter)
	for _, err := range errs {
		if err != nil {
			return f.damage(err)
		}
	}
	for i, column := range [...]int{flowFormat, flowPolicies} {
		f.texts[i] = f.texts[i][:0]
		for _, text := range f.vectors[column].texts {
			f.texts[i] = append(f.texts[i], f.table.text(text))
		}
	}
	return nil
}

func newEndReader() endReader {
	return endReader{known: map[[flowrow.Texts]int32]uint32{}, last: [flowrow.Texts]int32{-1}}
}

// of returns the end that row i of the columns has.
func (e *endReader) of(t *table, columns []vector, i int) uint32 {
	same := true
	for c := range columns {
		if code := columns[c].codes[i]; code != e.last[c] {
			e.last[c], same = code, false
		}
	}
	if same {
		return e.end
	}
	end, ok := e.known[e.last]
	if !ok {
		var texts flowrow.End
		for c := range columns {
			texts[c] = columns[c].texts[e.last[c]]
		}
		end = t.end(&texts)
		e.known[e.last] = end
	}
	e.end = end
	return end
}

// damage is an error that names the file.
func (g *groupReader) damage(err error) error {
	return fmt.Errorf("%s: %w", g.blob.name(), err)
}
