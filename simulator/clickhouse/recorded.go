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
	filter  *simulator.Filter // nil is all
	untimed bool              // what has no time is of the range too: a filter cannot say whether it chooses that
}

// Recorded returns the flows of a range. The server groups them by tuple; flows
// themselves are read only of the tuples that are asked for.
func (s *Store) Recorded(_ context.Context, r flowrow.Range) (simulator.Recorded, error) {
	return &recorded{s, r, nil, false}, nil
}

// Summed returns what a filter may choose: the server leaves out most of the rest,
// and groups what stays by tuple.
func (s *Store) Summed(f *simulator.Filter) simulator.Summed {
	return &recorded{s, flowrow.Range{Since: f.Since, Until: f.Until}, f, !f.Since.IsZero()}
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

const dayMicros = 24 * flowrow.HourMicros

// Days returns the days that have any flows of the range.
func (r *recorded) Days(ctx context.Context) (days []time.Time, err error) {
	since, until := r.Micros()
	if !r.Since.IsZero() {
		since = flowrow.HourOf(since)
	}
	asked := where("`hour` >= ? AND `hour` < ?", since, until)
	if r.untimed {
		asked = either(asked, where("`hour` = ?", int64(flowrow.NoTime)))
	}
	query := fmt.Sprintf("SELECT DISTINCT intDiv(`hour` - toInt64(%d), %d) AS `day` FROM %s WHERE %s ORDER BY `day`", flowrow.NoTime, dayMicros, r.table("tuples"), asked.text)
	rows, err := r.conn.Query(r.reading(ctx, false), query, asked.arguments...)
	if err != nil {
		return nil, fmt.Errorf("read days of %s: %w", r.name, err)
	}
	err = scan(rows, func(fetch func(...any) error) error {
		var day int64
		err := fetch(&day)
		days = append(days, flowrow.Moment(flowrow.NoTime+day*dayMicros))
		return err
	})
	return days, err
}

// on returns what there is of a day. That of no time is the day of the zero time.
func (r *recorded) on(day time.Time) *recorded {
	of := *r
	of.untimed = false
	if r.untimed && day.IsZero() {
		of.Range = flowrow.Range{Until: day.Add(time.Hour)}
		return &of
	}
	if of.Since.Before(day) {
		of.Since = day
	}
	if next := day.AddDate(0, 0, 1); of.Until.IsZero() || next.Before(of.Until) {
		of.Until = next
	}
	return &of
}

// part is one of the SELECTs that have the tuples of a range.
type part struct {
	condition
	rolled bool
}

// parts returns them, with what else is asked: of whole hours there are tuples, of
// others flows.
func (r *recorded) parts(also condition) []part {
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
	if r.untimed {
		parts = append(parts, part{where("`hour` = ?", int64(flowrow.NoTime)), true})
	}
	for i, p := range parts {
		parts[i].condition = all(p.condition, also, r.chosen(p.rolled))
	}
	return parts
}

// gather returns a SELECT over all parts. A term is what a column is made of:
// from tuples, from flows, and from what both came to.
func (r *recorded) gather(also condition, keys []string, terms []term) (query string, arguments []any) {
	by := "`" + strings.Join(keys, "`, `") + "`"
	var selects []string
	for _, p := range r.parts(also) {
		selected := []string{}
		for _, key := range keys {
			switch of := "`start`"; {
			case key == "timed":
				if p.rolled {
					of = "`hour`"
				}
				selected = append(selected, fmt.Sprintf("toUInt8(%s > %d) AS `timed`", of, flowrow.NoTime))
			case key == "hour" && !p.rolled:
				selected = append(selected, hourOf+" AS `hour`")
			default:
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

// sideTerms are what is told of one side of a tuple, sumTerms all that can be of an
// hour, and tupleTerms what is told of the tuple. The earliest flow of a side is that of
// those that have a time.
var (
	sideKeys  = []string{"tuple", "timed", "reporter", "verdict", "egress_only"}
	hourKeys  = []string{"tuple", "hour", "reporter", "verdict", "egress_only"}
	flowTerms = []term{{"sum(`flows`)", "sum(`flows`)", "sum"}}
	sideTerms = []term{
		flowTerms[0],
		{"sum(`bytes`)", "sum(`bytes`)", "sum"},
		{"minMerge(`first`)", "min(`start`)", "min"},
		{"maxMerge(`last`)", "max(`end`)", "max"},
	}
	sumTerms = append(slices.Clone(sideTerms),
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
	reader := &sumReader{}
	return r.tuples(ctx, reader, sideKeys, sideTerms, func(t *simulator.Tuple) error {
		t.Sides = t.Sides[:0]
		return reader.of(t.ID, func() error {
			at := slices.IndexFunc(t.Sides, func(s simulator.Side) bool {
				return s.Reporter == reader.sum.Reporter && s.Verdict == reader.sum.Verdict && s.EgressOnly == reader.sum.EgressOnly
			})
			if at < 0 {
				t.Sides = append(t.Sides, reader.sum.Side)
				return nil
			}
			side := &t.Sides[at] // of no time, which comes first
			side.Flows, side.Bytes = side.Flows+reader.sum.Flows, side.Bytes+reader.sum.Bytes
			if side.First = reader.sum.First; reader.sum.Last.After(side.Last) {
				side.Last = reader.sum.Last
			}
			return nil
		}, func() error { return each(t) })
	})
}

// Sums calls each for every tuple, in the order of their IDs.
func (r *recorded) Sums(ctx context.Context, each func(*simulator.Tuple, []simulator.Hour) error) error {
	reader := &sumReader{full: true}
	var hours []simulator.Hour
	return r.tuples(ctx, reader, hourKeys, sumTerms, func(t *simulator.Tuple) error {
		hours = hours[:0]
		return reader.of(t.ID, func() error { hours = append(hours, reader.sum); return nil }, func() error {
			slices.SortStableFunc(hours, compareHours)
			return each(t, hours)
		})
	})
}

// tuples calls each for every tuple, and has a reader read what keys tell apart of
// them.
func (r *recorded) tuples(ctx context.Context, reader *sumReader, keys []string, terms []term, each func(*simulator.Tuple) error) error {
	ctx, cancel := context.WithCancel(ctx)
	query, arguments := r.gather(always, keys, terms)
	sums, err := r.conn.Query(r.reading(ctx, true), query, arguments...)
	if err != nil {
		cancel()
		return fmt.Errorf("read tuples of %s: %w", r.name, err)
	}
	defer func() {
		cancel() // or closing would read the rest
		_ = sums.Close()
	}()
	reader.rows = sums
	// Asked for later, so that of every tuple above there is one.
	query, arguments = r.gather(always, []string{"tuple"}, tupleTerms)
	tuples, err := r.conn.Query(r.reading(ctx, false), query, arguments...)
	if err != nil {
		return fmt.Errorf("read tuples of %s: %w", r.name, err)
	}
	if err := reader.next(); err != nil {
		return err
	}
	peers := newPeers()
	var tuple simulator.Tuple
	return scan(tuples, func(fetch func(...any) error) error {
		if err := fetchTuple(fetch, peers, &tuple); err != nil {
			return err
		}
		return each(&tuple)
	})
}

// Hours calls each for the hours of a day of some tuples, in the order of their IDs.
func (r *recorded) Hours(ctx context.Context, day time.Time, tuples []uint64, each func(uint64, *simulator.Side, []simulator.HourFlows) error) error {
	if len(tuples) == 0 {
		return nil
	}
	asked := always
	if len(tuples) <= maxTuples {
		asked = where("`tuple`" + listed(tuples))
	}
	query, arguments := r.on(day).gather(asked, hourKeys, flowTerms)
	rows, err := r.conn.Query(r.reading(ctx, true), query, arguments...)
	if err != nil {
		return fmt.Errorf("read hours of %s: %w", r.name, err)
	}
	return scan(rows, func(fetch func(...any) error) error {
		var said sumTexts
		var tuple, flows uint64
		var hour int64
		if err := fetch(&tuple, &hour, &said.reporter, &said.verdict, &said.egressOnly, &flows); err != nil {
			return err
		}
		if _, wanted := slices.BinarySearch(tuples, tuple); !wanted {
			return nil
		}
		var side simulator.Side
		if err := said.parse(&side); err != nil {
			return err
		}
		return each(tuple, &side, []simulator.HourFlows{{Hour: hour / flowrow.HourMicros, Flows: flows}})
	})
}

func compareHours(a, b simulator.Hour) int {
	if c := a.Start.Compare(b.Start); c != 0 {
		return c
	}
	return (int(a.Reporter)-int(b.Reporter))<<8 + (int(a.Verdict)-int(b.Verdict))<<4 + int(flag(a.EgressOnly)) - int(flag(b.EgressOnly))
}

// sumReader reads what is told of tuples by the side, or by the hour.
type sumReader struct {
	rows  driver.Rows
	full  bool // by the hour, with all sumTerms
	more  bool
	tuple uint64
	sum   simulator.Hour
}

// of calls take at all that there is of a tuple, and then done, if there was any.
func (r *sumReader) of(tuple uint64, take, done func() error) error {
	some := false
	for r.more && r.tuple <= tuple {
		if r.tuple == tuple {
			some = true
			if err := take(); err != nil {
				return err
			}
		}
		if err := r.next(); err != nil {
			return err
		}
	}
	if !some {
		return nil
	}
	return done()
}

func (r *sumReader) next() error {
	if r.more = r.rows.Next(); !r.more {
		return r.rows.Err()
	}
	var hour, first, last int64
	var timed uint8
	var said sumTexts
	to := []any{&r.tuple, &timed, &said.reporter, &said.verdict, &said.egressOnly, &r.sum.Flows, &r.sum.Bytes, &first, &last}
	if r.full {
		to[1] = &hour
		to = append(to, &r.sum.Records, &r.sum.Packets, &r.sum.ReplyBytes, &r.sum.ReplyPackets)
	}
	if err := r.rows.Scan(to...); err != nil {
		return err
	}
	r.sum.Start, r.sum.First, r.sum.Last = flowrow.Moment(hour), flowrow.Moment(first), flowrow.Moment(last)
	return said.parse(&r.sum.Side)
}

// sumTexts are what tells sums of a tuple apart, as columns have it.
type sumTexts struct {
	reporter, verdict string
	egressOnly        uint8
}

func (s *sumTexts) parse(to *simulator.Side) error {
	var errs [2]error
	to.Reporter, errs[0] = policies.ParseReporter(s.reporter)
	to.Verdict, errs[1] = flowrow.ParseVerdict(s.verdict)
	to.EgressOnly = s.egressOnly != 0
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

// listed is the end of a condition that holds for tuples.
func listed(tuples []uint64) string {
	var ids []string
	for _, id := range tuples {
		ids = append(ids, strconv.FormatUint(id, 10))
	}
	return " IN (" + strings.Join(ids, ", ") + ")"
}

// Flows calls each for every record of the tuples on a day.
func (r *recorded) Flows(ctx context.Context, day time.Time, tuples []uint64, each func(uint64, *policies.Flow) error) error {
	r = r.on(day)
	since, until := r.Micros()
	chosen := all(where("`start` >= ? AND `start` < ?", since, until), r.chosen(false))
	hours := where("`hour` < ?", until)
	if !r.Since.IsZero() {
		hours = all(hours, where("`hour` >= ?", flowrow.HourOf(since)))
	}
	key := "`dst_namespace`, `dst_kind`, `dst_name`, `dst_port`, `protocol`"
	for some := range slices.Chunk(tuples, maxTuples) {
		// The tuples say where in the order of flows to look. Each node has both of
		// the same tuples.
		where := "(" + key + ") IN (SELECT DISTINCT " + key + " FROM " + r.local("tuples") + " WHERE `tuple`" + listed(some) + " AND " + hours.text + ")" +
			" AND `tuple`" + listed(some) + " AND " + chosen.text
		if err := r.flows(ctx, where, "", slices.Concat(hours.arguments, chosen.arguments), each); err != nil {
			return err
		}
	}
	return nil
}

// Scan calls each for every flow of which the filter says Yes or NotSay, and
// maybe for a few others, in the order of time. The server chooses and sorts them.
func (s *Store) Scan(ctx context.Context, f *simulator.Filter, each func(policies.Flow) error) error {
	c := s.conditions(f)
	return s.flows(ctx, c.text, " ORDER BY `start`, `end`, `tuple`, `reporter`, `verdict`, `src_port`, `src_ip`, `dst_ip`", c.arguments,
		func(_ uint64, f *policies.Flow) error { return each(*f) })
}

// flows reads rows of flows.
func (s *Store) flows(ctx context.Context, where, rest string, arguments []any, each func(tuple uint64, f *policies.Flow) error) error {
	rows, err := s.conn.Query(s.reading(ctx, false), "SELECT "+names(flowColumns[:len(flowColumns)-1])+" FROM "+s.table("flows")+" WHERE "+where+rest, arguments...)
	if err != nil {
		return fmt.Errorf("read flows of %s: %w", s.name, err)
	}
	peers, hits := newPeers(), map[string][]policies.Hit{}
	return scan(rows, func(fetch func(...any) error) error {
		tuple, f, err := fetchFlow(fetch, peers, hits)
		if err != nil {
			return err
		}
		return each(tuple, &f)
	})
}

func fetchFlow(fetch func(...any) error, peers *peers, hits map[string][]policies.Hit) (tuple uint64, f policies.Flow, err error) {
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
		&f.Count, &f.Bytes, &f.Packets, &f.ReplyBytes, &f.ReplyPackets, &tookPart, &tuple)
	if err := fetch(to...); err != nil {
		return tuple, f, err
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
	return tuple, f, errors.Join(errs[:]...)
}
