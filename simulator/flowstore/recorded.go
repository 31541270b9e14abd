package flowstore

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator"
	"github.com/weir-policy/weir/simulator/flowrow"
)

// Range is a span of time.
type Range = flowrow.Range

// recorded is a range of a store at one moment.
type recorded struct {
	store *Store
	state *state
	files map[time.Time]*hourFiles // of the state
	Range
	untimed bool // what has no time is of the range too
}

func (s *Store) recorded(ctx context.Context, r Range, untimed bool) (*recorded, error) {
	st, err := s.refresh(ctx)
	if err != nil {
		return nil, err
	}
	return &recorded{store: s, state: st, files: st.byHour(), Range: r, untimed: untimed}, nil
}

// Recorded returns the flows of a range as they are now: what others add or
// compact later changes nothing, as long as the grace lasts.
func (s *Store) Recorded(ctx context.Context, r Range) (simulator.Recorded, error) {
	return s.recorded(ctx, r, false)
}

// Summed returns what a filter may choose by its time, records that have none among
// it.
func (s *Store) Summed(ctx context.Context, f *simulator.Filter) (simulator.Summed, error) {
	return s.recorded(ctx, Range{Since: f.Since, Until: f.Until}, true)
}

// Untimed returns how many records have no time.
func (s *Store) Untimed(ctx context.Context) (uint64, error) {
	st, err := s.refresh(ctx)
	if err != nil {
		return 0, err
	}
	var n uint64
	for _, f := range st.files {
		if (f.Kind == raw || f.Kind == sorted) && f.Hour.UnixMicro() == flowrow.NoTime {
			n += uint64(f.Rows)
		}
	}
	return n, nil
}

// holds reports whether the range has what began at a moment.
func (r *recorded) holds(start int64) bool {
	since, until := r.Micros()
	return since <= start && start < until || r.untimed && start == flowrow.NoTime
}

// hours returns the hours of the range in order. Those of which it holds all
// are whole.
func (r *recorded) hours() (hours []*hourFiles, whole func(*hourFiles) bool) {
	since, until := r.Micros()
	for at, h := range r.files {
		first := at.UnixMicro()
		if (first+flowrow.HourMicros > since && first < until || r.untimed && first == flowrow.NoTime) && len(h.all()) > 0 {
			hours = append(hours, h)
		}
	}
	slices.SortFunc(hours, func(a, b *hourFiles) int { return a.hour.Compare(b.hour) })
	return hours, func(h *hourFiles) bool {
		first := h.hour.UnixMicro()
		return since <= first && first+flowrow.HourMicros <= until
	}
}

// Days returns the days that have any flows of the range.
func (r *recorded) Days(context.Context) (days []time.Time, err error) {
	hours, _ := r.hours()
	for _, h := range hours {
		if day := dayOf(h.hour); len(days) == 0 || !day.Equal(days[len(days)-1]) {
			days = append(days, day)
		}
	}
	return days, nil
}

// on returns what there is of a day. That of no time is the day of the zero time.
func (r *recorded) on(day time.Time) *recorded {
	of, next := *r, day.AddDate(0, 0, 1)
	if of.Since.Before(day) {
		of.Since = day
	}
	if of.Until.IsZero() || next.Before(of.Until) {
		of.Until = next
	}
	of.untimed = r.untimed && day.IsZero()
	return &of
}

// maxSources is how many files of tuples are read at a time.
const maxSources = 48

// rolls returns readers of columns of all tuples of the range: of the files that have
// them, and of the flows that none has.
func (r *recorded) rolls(ctx context.Context, columns []int) (_ []*rollReader, err error) {
	hours, whole := r.hours()
	rolled := map[int64]bool{}
	var all []*rollReader
	defer func() {
		if err != nil {
			closeAll(all)
		}
	}()
	roller := r.store.newRoller()
	defer roller.discard()
	since, until := r.Micros()
	for _, h := range hours {
		files := h.raw
		if whole(h) {
			rolled[h.hour.UnixMicro()] = true
		} else {
			files = h.all()
		}
		for _, f := range files {
			t := newTable()
			err := r.store.readFlows(ctx, f, t, func(reader *flowReader, rows []row) error {
				if !whole(h) {
					rows = slices.DeleteFunc(rows, func(of row) bool { return !r.holds(of.start) })
				}
				if t.size > r.store.tableSize() {
					fresh := newTable()
					for i := range rows {
						rows[i] = fresh.adopt(t, &rows[i])
					}
					t = fresh
					reader.setTable(t)
				}
				return roller.add(t, rows)
			})
			if err != nil {
				return nil, err
			}
		}
	}
	var files []File
	days := map[time.Time]File{}
	if !slices.Contains(columns, rollPackets) { // of which days have no hours
		days = r.wholeDays(rolled)
	}
	for _, name := range slices.Sorted(maps.Keys(r.state.files)) {
		f := r.state.files[name]
		end := f.Hour.Add(time.Hour)
		if f.Kind == daily {
			end = f.Hour.AddDate(0, 0, 1)
		}
		_, isWhole := days[f.Hour]
		if (f.Kind == hourly || f.Kind == daily && !isWhole) && end.UnixMicro() > since && f.Hour.UnixMicro() < until {
			files = append(files, f)
		}
	}
	for _, day := range slices.SortedFunc(maps.Keys(days), time.Time.Compare) {
		files = append(files, days[day])
	}
	if len(files)+len(roller.spools)+1 > maxSources {
		columns = rollNumbers // for they are joined
	}
	if roller.next > 0 {
		if all, err = roller.sources(columns); err != nil {
			return nil, err
		}
	}
	for len(files) > 0 {
		n := min(len(files), maxSources)
		some, err := r.store.openRolls(ctx, r.state, files[:n], columns, func(hour int64) bool { return rolled[hour] })
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
		files = files[n:]
		if len(all) > maxSources {
			one, err := r.store.joinRolls(ctx, all)
			all = nil
			if err != nil {
				return nil, err
			}
			all = append(all, one)
		}
	}
	return all, nil
}

// wholeDays returns the files of the days of which all that was added up is of
// hours that are read by their tuples.
func (r *recorded) wholeDays(rolled map[int64]bool) map[time.Time]File {
	days := map[time.Time]File{}
	for _, f := range r.state.files {
		if f.Kind == whole && !slices.ContainsFunc(f.Of, func(name string) bool {
			of, isCurrent := r.state.files[name]
			return !isCurrent || !rolled[of.Hour.UnixMicro()]
		}) {
			days[f.Hour] = f
		}
	}
	return days
}

// joinRolls merges readers into one, and closes them.
func (s *Store) joinRolls(ctx context.Context, all []*rollReader) (_ *rollReader, err error) {
	defer closeAll(all)
	spooled, err := s.blobs.spool()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			discard(spooled)
		}
	}()
	w, err := newRollWriter(spooled, wholeLayout, nil)
	if err != nil {
		return nil, err
	}
	err = mergeRolls(ctx, all, func(m *rollReader) error {
		own, err := m.roll()
		if err != nil {
			return err
		}
		return w.add(own, m.table)
	})
	if err != nil {
		return nil, err
	}
	if err := w.close(); err != nil {
		return nil, err
	}
	return newSpooledReader(spooled, wholeLayout, rollNumbers)
}

// Tuples calls each for every tuple, in the order of their IDs. It reads a day at a
// time, and holds 130,000 tuples at most, of some 300 bytes; where there are more, it
// reads the days again for the others.
func (r *recorded) Tuples(ctx context.Context, each func(*simulator.Tuple) error) error {
	days, err := r.Days(ctx)
	if err != nil {
		return err
	}
	for from := uint64(0); ; {
		some := newTupleSums(from, r.store.heldTuples())
		for _, day := range days {
			if err := r.on(day).addTuples(ctx, some); err != nil {
				return err
			}
		}
		if err := some.each(ctx, each); err != nil || some.to == math.MaxUint64 {
			return err
		}
		from = some.to + 1
	}
}

// addTuples adds the tuples of the range to others.
func (r *recorded) addTuples(ctx context.Context, to *tupleSums) error {
	sources, err := r.rolls(ctx, tupleNumbers)
	if err != nil {
		return err
	}
	defer closeAll(sources)
	for _, m := range sources {
		if err := m.eachRun(ctx, func() error { return to.add(m) }); err != nil {
			return err
		}
	}
	return nil
}

// Sums calls each for every tuple, in the order of their IDs.
func (r *recorded) Sums(ctx context.Context, each func(*simulator.Tuple, []simulator.Hour) error) error {
	var hours []simulator.Hour
	ordered := true
	sources, err := r.rolls(ctx, sumNumbers)
	if err != nil {
		return err
	}
	defer closeAll(sources)
	var tuple simulator.Tuple
	var ips [2]string
	peers, begun := peers{}, false
	hand := func() error {
		for i, peer := range [...]*policies.FlowPeer{&tuple.Flow.From, &tuple.Flow.To} {
			if ips[i] == several {
				ips[i] = ""
			}
			var err error
			if peer.Address, err = flowrow.ParseAddress(ips[i]); err != nil {
				return err
			}
		}
		if !ordered {
			hours = joinHours(hours)
		}
		err := each(&tuple, hours)
		hours, ordered = hours[:0], true
		return err
	}
	if runtime.GOMAXPROCS(0) > 1 {
		readAhead(sources)
	}
	err = mergeTuples(ctx, sources, func(m *rollReader) error {
		if !begun || tuple.ID != m.now.id {
			if begun {
				if err := hand(); err != nil {
					return err
				}
			}
			begun, tuple.ID = true, m.now.id
			if err := m.readFlow(peers, &tuple.Flow); err != nil {
				return err
			}
			for i := range ips {
				ips[i] = m.address(i)
			}
		}
		for i := range ips {
			if ips[i] != several && ips[i] != m.address(i) {
				ips[i] = several
			}
		}
		before := len(hours)
		hours = m.appendHours(hours)
		ordered = ordered && (before == 0 || compareHours(&hours[before-1], &hours[before]) < 0)
		return nil
	})
	if err == nil && begun {
		err = hand()
	}
	return err
}

// Hours calls each for the hours of a day of some tuples, in the order of their IDs.
func (r *recorded) Hours(ctx context.Context, day time.Time, tuples []uint64, each func(uint64, *simulator.Side, []simulator.HourFlows) error) error {
	sources, err := r.on(day).rolls(ctx, hourNumbers)
	if err != nil {
		return err
	}
	defer closeAll(sources)
	var sums hoursBySide
	return mergeTuples(ctx, sources, func(m *rollReader) (err error) {
		for len(tuples) > 0 && tuples[0] < m.now.id {
			tuples = tuples[1:]
		}
		if len(tuples) == 0 || tuples[0] != m.now.id {
			return nil
		}
		if sums, err = m.addHours(sums[:0]); err != nil {
			return err
		}
		for i := range sums {
			var side simulator.Side
			setKey(&side, sums[i].key)
			if err := each(m.now.id, &side, sums[i].hours); err != nil {
				return err
			}
		}
		return nil
	})
}

// peers are those of ends that were parsed before, but for their addresses.
type peers map[flowrow.End]*policies.FlowPeer

func (p peers) of(texts *flowrow.End) (*policies.FlowPeer, error) {
	if known, ok := p[*texts]; ok {
		return known, nil
	}
	peer, err := texts.Peer()
	if err != nil {
		return nil, err
	}
	if len(p) >= maxPeers {
		clear(p)
	}
	p[*texts] = &peer
	return &peer, nil
}

// readFlow reads the ends, protocol and port of the roll that it is at.
func (r *rollReader) readFlow(known peers, f *policies.Flow) error {
	from, to, protocol, port, err := r.readEnds(known)
	if err == nil {
		f.From, f.To, f.Protocol, f.Port = *from, *to, protocol, port
	}
	return err
}

func (r *rollReader) readEnds(known peers) (from, to *policies.FlowPeer, protocol netset.Protocol, port uint16, err error) {
	if err := r.seekEnds(); err != nil {
		return nil, nil, 0, 0, err
	}
	v := r.ends.vectors[:rollByHour]
	of := func(columns []vector) (*policies.FlowPeer, error) {
		var texts flowrow.End
		for c := range columns {
			texts[c] = columns[c].texts[columns[c].codes[0]]
		}
		texts[flowrow.IP] = ""
		return known.of(&texts)
	}
	var errs [3]error
	from, errs[0] = of(v[rollSource:rollTarget])
	to, errs[1] = of(v[rollTarget:])
	protocol, errs[2] = flowrow.ParseProtocol(v[rollProtocol].texts[v[rollProtocol].codes[0]])
	if err := cmp.Or(errs[:]...); err != nil {
		return nil, nil, 0, 0, r.ends.damage(err)
	}
	return from, to, protocol, uint16(v[rollPort].numbers[v[rollPort].codes[0]]), nil
}

// address returns what the ip column of an end says of the run: several where
// it says more than one thing.
func (r *rollReader) address(end int) string {
	v := &r.vectors[rollSource+flowrow.IP]
	if end == 1 {
		v = &r.vectors[rollTarget+flowrow.IP]
	}
	if len(v.texts) == 1 {
		return v.texts[0]
	}
	code, same := v.codes[r.at], true
	r.runOf(func(i int) { same = same && v.codes[i] == code })
	if !same {
		return several
	}
	return v.texts[code]
}

// addHours adds the hours of the run to what is known of its tuple.
func (r *rollReader) addHours(all hoursBySide) (hoursBySide, error) {
	n, v := r.i, r.vectors
	hour, reporter, verdict, egressOnly := v[rollHour].codes[:n], v[rollReporter].codes[:n], v[rollVerdict].codes[:n], v[rollEgressOnly].codes[:n]
	flows := v[rollFlows].numbers[:n]
	var s *sideHours
	for i := r.at; i < n; i++ {
		if !r.allKnown && !r.known[hour[i]] {
			continue
		}
		if key := r.reporterKeys[reporter[i]] | r.verdictKeys[verdict[i]] | r.egressKeys[egressOnly[i]]; s == nil || s.key != key {
			all, s = all.at(key)
		}
		if r.isWhole() {
			if day := v[rollByHour].bytesAt(i); len(day) > 0 {
				var sum uint64
				if s.hours, sum = appendDay(s.hours, r.hours[hour[i]], day); sum != uint64(flows[i]) {
					return nil, r.numbers.damage(fmt.Errorf("a day has %d flows, and its hours %d", flows[i], sum))
				}
				continue
			}
		}
		s.hours = append(s.hours, simulator.HourFlows{Hour: r.hours[hour[i]], Flows: uint64(flows[i])})
	}
	return all, nil
}

// appendDay appends the hours of a day, and returns how many flows they have.
func appendDay(hours []simulator.HourFlows, hour int64, flows []byte) (_ []simulator.HourFlows, sum uint64) {
	for len(flows) > 0 {
		n, size := uint64(flows[0]), 1
		if n >= 0x80 {
			if n, size = binary.Uvarint(flows); size <= 0 {
				break
			}
		}
		if n > 0 {
			hours = append(hours, simulator.HourFlows{Hour: hour, Flows: n})
			sum += n
		}
		hour, flows = hour+1, flows[size:]
	}
	return hours, sum
}

// appendHours appends the hours of the run, which are in order.
func (r *rollReader) appendHours(hours []simulator.Hour) []simulator.Hour {
	n, v := r.i, r.vectors
	hour, reporter, verdict := v[rollHour].codes[:n], v[rollReporter].codes[:n], v[rollVerdict].codes[:n]
	egressOnly, isSet := v[rollEgressOnly].codes[:n], v[rollEgressOnly].numbers
	flows, bytes, first, last := v[rollFlows].numbers[:n], v[rollBytes].numbers[:n], v[rollStart].numbers[:n], v[rollEnd].numbers[:n]
	packets, records := v[rollPackets].numbers[:n], v[rollCount].numbers[:n]
	replyBytes, replyPackets := v[rollReplyBytes].numbers[:n], v[rollReplyPackets].numbers[:n]
	hours = slices.Grow(hours, n-r.at)
	for i := r.at; i < n; i++ {
		if !r.allKnown && !r.known[hour[i]] {
			continue
		}
		hours = append(hours, simulator.Hour{
			Side: simulator.Side{
				Reporter: r.reporters[reporter[i]], Verdict: r.verdicts[verdict[i]], EgressOnly: isSet[egressOnly[i]] != 0,
				Flows: uint64(flows[i]), Bytes: uint64(bytes[i]), First: flowrow.Moment(first[i]), Last: flowrow.Moment(last[i]),
			},
			Start: time.Unix(r.hours[hour[i]]*3600, 0).UTC(), Records: uint64(records[i]),
			Packets: uint64(packets[i]), ReplyBytes: uint64(replyBytes[i]), ReplyPackets: uint64(replyPackets[i]),
		})
	}
	return hours
}

// joinHours puts hours in order, and makes one of what several files say of the
// same side and verdict.
func joinHours(hours []simulator.Hour) []simulator.Hour {
	slices.SortStableFunc(hours, func(a, b simulator.Hour) int { return compareHours(&a, &b) })
	joined := hours[:1]
	for i := range hours[1:] {
		own, last := &hours[1+i], &joined[len(joined)-1]
		if compareHours(last, own) != 0 {
			joined = append(joined, *own)
			continue
		}
		last.Flows += own.Flows
		last.Bytes += own.Bytes
		last.Records += own.Records
		last.Packets += own.Packets
		last.ReplyBytes += own.ReplyBytes
		last.ReplyPackets += own.ReplyPackets
		if own.First.Before(last.First) {
			last.First = own.First
		}
		if own.Last.After(last.Last) {
			last.Last = own.Last
		}
	}
	return joined
}

func compareHours(a, b *simulator.Hour) int {
	if c := a.Start.Compare(b.Start); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(a.Reporter, b.Reporter), cmp.Compare(a.Verdict, b.Verdict), compareBools(a.EgressOnly, b.EgressOnly))
}

// span is rows of a file, one after another.
type span struct{ first, rows int64 }

// Flows calls each for every record of the tuples on a day, by hour.
func (r *recorded) Flows(ctx context.Context, day time.Time, tuples []uint64, each func(uint64, *policies.Flow) error) error {
	r = r.on(day)
	hours, _ := r.hours()
	spans, err := r.spans(ctx, tuples, hours)
	if err != nil {
		return err
	}
	emit := func(t *table, rows []row) error {
		for i := range rows {
			if !r.holds(rows[i].start) {
				continue
			}
			id := t.tuples[rows[i].tuple].id
			if _, wanted := slices.BinarySearch(tuples, id); !wanted {
				continue
			}
			f, err := t.flow(&rows[i])
			if err != nil {
				return err
			}
			if err := each(id, &f); err != nil {
				return err
			}
		}
		return nil
	}
	for _, h := range hours {
		if found := spans[h.hour.UnixMicro()]; h.sorted != nil && len(found) > 0 {
			if err := r.store.readSpans(ctx, *h.sorted, found, emit); err != nil {
				return err
			}
		}
		for _, f := range h.raw {
			if err := r.store.readTuples(ctx, f, tuples, emit); err != nil {
				return err
			}
		}
	}
	return nil
}

// spans returns where the tuples' rows stand in the sorted files, by hour.
func (r *recorded) spans(ctx context.Context, tuples []uint64, hours []*hourFiles) (map[int64][]span, error) {
	every := func(int) bool { return true }
	return r.spansOf(ctx, hours, placeNumbers, func(reader *rollReader) (func(int) bool, error) {
		if _, wanted := slices.BinarySearch(tuples, reader.now.id); wanted {
			return every, nil
		}
		return nil, nil
	})
}

// spansOf returns where in the sorted files the rows stand that are wanted, by
// hour. For each run, wanted says of which of its rolls; nil is none.
func (r *recorded) spansOf(ctx context.Context, hours []*hourFiles, columns []int, wanted func(*rollReader) (func(i int) bool, error)) (map[int64][]span, error) {
	sortedHours, sortedFiles := map[int64]bool{}, map[string]bool{}
	for _, h := range hours {
		if h.sorted != nil {
			sortedHours[h.hour.UnixMicro()], sortedFiles[h.sorted.Name] = true, true
		}
	}
	spans := map[int64][]span{}
	for _, f := range r.state.files {
		if f.Kind != hourly && f.Kind != daily || !slices.ContainsFunc(f.Of, func(name string) bool { return sortedFiles[name] }) {
			continue
		}
		readers, err := r.store.openRolls(ctx, r.state, []File{f}, columns, func(hour int64) bool { return sortedHours[hour] })
		if err != nil {
			return nil, err
		}
		reader := readers[0]
		err = reader.eachRun(ctx, func() error {
			rolls, err := wanted(reader)
			if rolls == nil || err != nil {
				return err
			}
			v := reader.vectors
			reader.runOf(func(i int) {
				if rolls(i) {
					hour := v[rollHour].numbers[v[rollHour].codes[i]]
					spans[hour] = append(spans[hour], span{v[rollRow].numbers[i], v[rollCount].numbers[i]})
				}
			})
			return nil
		})
		reader.done()
		if err != nil {
			return nil, err
		}
	}
	for hour, all := range spans {
		slices.SortFunc(all, func(a, b span) int { return compareInt(a.first, b.first) })
		joined := all[:1]
		for _, s := range all[1:] {
			if last := &joined[len(joined)-1]; last.first+last.rows == s.first {
				last.rows += s.rows
			} else {
				joined = append(joined, s)
			}
		}
		spans[hour] = joined
	}
	return spans, nil
}

// eachRun calls take at every run.
func (r *rollReader) eachRun(ctx context.Context, take func() error) error {
	for {
		more, err := r.nextRun()
		if err != nil || !more {
			return errors.Join(err, ctx.Err())
		}
		if err := take(); err != nil {
			return err
		}
	}
}

// readSpans hands over rows of a sorted file.
func (s *Store) readSpans(ctx context.Context, f File, spans []span, emit func(*table, []row) error) error {
	b, err := s.openFile(ctx, f)
	if err != nil {
		return err
	}
	defer b.close()
	r, err := newFlowReader(b, newTable())
	if err != nil {
		return err
	}
	for _, at := range spans {
		if err := r.seek(at.first); err != nil {
			return err
		}
		for left := at.rows; left > 0; {
			rows, err := r.nextUpTo(left)
			if err == nil && len(rows) == 0 {
				err = r.damage(errEnds)
			}
			if err == nil {
				err = ctx.Err()
			}
			if err == nil {
				err = emit(r.table, rows)
			}
			if err != nil {
				return err
			}
			left -= int64(len(rows))
		}
	}
	return nil
}

// readTuples hands over the rows of tuples in a file that is not sorted by them,
// and some others.
func (s *Store) readTuples(ctx context.Context, f File, tuples []uint64, emit func(*table, []row) error) error {
	b, err := s.openFile(ctx, f)
	if err != nil {
		return err
	}
	defer b.close()
	r, err := newFlowReader(b, newTable())
	if err != nil {
		return err
	}
	return r.eachGroup(ctx, func() bool {
		return slices.ContainsFunc(r.vectors[flowTuple].numbers, func(id int64) bool {
			_, wanted := slices.BinarySearch(tuples, uint64(id))
			return wanted
		})
	}, func(rows []row) error { return emit(r.table, rows) })
}

// eachGroup hands over the rows of the row groups that are wanted, once their
// dictionaries are in vectors.
func (f *flowReader) eachGroup(ctx context.Context, wanted func() bool, take func([]row) error) error {
	for {
		more, err := f.nextGroupSafely()
		if err != nil || !more {
			return err
		}
		for wanted() && f.left > 0 {
			rows, err := f.next()
			if err == nil {
				err = ctx.Err()
			}
			if err == nil {
				err = take(rows)
			}
			if err != nil {
				return err
			}
		}
	}
}

func (g *groupReader) nextGroupSafely() (more bool, err error) {
	defer g.recovered(&err)
	return g.nextGroup()
}

// CountTuples calls each with how many records there are of every tuple, in no
// order. It reads one column, and of sorted files its runs.
func (s *Store) CountTuples(ctx context.Context, each func(tuple uint64, records uint64)) error {
	st, err := s.refresh(ctx)
	if err != nil {
		return err
	}
	counts := counter{make([]count, 1<<12), 0}
	for _, name := range slices.Sorted(maps.Keys(st.files)) {
		if f := st.files[name]; f.Kind == raw || f.Kind == sorted {
			if err := s.countTuples(ctx, f, counts.add); err != nil {
				return err
			}
		}
	}
	for _, c := range counts.all {
		if c.n > 0 {
			each(c.tuple, c.n)
		}
	}
	return nil
}

// counter counts tuples. Their IDs are hashes, and are used as such.
type counter struct {
	all  []count // a power of two of places, at most half of them taken
	used int
}

type count struct{ tuple, n uint64 }

func (c *counter) add(tuple, n uint64) {
	if n == 0 {
		return
	}
	if 2*c.used >= len(c.all) {
		grown := counter{make([]count, 2*len(c.all)), 0}
		for _, old := range c.all {
			grown.add(old.tuple, old.n)
		}
		*c = grown
	}
	mask := uint64(len(c.all) - 1)
	at := tuple & mask
	for c.all[at].n > 0 && c.all[at].tuple != tuple {
		at = (at + 1) & mask
	}
	if c.all[at].n == 0 {
		c.used++
	}
	c.all[at] = count{tuple, c.all[at].n + n}
}

func (s *Store) countTuples(ctx context.Context, f File, add func(tuple, records uint64)) error {
	b, err := s.openFile(ctx, f)
	if err != nil {
		return err
	}
	defer b.close()
	g, err := newGroupReader(b, flowLayout, []int{flowTuple})
	if err != nil {
		return err
	}
	var local []uint64
	for {
		more, err := g.nextGroupSafely()
		if err != nil || !more {
			return err
		}
		ids := g.vectors[flowTuple].numbers
		local = resize(local, len(ids))
		clear(local)
		if err := g.count(flowTuple, local); err != nil {
			return err
		}
		for code, n := range local {
			add(uint64(ids[code]), n)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// count adds to counts how often the row group has each code of a column.
func (g *groupReader) count(column int, counts []uint64) (err error) {
	defer g.recovered(&err)
	c := g.cursors[column]
	for left := g.left; left > 0; {
		if err := c.nextPage(); err != nil {
			return g.damageIn(column, err)
		}
		if !c.runs.Count(c.left, counts) {
			return g.damageIn(column, fmt.Errorf("it ends early, or has codes that are not in its dictionary of %d", len(counts)))
		}
		left -= int64(c.left)
		c.left = 0
	}
	g.left = 0
	return nil
}

// Stats is what a store holds.
type Stats struct {
	Records     uint64 // rows
	Flows       uint64 // aggregates counted by what they stand for
	First, Last time.Time
	Hours       int // with any flows
	Compacted   int // of those, whose flows are all sorted
	Bytes       int64
	FlowBytes   int64 // of those, of the flows themselves
	Files       []File
}

// Stats says what the store holds, from the manifest alone.
func (s *Store) Stats(ctx context.Context) (Stats, error) {
	st, err := s.refresh(ctx)
	if err != nil {
		return Stats{}, err
	}
	var stats Stats
	for _, h := range st.byHour() {
		if len(h.all()) > 0 {
			stats.Hours++
		}
		if h.sorted != nil && len(h.raw) == 0 {
			stats.Compacted++
		}
	}
	for _, name := range slices.Sorted(maps.Keys(st.files)) {
		f := st.files[name]
		stats.Files = append(stats.Files, f)
		stats.Bytes += f.Size
		if f.Kind != raw && f.Kind != sorted {
			continue
		}
		stats.FlowBytes += f.Size
		stats.Records += uint64(f.Rows)
		stats.Flows += f.Flows
		if !f.First.IsZero() && (stats.First.IsZero() || f.First.Before(stats.First)) {
			stats.First = f.First
		}
		if f.Last.After(stats.Last) {
			stats.Last = f.Last
		}
	}
	return stats, nil
}

// Keep says what Retain leaves. A zero field is no bound.
type Keep struct {
	Since time.Time // hours that end before are removed
	Bytes int64     // the oldest hours are removed until no more than this is left
}

// Retain removes the flows of old hours, and returns how many hours those were.
// Flows without a time are older than any bytes, and have no age. The space is
// free when the grace is over, and the next Compact or Retain has run.
func (s *Store) Retain(ctx context.Context, now time.Time, keep Keep) (int, error) {
	st, err := s.refresh(ctx)
	if err != nil {
		return 0, err
	}
	hours := st.byHour()
	c := &commit{At: now}
	var total int64
	for _, f := range st.files {
		total += f.Size
	}
	removed := map[time.Time]bool{}
	for _, at := range slices.SortedFunc(maps.Keys(hours), time.Time.Compare) {
		h := hours[at]
		tooOld := !keep.Since.IsZero() && !at.IsZero() && !at.Add(time.Hour).After(keep.Since)
		if !tooOld && (keep.Bytes == 0 || total <= keep.Bytes) {
			continue
		}
		removed[at] = true
		files := h.all()
		if h.hourly != nil {
			files = append(files, *h.hourly)
		}
		for _, f := range files {
			c.Remove = append(c.Remove, f.Name)
			total -= f.Size
		}
	}
	if len(removed) > 0 {
		left := map[time.Time]bool{}
		for at := range hours {
			if !removed[at] {
				left[dayOf(at)] = true
			}
		}
		for _, f := range st.files {
			if (f.Kind == daily || f.Kind == whole) && !left[f.Hour] {
				c.Remove = append(c.Remove, f.Name)
			}
		}
		if err := s.append(ctx, c, func(*state) error { return nil }); err != nil {
			return 0, err
		}
	}
	_, err = s.sweep(ctx, now)
	return len(removed), err
}
