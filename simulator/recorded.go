package simulator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
// with the distinct ends, questions and tuples, and with the addresses outside whose
// flows do not stay as they are; but with Spill, what is too much is taken in portions, for
// each of which the recording is read again. A Replayer takes nothing more after that.
func (r *Replayer) Replay(ctx context.Context, recorded Recorded) error {
	reading := reading{Replayer: r}
	left := []*share{{portion: everything}}
	for len(left) > 0 {
		at := left[0]
		left = left[1:]
		r.portion = at.portion
		err := reading.read(ctx, recorded, at.tuples)
		if errors.Is(err, errFull) {
			r.forget()
			smaller, err := reading.smaller(at)
			if err != nil {
				return err
			}
			left = append(smaller, left...)
			continue
		}
		if err == nil && at.tuples != nil {
			err = at.tuples.Close()
		}
		if err == nil && (len(left) > 0 || r.settled != nil) {
			err = r.settle()
		}
		if err != nil {
			return err
		}
	}
	r.portion = everything
	clear(r.questions) // they take room, and are answered again where they are asked
	return nil
}

// reading is a recording on its way into a Replayer.
type reading struct {
	*Replayer
	undecided []uint64 // tuples that are decided record by record
	undone    sides    // who reports those
	known     bool     // they are, from a portion before
	others    []*share // whose tuples are put aside
	line      []byte

	// Of the portion:
	paired   []paired // tuples that may have twins
	wanted   map[*tally]*firstSeen
	sides    []Side // of the tuple at hand
	variants variantsByEnd
	spread   spread // of its tuples
	full     bool   // they are too many, and counted only
}

// paired is a tuple whose reports may be twins of others.
type paired struct {
	tuple uint64
	of    *pairs
}

// firstSeen is the tuples among whose records the example of a tally is.
type firstSeen struct {
	at     time.Time
	tuples []uint64
}

// read takes the portion of a recording, or finds that it is too much. Its tuples may
// have been put aside.
func (r *reading) read(ctx context.Context, recorded Recorded, aside *spool) error {
	r.paired, r.wanted, r.variants, r.spread, r.full = nil, map[*tally]*firstSeen{}, variantsByEnd{}, spread{}, false
	tuples := recorded.Tuples
	if aside != nil {
		tuples = aside.tuples
	}
	if err := tuples(ctx, r.take); err != nil {
		return fmt.Errorf("read tuples: %w", err)
	}
	for _, other := range r.others {
		if err := other.tuples.flush(); err != nil {
			return err
		}
	}
	r.others = nil
	if !r.known {
		slices.Sort(r.undecided)
		r.known = true
	}
	r.variants = nil
	if r.full {
		return errFull
	}
	return r.readDays(ctx, recorded)
}

// take counts a tuple, or puts it with those that are decided record by record.
func (r *reading) take(t *Tuple) error {
	if r.known {
		if _, is := slices.BinarySearch(r.undecided, t.ID); is {
			return nil
		}
	}
	if len(r.variants) >= mostEnds {
		clear(r.variants)
	}
	r.sides = t.Sides
	from, to := r.locate(&t.Flow.From), r.locate(&t.Flow.To)
	if from == nil || to == nil || !from.since.IsZero() || !to.since.IsZero() {
		r.postpone(t)
		return nil
	}
	f := t.Flow
	cause := missing(&f, from, to)
	mine, err := r.mine(t, from, to, cause)
	if err != nil {
		return err
	}
	if cause != nil {
		if !mine {
			return nil
		}
		for i := range r.sides {
			side := &r.sides[i]
			side.describe(&f)
			r.total.add(&f)
			u := r.miss(cause, f.Count)
			if c := r.connection(u, &f); c != nil {
				c.add(side.of(), f.Count, f.Bytes)
				r.pair(t.ID, &c.pairs)
			}
		}
		return nil
	}
	if r.known && !mine {
		return nil
	}
	a := r.ask(&f, from, to)
	if !r.known && r.dependsOnRecord(t, a, from, to) {
		r.postpone(t)
		return nil
	}
	if !mine {
		return nil
	}
	for i := range r.sides {
		side := &r.sides[i]
		side.describe(&f)
		r.total.add(&f)
		counts := r.tally(a, &f, from, to)
		counts.add(&f)
		switch r.of(a, r.countedBy(a, &f, from, to).kind).outcome {
		case Breaks, Opens, Drifts:
			r.want(counts, f.First, t.ID)
		default:
			counts.keep(&f, from, to)
		}
	}
	if hasTwins(&f) {
		r.pair(t.ID, &a.pairs)
	}
	return nil
}

// mine reports whether a tuple is to be counted: it is of the portion, which is not
// too much so far. It puts tuples of others aside.
func (r *reading) mine(t *Tuple, from, to *recorded, nowhere *place) (bool, error) {
	if r.isFull() {
		if !r.full {
			r.full, r.paired, r.wanted = true, nil, nil
			r.spread.fit = r.spread.all
		}
		r.forget()
	}
	if r.open == nil {
		return true, nil
	}
	at := partOf(&t.Flow, from, to, nowhere)
	if r.portion.has(at) {
		r.spread.add(r.portion, at)
		return !r.full, nil
	}
	for _, other := range r.others {
		if other.has(at) {
			r.line = appendTuple(r.line[:0], t)
			return false, other.tuples.write(r.line)
		}
	}
	return false, nil
}

// smaller returns shares of one that was too much. The tuples of the first are still
// among those of the whole; when they are read, those of the others are put aside.
func (r *reading) smaller(of *share) (all []*share, err error) {
	middle := of.from + (of.to-of.from)/2
	portions := []portion{{of.from, middle}, {middle, of.to}}
	if r.full {
		portions = r.spread.portions(of.portion, r.most)
	}
	for i, p := range portions {
		s := &share{p, of.tuples}
		if i > 0 {
			if s.tuples, err = newSpool(r.open); err != nil {
				return nil, err
			}
		}
		all = append(all, s)
	}
	r.others = all[1:]
	return all, nil
}

// postpone notes that a tuple is decided record by record.
func (r *reading) postpone(t *Tuple) {
	r.undecided = append(r.undecided, t.ID)
	if hasTwins(&t.Flow) {
		r.undone |= r.whoReports()
	}
}

// whoReports returns which sides report the tuple at hand.
func (r *reading) whoReports() (all sides) {
	for i := range r.sides {
		all |= r.sides[i].of().alone()
	}
	return all
}

// pair notes among which reports those of the tuple at hand may have twins.
func (r *reading) pair(tuple uint64, of *pairs) {
	reporting := r.whoReports()
	if n := len(r.paired); reporting == 0 || n > 0 && r.paired[n-1] == (paired{tuple, of}) {
		return
	}
	of.both |= reporting
	r.paired = append(r.paired, paired{tuple, of})
}

// readDays reads of each day the hours of tuples that both sides report, and the
// records that tell more than their tuples.
func (r *reading) readDays(ctx context.Context, recorded Recorded) error {
	r.paired = slices.DeleteFunc(r.paired, func(p paired) bool { return p.of.both|r.undone != bothSides })
	slices.SortFunc(r.paired, func(a, b paired) int { return cmp.Compare(a.tuple, b.tuple) })
	if len(r.paired)+len(r.undecided)+len(r.wanted) == 0 {
		return nil
	}
	ids := make([]uint64, len(r.paired))
	for i := range ids {
		ids[i] = r.paired[i].tuple
	}
	firsts, moments := map[int64][]uint64{}, map[time.Time]bool{}
	for _, first := range r.wanted {
		day := dayOf(first.at)
		firsts[day] = append(firsts[day], first.tuples...)
		moments[first.at.UTC()] = true
	}
	days, err := recorded.Days(ctx)
	if err != nil {
		return fmt.Errorf("find days of flows: %w", err)
	}
	for _, day := range days {
		if len(ids) > 0 {
			if err := recorded.Hours(ctx, day, ids, r.addHours); err != nil {
				return fmt.Errorf("read hours of %d tuples on %s: %w", len(ids), day.Format(time.DateOnly), err)
			}
		}
		tuples := slices.Concat(r.undecided, firsts[dayOf(day)])
		slices.Sort(tuples)
		for tuples := range slices.Chunk(slices.Compact(tuples), mostTuples) {
			err := recorded.Flows(ctx, day, tuples, func(tuple uint64, f *policies.Flow) error {
				if _, is := slices.BinarySearch(r.undecided, tuple); is {
					r.Add(*f)
					if r.isFull() {
						return errFull
					}
				} else if moments[f.First.UTC()] {
					r.example(*f)
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("read flows of %d tuples on %s: %w", len(tuples), day.Format(time.DateOnly), err)
			}
		}
		r.eachPairing(func(p *pairing) { p.settle(int32(dayOf(day)) + 1) })
	}
	r.eachPairing(func(p *pairing) { p.days = nil }) // all are settled
	var lacking []uint64
	for t, first := range r.wanted {
		if t.example == nil {
			lacking = append(lacking, first.tuples...)
		}
	}
	if len(lacking) > 0 {
		return fmt.Errorf("tuple %d counts flows of which there is no record; verify the store", slices.Min(lacking))
	}
	return nil
}

// mostTuples is of how many tuples records are asked for at a time.
const mostTuples = 1 << 16

// addHours puts hours of a tuple among those of which they may be twins.
func (r *reading) addHours(tuple uint64, of *Side, hours []HourFlows) error {
	if i, known := slices.BinarySearchFunc(r.paired, tuple, func(p paired, id uint64) int { return cmp.Compare(p.tuple, id) }); known {
		r.paired[i].of.addHours(of.of(), hours)
	}
	return nil
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
		r.wanted[t] = &firstSeen{at, []uint64{tuple}}
	case at.Equal(first.at):
		first.tuples = append(first.tuples, tuple)
	case earliest(at, first.at).Equal(at):
		first.at, first.tuples = at, append(first.tuples[:0], tuple)
	}
}

// example keeps a record as an example where one is wanted.
func (r *reading) example(f policies.Flow) {
	f.Count = max(1, f.Count)
	from, to := r.find(&f.From), r.find(&f.To)
	if missing(&f, from, to) != nil {
		return
	}
	a := r.ask(&f, from, to)
	if t := a.tally(r.countedBy(a, &f, from, to)); r.wanted[t] != nil {
		t.keep(&f, from, to)
	}
}
