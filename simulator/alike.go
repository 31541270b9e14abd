package simulator

import (
	"encoding/binary"
	"time"

	"github.com/weir-policy/weir/policies"
)

// Alike is what records come to that get the same answer.
type Alike struct {
	Flow         policies.Flow // the earliest of the records
	Flows, Bytes uint64
	First, Last  time.Time
}

// Class is a number for ends of records: whoever has the same gets the same
// answers. Where Since is set, records from before it are of the class Before.
type Class struct {
	ID, Before int
	Since      time.Time
}

// classKey is what an end's part in an answer depends on.
type classKey struct {
	place, group   int32
	outside, twins bool
	cause, example string
}

// Class returns the class of an end.
func (r *Replayer) Class(p *policies.FlowPeer) Class {
	e := r.find(p)
	key := classKey{e.place, e.group, e.outside, !isOutside(p) && !p.OwnNode, e.before.cause, e.before.example}
	c := Class{ID: r.class(key), Since: e.since}
	if !e.since.IsZero() {
		c.Before = r.class(classKey{cause: younger.cause})
	}
	return c
}

func (r *Replayer) class(key classKey) int {
	id, known := r.classes[key]
	if !known {
		id = len(r.classes)
		r.classes[key] = id
	}
	return id
}

// Together reports whether records that are like f may be taken together: their
// ends are of the same classes, are both the same pod or not, and the protocol,
// the port, the verdict, the reporter and the hour are the same. Otherwise
// their ends are to be the same.
func (r *Replayer) Together(f *policies.Flow) bool {
	from, to := r.find(&f.From), r.find(&f.To)
	if missing(f, from, to) != nil {
		// Both sides' reports of ends that are nowhere find each other by name.
		return !isConnection(f) || sideOf(known(f.Verdict), f.EgressOnly, f.Origin.Reporter) == neither
	}
	return !r.countedBy(r.ask(f, from, to), f, from, to).isApart()
}

// AddAlike takes records as Add would one by one.
func (r *Replayer) AddAlike(s *Alike) {
	f := s.Flow
	f.Count, f.Bytes, f.First, f.Last = s.Flows, s.Bytes, s.First, s.Last
	r.take(&f, &s.Flow)
}

// Replayers take the same flows. Their worlds before the change are one.
type Replayers struct {
	all     []*Replayer
	classes map[string]int // by those of all
}

// Together returns replayers that take the same flows.
func Together(all ...*Replayer) *Replayers {
	return &Replayers{all, map[string]int{}}
}

// Add takes one flow.
func (r *Replayers) Add(f policies.Flow) {
	for _, one := range r.all {
		one.Add(f)
	}
}

// AddAlike takes records as Add would one by one.
func (r *Replayers) AddAlike(s *Alike) {
	for _, one := range r.all {
		one.AddAlike(s)
	}
}

// Together reports whether records that are like f may be taken together in every
// world.
func (r *Replayers) Together(f *policies.Flow) bool {
	for _, one := range r.all {
		if !one.Together(f) {
			return false
		}
	}
	return true
}

// Class returns the class of an end in all worlds.
func (r *Replayers) Class(p *policies.FlowPeer) Class {
	if len(r.all) == 1 {
		return r.all[0].Class(p)
	}
	var all Class
	var id, before []byte
	for _, one := range r.all {
		c := one.Class(p)
		id, before = binary.AppendUvarint(id, uint64(c.ID)), binary.AppendUvarint(before, uint64(c.Before))
		all.Since = c.Since
	}
	all.ID, all.Before = r.class(id), r.class(before)
	return all
}

func (r *Replayers) class(classes []byte) int {
	id, known := r.classes[string(classes)]
	if !known {
		id = len(r.classes)
		r.classes[string(classes)] = id
	}
	return id
}
