package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator"
	"github.com/weir-policy/weir/simulator/flowrow"
)

// recorded is a range of a store, or what a filter may choose of it.
type recorded struct {
	*Store
	flowrow.Range
	filter *simulator.Filter // nil is all
}

// Recorded returns the flows of a range. The server groups them by tuple; flows
// themselves are read only of the tuples that are asked for.
func (s *Store) Recorded(_ context.Context, r flowrow.Range) (simulator.Recorded, error) {
	return &recorded{s, r, nil}, nil
}

// Summed returns what a filter may choose: the server leaves out most of the rest,
// and groups what stays by tuple.
func (s *Store) Summed(f *simulator.Filter) simulator.Summed {
	return &recorded{s, flowrow.Range{Since: f.Since, Until: f.Until}, f}
}

// chosen is what tuples or flows meet that the filter may choose.
func (r *recorded) chosen(rolled bool) condition {
	if r.filter == nil {
		return always
	}
	return chooser{r.modern, rolled}.filter(r.filter)
}

// scan calls take for every row, and closes rows.
func scan(rows driver.Rows, take func(fetch func(...any) error) error) error {
	for rows.Next() {
		if err := take(rows.Scan); err != nil {
			return errors.Join(err, rows.Close())
		}
	}
	return errors.Join(rows.Err(), rows.Close())
}

// wantsUntimed reports whether records of no time are to be told apart from those of
// another time: a filter cannot say whether it chooses them.
func (r *recorded) wantsUntimed() bool { return r.filter != nil && !r.Since.IsZero() }

// part is one of the SELECTs that have the tuples of a range.
type part struct {
	condition
	rolled bool
}

// parts returns them: of whole hours there are tuples, of others flows.
func (r *recorded) parts() []part {
	since, until := r.Micros()
	first, last := since, until
	if !r.Since.IsZero() {
		if first = flowrow.HourOf(since); first < since {
			first += flowrow.HourMicros
		}
	}
	if !r.Until.IsZero() {
		last = flowrow.HourOf(until)
	}
	flows := func(since, until int64) part { return part{where("`start` >= ? AND `start` < ?", since, until), false} }
	var parts []part
	if first >= last {
		parts = append(parts, flows(since, until))
	} else {
		parts = append(parts, part{where("`hour` >= ? AND `hour` < ?", first, last), true})
		if since < first {
			parts = append(parts, flows(since, first))
		}
		if last < until {
			parts = append(parts, flows(last, until))
		}
	}
	if r.wantsUntimed() {
		parts = append(parts, part{where("`hour` = ?", int64(flowrow.NoTime)), true})
	}
	for i, p := range parts {
		parts[i].condition = all(p.condition, r.chosen(p.rolled))
	}
	return parts
}

// gather returns a SELECT over all parts. A term is what a column is made of:
// from tuples, from flows, and from what both came to.
func (r *recorded) gather(keys []string, terms []term) (query string, arguments []any) {
	by := "`" + strings.Join(keys, "`, `") + "`"
	var selects []string
	for _, p := range r.parts() {
		selected := []string{}
		for _, key := range keys {
			if key == "hour" && !p.rolled {
				selected = append(selected, hourOf+" AS `hour`")
			} else {
				selected = append(selected, "`"+key+"`")
			}
		}
		from := r.table("flows")
		if p.rolled {
			from = r.table("tuples")
		}
		for i, t := range terms {
			of := t.raw
			if p.rolled {
				of = t.rolled
			}
			selected = append(selected, fmt.Sprintf("%s AS `c%d`", of, i))
		}
		selects = append(selects, "SELECT "+strings.Join(selected, ", ")+" FROM "+from+" WHERE "+p.text+" GROUP BY "+by)
		arguments = append(arguments, p.arguments...)
	}
	if len(selects) == 1 {
		return selects[0] + " ORDER BY " + by, arguments
	}
	outer := []string{by}
	for i, t := range terms {
		outer = append(outer, fmt.Sprintf("%s(`c%d`)", t.both, i))
	}
	return "SELECT " + strings.Join(outer, ", ") + " FROM (" + strings.Join(selects, " UNION ALL ") + ") GROUP BY " + by + " ORDER BY " + by, arguments
}

type term struct{ rolled, raw, both string }

// plainTerm is a column of which any value will do.
func plainTerm(name string) term {
	return term{"any(`" + name + "`)", "any(`" + name + "`)", "any"}
}

// widest is the least or greatest of a column, which tuples have as a state.
func widest(function, state, column string) term {
	return term{function + "Merge(`" + state + "`)", function + "(toString(`" + column + "`))", function}
}

// hourTerms are what is told of a tuple in an hour, sumTerms all that can be, and
// tupleTerms what is told of the tuple.
var (
	hourKeys  = []string{"tuple", "hour", "reporter", "verdict", "egress_only"}
	hourTerms = []term{
		{"sum(`flows`)", "sum(`flows`)", "sum"},
		{"sum(`bytes`)", "sum(`bytes`)", "sum"},
		{"minMerge(`first`)", "min(`start`)", "min"},
		{"maxMerge(`last`)", "max(`end`)", "max"},
	}
	sumTerms = append(slices.Clone(hourTerms),
		term{"sum(`records`)", "toUInt64(count())", "sum"}, term{"sum(`packets`)", "sum(`packets`)", "sum"},
		term{"sum(`reply_bytes`)", "sum(`reply_bytes`)", "sum"}, term{"sum(`reply_packets`)", "sum(`reply_packets`)", "sum"})
	tupleTerms = func() []term {
		all := []term{plainTerm("protocol"), plainTerm("dst_port")}
		for _, side := range []string{"src_", "dst_"} {
			for _, i := range identityTexts {
				all = append(all, plainTerm(side+flowrow.Columns[i]))
			}
			for _, i := range []int{flowrow.Pod, flowrow.PodPrefix} {
				all = append(all, widest("max", side+flowrow.Columns[i], side+flowrow.Columns[i]))
			}
			ip := side + flowrow.Columns[flowrow.IP]
			all = append(all, widest("min", ip+"_min", ip), widest("max", ip+"_max", ip))
		}
		return all
	}()
)

// Tuples calls each for every tuple, in the order of their IDs.
func (r *recorded) Tuples(ctx context.Context, each func(*simulator.Tuple) error) error {
	return r.tuples(ctx, hourTerms, each)
}

// Sums calls each for every tuple, in the order of their IDs.
func (r *recorded) Sums(ctx context.Context, each func(*simulator.Tuple) error) error {
	return r.tuples(ctx, sumTerms, each)
}

func (r *recorded) tuples(ctx context.Context, terms []term, each func(*simulator.Tuple) error) error {
	ctx, cancel := context.WithCancel(ctx)
	query, arguments := r.gather(hourKeys, terms)
	hours, err := r.conn.Query(r.reading(ctx, true), query, arguments...)
	if err != nil {
		cancel()
		return fmt.Errorf("read tuples of %s: %w", r.name, err)
	}
	defer func() {
		cancel() // or closing would read the rest
		_ = hours.Close()
	}()
	// Asked for later, so that of every tuple above there is one.
	query, arguments = r.gather([]string{"tuple"}, tupleTerms)
	tuples, err := r.conn.Query(r.reading(ctx, false), query, arguments...)
	if err != nil {
		return fmt.Errorf("read tuples of %s: %w", r.name, err)
	}
	reader := hourReader{rows: hours, full: len(terms) == len(sumTerms)}
	if err := reader.next(); err != nil {
		return err
	}
	peers := newPeers()
	var tuple simulator.Tuple
	return scan(tuples, func(fetch func(...any) error) error {
		if err := fetchTuple(fetch, peers, &tuple); err != nil {
			return err
		}
		tuple.Hours = tuple.Hours[:0]
		for reader.more && reader.tuple <= tuple.ID {
			if reader.tuple == tuple.ID {
				tuple.Hours = append(tuple.Hours, reader.hour)
			}
			if err := reader.next(); err != nil {
				return err
			}
		}
		if len(tuple.Hours) == 0 {
			return nil
		}
		slices.SortStableFunc(tuple.Hours, compareHours)
		return each(&tuple)
	})
}

func compareHours(a, b simulator.Hour) int {
	if c := a.Start.Compare(b.Start); c != 0 {
		return c
	}
	return (int(a.Reporter)-int(b.Reporter))<<8 + (int(a.Verdict)-int(b.Verdict))<<4 + int(flag(a.EgressOnly)) - int(flag(b.EgressOnly))
}

// hourReader reads what is told of tuples by the hour.
type hourReader struct {
	rows  driver.Rows
	full  bool // of sumTerms
	more  bool
	tuple uint64
	hour  simulator.Hour
}

func (h *hourReader) next() error {
	if h.more = h.rows.Next(); !h.more {
		return h.rows.Err()
	}
	var hour, first, last int64
	var reporter, verdict string
	var egressOnly uint8
	to := []any{&h.tuple, &hour, &reporter, &verdict, &egressOnly, &h.hour.Flows, &h.hour.Bytes, &first, &last}
	if h.full {
		to = append(to, &h.hour.Records, &h.hour.Packets, &h.hour.ReplyBytes, &h.hour.ReplyPackets)
	}
	if err := h.rows.Scan(to...); err != nil {
		return err
	}
	var errs [2]error
	h.hour.Reporter, errs[0] = policies.ParseReporter(reporter)
	h.hour.Verdict, errs[1] = flowrow.ParseVerdict(verdict)
	h.hour.EgressOnly = egressOnly != 0
	h.hour.Start, h.hour.First, h.hour.Last = flowrow.Moment(hour), flowrow.Moment(first), flowrow.Moment(last)
	return errors.Join(errs[:]...)
}

// fetchTuple reads a row of tupleTerms.
func fetchTuple(fetch func(...any) error, peers *peers, t *simulator.Tuple) error {
	var protocol string
	var ends [2]flowrow.End
	var highest [2]string
	t.Flow = policies.Flow{}
	to := []any{&t.ID, &protocol, &t.Flow.Port}
	for side := range ends {
		for _, i := range append(slices.Clone(identityTexts), flowrow.Pod, flowrow.PodPrefix, flowrow.IP) {
			to = append(to, &ends[side][i])
		}
		to = append(to, &highest[side])
	}
	if err := fetch(to...); err != nil {
		return err
	}
	var err error
	if t.Flow.Protocol, err = flowrow.ParseProtocol(protocol); err != nil {
		return err
	}
	for side, peer := range []*policies.FlowPeer{&t.Flow.From, &t.Flow.To} {
		ip := ends[side][flowrow.IP]
		if ip != highest[side] {
			ip = "" // there are several
		}
		end := ends[side].Identity()
		end[flowrow.IP] = ip
		if *peer, err = peers.of(&end); err != nil {
			return fmt.Errorf("tuple %d: %w", t.ID, err)
		}
	}
	return nil
}

// peers makes peers of ends, and shares those that it has seen lately.
type peers struct {
	known map[flowrow.End]*policies.FlowPeer
}

func newPeers() *peers { return &peers{map[flowrow.End]*policies.FlowPeer{}} }

const maxPeers = 1 << 15

func (p *peers) of(e *flowrow.End) (policies.FlowPeer, error) {
	if known, ok := p.known[*e]; ok {
		return *known, nil
	}
	peer, err := e.Peer()
	if err != nil {
		return peer, err
	}
	if len(p.known) >= maxPeers {
		clear(p.known)
	}
	p.known[*e] = &peer
	return peer, nil
}

// maxTuples is how many tuples are asked for in one query.
const maxTuples = 4000

// Flows calls each for every record of the tuples.
func (r *recorded) Flows(ctx context.Context, tuples []uint64, each func(policies.Flow) error) error {
	since, until := r.Micros()
	chosen := where("`start` >= ? AND `start` < ?", since, until)
	if r.wantsUntimed() {
		chosen = either(chosen, where("`start` = ?", int64(flowrow.NoTime)))
	}
	chosen = all(chosen, r.chosen(false))
	key := "`dst_namespace`, `dst_kind`, `dst_name`, `dst_port`, `protocol`"
	for some := range slices.Chunk(tuples, maxTuples) {
		var ids []string
		for _, id := range some {
			ids = append(ids, strconv.FormatUint(id, 10))
		}
		list := " IN (" + strings.Join(ids, ", ") + ")"
		// The tuples say where in the order of flows to look. Each node has both of
		// the same tuples.
		where := "(" + key + ") IN (SELECT DISTINCT " + key + " FROM " + r.local("tuples") + " WHERE `tuple`" + list + ")" +
			" AND `tuple`" + list + " AND " + chosen.text
		if err := r.flows(ctx, where, "", chosen.arguments, each); err != nil {
			return err
		}
	}
	return nil
}

// Scan calls each for every flow of which the filter says Yes or NotSay, and
// maybe for a few others, in the order of time. The server chooses and sorts them.
func (s *Store) Scan(ctx context.Context, f *simulator.Filter, each func(policies.Flow) error) error {
	c := s.conditions(f)
	return s.flows(ctx, c.text, " ORDER BY `start`, `end`, `tuple`, `reporter`, `verdict`, `src_port`, `src_ip`, `dst_ip`", c.arguments, each)
}

// flows reads rows of flows.
func (s *Store) flows(ctx context.Context, where, rest string, arguments []any, each func(policies.Flow) error) error {
	rows, err := s.conn.Query(s.reading(ctx, false), "SELECT "+names(flowColumns[:len(flowColumns)-2])+" FROM "+s.table("flows")+" WHERE "+where+rest, arguments...)
	if err != nil {
		return fmt.Errorf("read flows of %s: %w", s.name, err)
	}
	peers, hits := newPeers(), map[string][]policies.Hit{}
	return scan(rows, func(fetch func(...any) error) error {
		f, err := fetchFlow(fetch, peers, hits)
		if err != nil {
			return err
		}
		return each(f)
	})
}

func fetchFlow(fetch func(...any) error, peers *peers, hits map[string][]policies.Hit) (f policies.Flow, err error) {
	var start, end, window int64
	var ends [2]flowrow.End
	var protocol, verdict, reporter, tookPart string
	var egressOnly uint8
	to := []any{&start, &end}
	for side := range ends {
		for i := range flowrow.Texts {
			to = append(to, &ends[side][i])
		}
	}
	to = append(to, &protocol, &f.SourcePort, &f.Port, &verdict, &egressOnly, &reporter, &f.Origin.Format, &window,
		&f.Count, &f.Bytes, &f.Packets, &f.ReplyBytes, &f.ReplyPackets, &tookPart)
	if err := fetch(to...); err != nil {
		return f, err
	}
	f.First, f.Last, f.EgressOnly = flowrow.Moment(start), flowrow.Moment(end), egressOnly != 0
	f.Origin.Window = time.Duration(window) * time.Microsecond
	known, ok := hits[tookPart]
	var errs [6]error
	if !ok {
		if known, errs[0] = flowrow.ParseHits(tookPart); len(hits) < maxPeers {
			hits[tookPart] = known
		}
	}
	f.Hits = known
	f.From, errs[1] = peers.of(&ends[0])
	f.To, errs[2] = peers.of(&ends[1])
	f.Protocol, errs[3] = flowrow.ParseProtocol(protocol)
	f.Verdict, errs[4] = flowrow.ParseVerdict(verdict)
	f.Origin.Reporter, errs[5] = policies.ParseReporter(reporter)
	return f, errors.Join(errs[:]...)
}
