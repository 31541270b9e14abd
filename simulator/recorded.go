package simulator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/weir-policy/weir/policies"
)

// Recorded is flows that are kept by tuple. Days begin and end in UTC; flows
// without a time are of that of the zero time.
type Recorded interface {
	// Tuples calls each for every tuple. The Tuple is valid until each returns.
	Tuples(ctx context.Context, each func(*Tuple) error) error
	// Days returns the days on which flows began, in order.
	Days(ctx context.Context) ([]time.Time, error)
	// Hours calls each for the hours of a day in which flows began, of the tuples
	// with these IDs, which are sorted, and of each side and verdict. What there is of an
	// hour may come in parts.
	Hours(ctx context.Context, day time.Time, tuples []uint64, each func(tuple uint64, of *Side, hours []HourFlows) error) error
	// Flows calls each for every record of a day of the tuples with these IDs,
	// which are sorted. The flow is valid until each returns; its maps and slices are
	// shared.
	Flows(ctx context.Context, day time.Time, tuples []uint64, each func(tuple uint64, f *policies.Flow) error) error
}

// Tuple is all that was recorded between two identities on one port.
type Tuple struct {
	ID    uint64
	Flow  policies.Flow // its ends, protocol and port; an end's address is set only where all records have the same
	Sides []Side        // one for each side and verdict
}

// Side is what one side reported of a tuple, with one verdict.
type Side struct {
	Reporter     policies.Reporter
	Verdict      policies.Verdict
	EgressOnly   bool
	Flows, Bytes uint64
	First, Last  time.Time
}

// HourFlows is how many flows began in an hour.
type HourFlows struct {
	Hour  int64 // since 1970, in UTC
	Flows uint64
}

// Replay takes all flows of a recording, as Add would one by one, but reads
// records only of those tuples that need it: of the earliest flows that break,
// open or drift, for their example, and of tuples about which the answer depends
// on what only a record says, such as the address of an end outside. In what
// stays and in what is unknown, the example is the tuple as one side reported it
// that was the first to. Hours are read only of tuples that both sides report.
//
// Where all there is outside gets the same answer, an end of which the recorder
// says that it is there is taken to be there, and is named as one of IPv4.
//
// It reads a day at a time: its memory does not grow with flows or with time. It does
// with the distinct questions and tuples, and with the addresses outside whose flows
// do not stay as they are, unless there is Spill: then what is too much is put aside.
func (r *Replayer) Replay(ctx context.Context, recorded Recorded) error {
	most := max(2, r.most/8)
	reading := reading{
		Replayer:  r,
		undecided: &sorter[uint64]{open: r.open, most: most, compare: compareIDs, append: appendID, read: readID},
		reports:   &sorter[paired]{open: r.open, most: most, compare: byOwner, append: appendPaired, read: r.readPaired},
		wants:     &sorter[want]{open: r.open, most: most, compare: compareWants, append: appendWant, read: readWant},
		wanted:    map[*tally]*firstSeen{}, variants: variantsByEnd{},
	}
	if err := recorded.Tuples(ctx, reading.take); err != nil {
		return fmt.Errorf("read tuples: %w", err)
	}
	if err := reading.settle(); err != nil {
		return err
	}
	err := reading.readDays(ctx, recorded)
	clear(r.questions) // they take room, and are answered again where they are asked
	return errors.Join(err, reading.close())
}

// reading is a recording on its way into a Replayer.
type reading struct {
	*Replayer
	undecided *sorter[uint64] // tuples that are decided record by record
	undone    sides           // who reports those
	reports   *sorter[paired] // tuples that may have twins
	wants     *sorter[want]   // where examples are
	wanted    map[*tally]*firstSeen
	sides     []Side // of the tuple at hand
	variants  variantsByEnd
	hourly    []paired // whose hours are asked for
	ids       []uint64 // of those
}

// paired is a tuple whose reports may be twins of others of an owner.
type paired struct {
	owner
	tuple uint64
	by    sides
}

func byOwner(a, b *paired) int { return a.owner.compare(&b.owner) }

func byTuple(a, b *paired) int {
	if c := cmp.Compare(a.tuple, b.tuple); c != 0 {
		return c
	}
	return a.owner.compare(&b.owner)
}

func compareIDs(a, b *uint64) int { return cmp.Compare(*a, *b) }

// firstSeen is the tuples among whose records the example of a tally is.
type firstSeen struct {
	at     time.Time
	tuples []uint64
}

// want is a tuple that has an example among its records of a moment.
type want struct {
	day   int64
	tuple uint64
	at    moment
}

type moment struct {
	second int64
	nanos  int32
}

func momentAt(t time.Time) moment { return moment{t.Unix(), int32(t.Nanosecond())} }

func compareWants(a, b *want) int {
	return cmp.Or(
		cmp.Compare(a.day, b.day), cmp.Compare(a.tuple, b.tuple),
		cmp.Compare(a.at.second, b.at.second), cmp.Compare(a.at.nanos, b.at.nanos),
	)
}

// close gives up what was put aside of the recording.
func (r *reading) close() error {
	return errors.Join(r.undecided.close(), r.reports.close(), r.wants.close())
}

// settle notes what is wanted of tallies before they are put aside, or when there are
// no more tuples.
func (r *reading) settle() error {
	for _, first := range r.wanted {
		for _, tuple := range first.tuples {
			if err := r.wants.add(want{dayOf(first.at), tuple, momentAt(first.at)}); err != nil {
				return err
			}
		}
	}
	clear(r.wanted)
	return nil
}

// take counts a tuple, or puts it with those that are decided record by record.
func (r *reading) take(t *Tuple) error {
	if len(r.variants) >= mostEnds {
		clear(r.variants)
	}
	if r.open != nil && r.held > r.most {
		if err := r.settle(); err != nil {
			return err
		}
	}
	if err := r.relieve(); err != nil {
		return err
	}
	r.sides = t.Sides
	from, to := r.locate(&t.Flow.From), r.locate(&t.Flow.To)
	if from == nil || to == nil || !from.since.IsZero() || !to.since.IsZero() {
		return r.postpone(t)
	}
	f := t.Flow
	if cause := missing(&f, from, to); cause != nil {
		connects := false
		for i := range r.sides {
			side := &r.sides[i]
			side.describe(&f)
			r.total.add(&f)
			if c := r.connection(r.miss(cause, f.Count), &f); c != nil {
				c.add(side.of(), f.Count, f.Bytes)
				connects = true
			}
		}
		if !connects {
			return nil
		}
		return r.report(t.ID, owner{named: &namedConnection{cause.cause, connectionKeyOf(&f)}})
	}
	a := r.ask(&f, from, to)
	if r.dependsOnRecord(t, a, from, to) {
		return r.postpone(t)
	}
	for i := range r.sides {
		side := &r.sides[i]
		side.describe(&f)
		r.total.add(&f)
		counts := r.tally(a, &f, from, to)
		counts.add(&f)
		if r.of(a, r.countedBy(a, &f, from, to).kind).hasRecord() {
			r.want(counts, f.First, t.ID)
		} else {
			r.keep(counts, &f, from, to)
		}
	}
	if hasTwins(&f) {
		return r.report(t.ID, owner{answerKey: a.answerKey})
	}
	return nil
}

// hasRecord reports whether a record is the example of flows.
func (s *sentence) hasRecord() bool {
	return s.outcome == Breaks || s.outcome == Opens || s.outcome == Drifts
}

// postpone notes that a tuple is decided record by record.
func (r *reading) postpone(t *Tuple) error {
	if hasTwins(&t.Flow) {
		r.undone |= r.whoReports()
	}
	return r.undecided.add(t.ID)
}

// whoReports returns which sides report the tuple at hand.
func (r *reading) whoReports() (all sides) {
	for i := range r.sides {
		all |= r.sides[i].of().alone()
	}
	return all
}

// report notes whose reports those of the tuple at hand are.
func (r *reading) report(tuple uint64, of owner) error {
	if by := r.whoReports(); by != 0 {
		return r.reports.add(paired{of, tuple, by})
	}
	return nil
}

// bothReport returns the tuples of those owners of which both sides report any.
func (r *reading) bothReport() (*sorter[paired], error) {
	all := &sorter[paired]{open: r.open, most: r.reports.most, compare: byTuple, append: appendPaired, read: r.readPaired}
	var failed error
	next, stop := iter.Pull(r.reports.all(&failed)) // behind those of which it is known
	defer stop()
	var last owner
	tuples, by := 0, sides(0)
	end := func() (err error) {
		for ; tuples > 0; tuples-- {
			if p, ok := next(); ok && by|r.undone == bothSides {
				err = errors.Join(err, all.add(p))
			}
		}
		by = 0
		return errors.Join(err, failed)
	}
	err := r.reports.each(func(p *paired) (err error) {
		if tuples > 0 && last.compare(&p.owner) != 0 {
			err = end()
		}
		last, tuples, by = p.owner, tuples+1, by|p.by
		return err
	})
	return all, errors.Join(err, end())
}

// readDays reads of each day the hours of tuples that both sides report, and the
// records that tell more than their tuples.
func (r *reading) readDays(ctx context.Context, recorded Recorded) (err error) {
	hours, err := r.bothReport()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, hours.close()) }()
	if hours.isEmpty() && r.undecided.isEmpty() && r.wants.isEmpty() {
		return nil
	}
	days, err := recorded.Days(ctx)
	if err != nil {
		return fmt.Errorf("find days of flows: %w", err)
	}
	var failed error
	nextWant, stop := iter.Pull(r.wants.all(&failed))
	defer stop()
	first, more := nextWant()
	for _, day := range days {
		if err := r.readHours(ctx, recorded, day, hours); err != nil {
			return err
		}
		wants := func() (w want, ok bool) {
			if !more || first.day != dayOf(day) {
				return w, false
			}
			w = first
			first, more = nextWant()
			return w, true
		}
		if err := r.readFlows(ctx, recorded, day, wants); err != nil {
			return err
		}
		if r.aside == nil { // else what was put aside is not settled either
			r.eachPairing(func(p *pairing) {
				before := len(p.days)
				p.settle(int32(dayOf(day)) + 1)
				r.held += len(p.days) - before
			})
		}
	}
	if r.aside == nil {
		r.eachPairing(func(p *pairing) { p.days = nil }) // all are settled
	}
	if more && failed == nil {
		return lacking(first.tuple)
	}
	return failed
}

func lacking(tuple uint64) error {
	return fmt.Errorf("tuple %d counts flows of which there is no record; verify the store", tuple)
}

// Of so many tuples hours or records are asked for at a time.
const (
	mostHourly = 1 << 17
	mostTuples = 1 << 16
)

// readHours counts the hours of a day.
func (r *reading) readHours(ctx context.Context, recorded Recorded, day time.Time, of *sorter[paired]) error {
	read := func() error {
		err := recorded.Hours(ctx, day, r.ids, r.addHours)
		if err != nil {
			return fmt.Errorf("read hours of %d tuples on %s: %w", len(r.ids), day.Format(time.DateOnly), err)
		}
		clear(r.hourly)
		r.hourly, r.ids = r.hourly[:0], r.ids[:0]
		return nil
	}
	err := of.each(func(next *paired) error {
		if n := len(r.ids); n == 0 || r.ids[n-1] != next.tuple {
			if n == mostHourly {
				if err := read(); err != nil {
					return err
				}
			}
			r.ids = append(r.ids, next.tuple)
		}
		r.hourly = append(r.hourly, *next)
		return nil
	})
	if err != nil || len(r.ids) == 0 {
		return err
	}
	return read()
}

// addHours puts hours of a tuple among those of which they may be twins.
func (r *reading) addHours(tuple uint64, of *Side, hours []HourFlows) error {
	i, _ := slices.BinarySearchFunc(r.hourly, tuple, func(p paired, id uint64) int { return cmp.Compare(p.tuple, id) })
	for ; i < len(r.hourly) && r.hourly[i].tuple == tuple; i++ {
		p := r.pairsOf(&r.hourly[i].owner)
		before := p.days()
		p.addHours(of.of(), hours)
		r.held += p.days() - before
	}
	return r.relieve()
}

// readFlows takes the records of a day that are wanted, or decided one by one. Wants
// yields those of the day, in order.
func (r *reading) readFlows(ctx context.Context, recorded Recorded, day time.Time, wants func() (want, bool)) error {
	var failed error
	undecided, stop := iter.Pull(r.undecided.all(&failed))
	defer stop()
	id, isUndecided := undecided()
	w, isWanted := wants()
	for failed == nil && (isUndecided || isWanted) {
		var some recordsOf
		for len(some.ids) < mostTuples && (isUndecided || isWanted) {
			if isUndecided && (!isWanted || id <= w.tuple) {
				some.add(id)
				some.undecided = append(some.undecided, id)
				id, isUndecided = undecided()
				continue
			}
			some.add(w.tuple)
			if n := len(some.wants); n == 0 || some.wants[n-1] != w {
				some.wants = append(some.wants, w)
			}
			w, isWanted = wants()
		}
		some.found = make([]bool, len(some.wants))
		err := recorded.Flows(ctx, day, some.ids, func(tuple uint64, f *policies.Flow) error {
			if _, is := slices.BinarySearch(some.undecided, tuple); is {
				r.Add(*f)
				return r.failed
			}
			if some.has(tuple, f.First) {
				return r.example(*f)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read flows of %d tuples on %s: %w", len(some.ids), day.Format(time.DateOnly), err)
		}
		if i := slices.Index(some.found, false); i >= 0 {
			return lacking(some.wants[i].tuple)
		}
	}
	return failed
}

// recordsOf says which records are asked for: all, or those of a moment.
type recordsOf struct {
	ids, undecided []uint64
	wants          []want
	found          []bool // of wants
}

func (o *recordsOf) add(id uint64) {
	if n := len(o.ids); n == 0 || o.ids[n-1] != id {
		o.ids = append(o.ids, id)
	}
}

// has reports whether a record is wanted.
func (o *recordsOf) has(tuple uint64, at time.Time) bool {
	i, found := slices.BinarySearchFunc(o.wants, want{dayOf(at), tuple, momentAt(at)}, func(a, b want) int { return compareWants(&a, &b) })
	if found {
		o.found[i] = true
	}
	return found
}

func (r *Replayer) eachPairing(each func(*pairing)) {
	for _, a := range r.answers {
		if a.pairs.among != nil {
			each(a.pairs.among)
		}
	}
	for _, u := range r.unresolved {
		for _, c := range u.named {
			if c.pairs.among != nil {
				each(c.pairs.among)
			}
		}
	}
}

// dayOf returns the day of a time, since 1970 in UTC.
func dayOf(t time.Time) int64 { return floorDiv(t.Unix(), 24*60*60) }

// describe makes a flow of what a side reported.
func (s *Side) describe(f *policies.Flow) {
	f.First, f.Last, f.Verdict, f.EgressOnly = s.First, s.Last, s.Verdict, s.EgressOnly
	f.Count, f.Bytes, f.Origin.Reporter = s.Flows, s.Bytes, s.Reporter
}

// of returns whose report it is.
func (s *Side) of() side { return sideOf(known(s.Verdict), s.EgressOnly, s.Reporter) }

// locate returns where a tuple's end is; nil where that takes what only its records
// say.
func (r *reading) locate(p *policies.FlowPeer) *recorded {
	switch {
	case p.OwnNode, isOutside(p):
		return r.find(p)
	case isNamed(p):
		return r.locateNamed(p)
	case p.Address.IsValid():
		return r.find(p)
	}
	return nil
}

func (r *reading) locateNamed(p *policies.FlowPeer) *recorded {
	e, ns := r.find(p), r.before.namespaces[p.Namespace]
	if ns == nil {
		return e
	}
	if e.before.cause != "" && ns.addresses && !p.Address.IsValid() {
		return nil
	}
	v, known := r.variants[e]
	if !known {
		v = r.variantsOf(ns, p, e)
		r.variants[e] = v
	}
	if v == nil {
		return nil
	}
	return e
}

// isLoose reports whether a tuple's end is somewhere outside, or is the node of
// the pod at the other end, and its records have addresses that may tell more.
func isLoose(p *policies.FlowPeer) bool {
	return !p.Address.IsValid() && (p.OwnNode || isOutside(p))
}

// dependsOnRecord reports whether records of a tuple may come to something else
// than the tuple does.
func (r *reading) dependsOnRecord(t *Tuple, a *answer, from, to *recorded) bool {
	rulings := []*ruling{a.before}
	if r.after != nil {
		rulings = append(rulings, a.after)
	}
	allowed := true
	for _, is := range rulings {
		if is.cause == severalPods && (t.Flow.From.Pod == "" || t.Flow.To.Pod == "") {
			return true
		}
		allowed = allowed && is.verdict == policies.Allow
	}
	if r.varies(&t.Flow, a, from, to) {
		return true
	}
	// A pod always reaches itself, another of its workload perhaps not; and what
	// it sends to itself has examples of its own.
	if mayBeOnePod(&t.Flow, from, to) && !(allowed && r.allStay(t.Flow, a, from, to)) {
		return true
	}
	return (isLoose(&t.Flow.From) || isLoose(&t.Flow.To)) && !r.allStay(t.Flow, a, from, to)
}

// mayBeOnePod reports whether records of a tuple that does not keep pods apart may
// be of one that talks to itself.
func mayBeOnePod(f *policies.Flow, from, to *recorded) bool {
	return (f.From.Pod == "" || f.To.Pod == "") && from.group == to.group
}

// allStay reports whether all that was reported of a tuple stays as it is.
func (r *reading) allStay(f policies.Flow, a *answer, from, to *recorded) bool {
	return !slices.ContainsFunc(r.sides, func(side Side) bool {
		side.describe(&f)
		return r.of(a, r.countedBy(a, &f, from, to).kind).outcome != Stays
	})
}

// want notes that the example of a tally may be of a tuple.
func (r *reading) want(t *tally, at time.Time, tuple uint64) {
	first := r.wanted[t]
	switch {
	case first == nil:
		r.held++
		r.wanted[t] = &firstSeen{at, []uint64{tuple}}
	case at.Equal(first.at):
		first.tuples = append(first.tuples, tuple)
	case earliest(at, first.at).Equal(at):
		first.at, first.tuples = at, append(first.tuples[:0], tuple)
	}
}

// example keeps a record as an example where one is wanted.
func (r *reading) example(f policies.Flow) error {
	f.Count = max(1, f.Count)
	from, to := r.find(&f.From), r.find(&f.To)
	if missing(&f, from, to) != nil {
		return nil
	}
	a := r.ask(&f, from, to)
	if key := r.countedBy(a, &f, from, to); r.of(a, key.kind).hasRecord() {
		r.keep(r.tally(a, &f, from, to), &f, from, to)
	}
	return r.relieve()
}
