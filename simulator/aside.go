package simulator

import (
	"cmp"
	"errors"
	"strings"
)

// Spill bounds how many answers and counts a Replay, or who adds flows one by one,
// holds; where most is 0 that is 250,000, some three for each tuple, in some 60 MB.
// What is more than that goes on a Scratch, of which several may be open at a time.
// Without open, all is held.
func (r *Replayer) Spill(open func() (Scratch, error), most int) {
	r.open, r.most = open, cmp.Or(most, 250_000)
}

// owner is what reports are paired by: an answer, or where named is set the
// connections of two ends that are nowhere.
type owner struct {
	answerKey
	named *namedConnection
}

type namedConnection struct {
	cause string
	connectionKey
}

func (o *owner) compare(p *owner) int {
	switch {
	case o.named == nil && p.named == nil:
		return o.answerKey.compare(&p.answerKey)
	case o.named == nil:
		return -1
	case p.named == nil:
		return 1
	}
	a, b := o.named, p.named
	return cmp.Or(
		strings.Compare(a.cause, b.cause), a.from.compare(b.from), a.to.compare(b.to),
		cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.port, b.port),
	)
}

func (n endName) compare(m endName) int {
	return cmp.Or(strings.Compare(n.namespace, m.namespace), strings.Compare(n.name, m.name))
}

func (k *answerKey) compare(l *answerKey) int {
	c := cmp.Or(cmp.Compare(k.from, l.from), cmp.Compare(k.to, l.to), cmp.Compare(k.port, l.port), cmp.Compare(k.protocol, l.protocol))
	switch {
	case c != 0:
		return c
	case k.leaves != l.leaves:
		if l.leaves {
			return -1
		}
		return 1
	}
	return cmp.Or(k.before.compare(l.before), k.after.compare(l.after))
}

func (r *ruling) compare(s *ruling) int {
	return cmp.Or(cmp.Compare(r.verdict, s.verdict), strings.Compare(r.cause, s.cause))
}

// part is some of what was counted of an owner: its reports that may have twins, or
// a tally.
type part struct {
	owner
	pairs *pairing // nil for a tally
	key   tallyKey
	tally
}

func compareParts(a, b *part) int {
	if c := a.owner.compare(&b.owner); c != 0 {
		return c
	}
	if a.pairs != nil || b.pairs != nil {
		switch {
		case b.pairs == nil:
			return -1
		case a.pairs == nil:
			return 1
		}
		return 0
	}
	return a.key.compare(b.key)
}

// relieve puts what is counted aside where too much is held.
func (r *Replayer) relieve() error {
	if r.open == nil || r.held <= r.most || r.failed != nil {
		return r.failed
	}
	r.failed = r.putAside()
	return r.failed
}

// putAside puts all aside that is counted by answer or connection, so that it is
// counted on from nothing. Nobody may have hold of an answer or a tally.
func (r *Replayer) putAside() error {
	if r.aside == nil {
		r.aside = &sorter[part]{open: r.open, most: max(2, r.most/8), compare: compareParts, append: appendPart, read: r.readPart}
	}
	var errs []error
	add := func(p part) {
		if len(errs) == 0 {
			if err := r.aside.add(p); err != nil {
				errs = append(errs, err)
			}
		}
	}
	for _, a := range r.answers {
		of := owner{answerKey: a.answerKey}
		if a.pairs.among != nil {
			add(part{owner: of, pairs: a.pairs.among})
		}
		for _, key := range a.keys() {
			add(part{owner: of, key: key, tally: *a.tally(key)})
		}
	}
	for cause, u := range r.unresolved {
		for key, c := range u.named {
			of := owner{named: &namedConnection{cause, key}}
			if c.pairs.among != nil {
				add(part{owner: of, pairs: c.pairs.among})
			}
			add(part{owner: of, tally: c.half})
		}
		u.named = nil
	}
	clear(r.questions)
	clear(r.answers)
	r.held = 0
	r.generation++
	return errors.Join(append(errs, r.aside.spill())...)
}

// pairsOf returns where reports of an owner are counted.
func (r *Replayer) pairsOf(o *owner) *pairs {
	if o.named != nil {
		return &r.named(r.unresolved[o.named.cause], o.named.connectionKey).pairs
	}
	return &r.answer(o.answerKey).pairs
}

// addAside adds what was put aside.
func (s *sum) addAside() error {
	var of counting
	var last *owner
	return s.aside.eachJoined((*part).join, func(p *part) error {
		if last == nil || last.compare(&p.owner) != 0 {
			last, of = &p.owner, counting{answer: &answer{answerKey: p.answerKey}}
		}
		switch {
		case p.pairs != nil && p.named != nil:
			of.matched = p.pairs.matched()
		case p.pairs != nil:
			s.match(&of, p.pairs.matched())
		case p.named != nil:
			s.addNamed(p.named.cause, p.tally, of.matched)
		default:
			return s.count(&of, p.key, p.tally)
		}
		return nil
	})
}

// join adds a part of the same.
func (p *part) join(of *part) {
	if p.pairs != nil {
		p.pairs.join(of.pairs)
		return
	}
	p.flows += of.flows
	p.bytes += of.bytes
	p.seen = p.seen.join(of.seen.First(), of.seen.Last())
	if of.example != nil && (p.example == nil || compareExamples(of.example, p.example) < 0) {
		p.example = of.example
	}
}
