package simulator

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/weir-policy/weir/policies"
)

// Recorded is flows that are kept by tuple.
type Recorded interface {
	// Tuples calls each for every tuple. The Tuple is valid until each returns.
	Tuples(ctx context.Context, each func(*Tuple) error) error
	// Flows calls each for every record of the tuples with these IDs, which are sorted.
	Flows(ctx context.Context, tuples []uint64, each func(policies.Flow) error) error
}

// Tuple is all that was recorded between two identities on one port.
type Tuple struct {
	ID    uint64
	Flow  policies.Flow // its ends, protocol and port; an end's address is set only where all records have the same
	Hours []Hour        // in order of time; none where there are Sides
	Sides []Side        // what the hours come to, one for each side and verdict
}

// Side is what one side reported of a tuple, with one verdict.
type Side struct {
	Reporter     policies.Reporter
	Verdict      policies.Verdict
	EgressOnly   bool
	Flows, Bytes uint64
	First, Last  time.Time
	Hours        []HourFlows // in any order; what there is of an hour may come in parts
}

// HourFlows is how many flows began in an hour.
type HourFlows struct {
	Hour  int64 // since 1970, in UTC
	Flows uint64
}

// Hour is what one side reported of a tuple in one hour, with one verdict.
type Hour struct {
	Start        time.Time
	Reporter     policies.Reporter
	Verdict      policies.Verdict
	EgressOnly   bool
	Flows, Bytes uint64
	First, Last  time.Time

	// Only Sums says these.
	Records                           uint64
	Packets, ReplyBytes, ReplyPackets uint64
}

// Replay takes all flows of a recording, as Add would one by one, but reads
// records only of those tuples that need it: of the earliest flows that break,
// open or drift, for their example, and of tuples about which the answer depends
// on what only a record says, such as the address of an end outside. In what
// stays and in what is unknown, the example is the tuple in the hour that it was
// first seen.
//
// Where all there is outside gets the same answer, an end of which the recorder
// says that it is there is taken to be there, and is named as one of IPv4.
//
// Its memory is that of Add, and 8 bytes for each tuple that is read.
func (r *Replayer) Replay(ctx context.Context, recorded Recorded) error {
	reading := reading{Replayer: r, wanted: map[*tally]*firstSeen{}, variants: variantsByEnd{}}
	if err := recorded.Tuples(ctx, func(t *Tuple) error { reading.take(t); return nil }); err != nil {
		return fmt.Errorf("read tuples: %w", err)
	}
	byRecord := func(tuples []uint64, each func(policies.Flow)) error {
		if len(tuples) == 0 {
			return nil
		}
		slices.Sort(tuples)
		err := recorded.Flows(ctx, slices.Compact(tuples), func(f policies.Flow) error { each(f); return nil })
		if err != nil {
			return fmt.Errorf("read flows of %d tuples: %w", len(tuples), err)
		}
		return nil
	}
	if err := byRecord(reading.undecided, r.Add); err != nil {
		return err
	}
	var examples []uint64
	for _, first := range reading.wanted {
		examples = append(examples, first.tuples...)
	}
	if err := byRecord(examples, reading.example); err != nil {
		return err
	}
	var lacking []uint64
	for t, first := range reading.wanted {
		if t.example.Count == 0 {
			lacking = append(lacking, first.tuples...)
		}
	}
	if len(lacking) > 0 {
		return fmt.Errorf("tuple %d counts flows of which there is no record; verify the store", slices.Min(lacking))
	}
	return nil
}

// reading is a recording on its way into a Replayer.
type reading struct {
	*Replayer
	undecided []uint64 // tuples that are decided record by record
	wanted    map[*tally]*firstSeen
	sides     []Side // of the tuple at hand
	summed    []Side // the space of those that are summed up here
	variants  variantsByEnd
}

// firstSeen is the tuples among whose records the example of a tally is.
type firstSeen struct {
	at     time.Time
	tuples []uint64
}

// take counts a tuple's hours, or puts it with those that are decided record by
// record.
func (r *reading) take(t *Tuple) {
	from, to := r.locate(&t.Flow.From), r.locate(&t.Flow.To)
	if from == nil || to == nil || !from.since.IsZero() || !to.since.IsZero() {
		r.undecided = append(r.undecided, t.ID)
		return
	}
	f := t.Flow
	r.sides = t.Sides
	if len(t.Hours) > 0 {
		r.sides = r.sum(t.Hours)
	}
	if cause := missing(&f, from, to); cause != nil {
		for i := range r.sides {
			side := &r.sides[i]
			side.describe(&f)
			r.total.add(&f)
			u := r.miss(cause, f.Count)
			if c := u.connection(&f); c != nil {
				c.add(side.of(), f.Count, f.Bytes)
				c.pairing.addHours(side.of(), side.Hours)
			}
		}
		return
	}
	a := r.ask(&f, from, to)
	if r.dependsOnRecord(t, a, from, to) {
		r.undecided = append(r.undecided, t.ID)
		return
	}
	for i := range r.sides {
		side := &r.sides[i]
		side.describe(&f)
		r.total.add(&f)
		counts := r.tally(a, &f, from, to)
		counts.add(&f)
		switch r.sentence(a, r.countedBy(a, &f, from, to)).outcome {
		case Breaks, Opens, Drifts:
			r.want(counts, f.First, t.ID)
		default:
			counts.keepFirst(&f)
		}
		if hasTwins(&f) {
			a.pairing.addHours(side.of(), side.Hours)
		}
	}
}

// sum adds up hours in which one side reported one verdict.
func (r *reading) sum(hours []Hour) []Side {
	r.summed = r.summed[:0]
	for i := range hours {
		h := &hours[i]
		at := slices.IndexFunc(r.summed, func(s Side) bool {
			return s.Reporter == h.Reporter && s.Verdict == h.Verdict && s.EgressOnly == h.EgressOnly
		})
		if at < 0 {
			at = len(r.summed)
			r.summed = append(r.summed, Side{Reporter: h.Reporter, Verdict: h.Verdict, EgressOnly: h.EgressOnly})
		}
		s, flows := &r.summed[at], max(1, h.Flows)
		s.Flows, s.Bytes = s.Flows+flows, s.Bytes+h.Bytes
		s.First, s.Last = earliest(s.First, h.First), latest(s.Last, h.Last)
		s.Hours = append(s.Hours, HourFlows{floorDiv(h.Start.Unix(), 3600), flows})
	}
	return r.summed
}

// describe makes a flow of what a side reported.
func (s *Side) describe(f *policies.Flow) {
	f.First, f.Last, f.Verdict, f.EgressOnly = s.First, s.Last, s.Verdict, s.EgressOnly
	f.Count, f.Bytes, f.Origin.Reporter = s.Flows, s.Bytes, s.Reporter
}

// describe makes a flow of what was reported in an hour.
func (h *Hour) describe(f *policies.Flow) {
	f.First, f.Last, f.Verdict, f.EgressOnly = h.First, h.Last, h.Verdict, h.EgressOnly
	f.Count, f.Bytes, f.Origin.Reporter = h.Flows, h.Bytes, h.Reporter
}

// of returns whose report it is.
func (s *Side) of() side { return sideOf(known(s.Verdict), s.EgressOnly, s.Reporter) }

// keepFirst is keepEarliest for a flow whose maps and slices may change.
func (t *tally) keepFirst(f *policies.Flow) {
	if t.example.Count > 0 && compareExamples(f, &t.example) >= 0 {
		return
	}
	t.example = *f
	t.example.From, t.example.To = kept(f.From), kept(f.To)
}

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
	rulings := []*ruling{&a.before}
	if r.after != nil {
		rulings = append(rulings, &a.after)
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
		return r.sentence(a, r.countedBy(a, &f, from, to)).outcome != Stays
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
		t.keepEarliest(&f)
	}
}
