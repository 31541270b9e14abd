package simulator

import (
	"cmp"
	"errors"
	"hash/fnv"

	"github.com/weir-policy/weir/policies"
)

// Spill bounds how many answers and counts a Replay holds; where most is 0 that is
// 450,000, three for each tuple, in some 100 MB. Rows and the like that are more than that
// go on a Scratch, of which several may be open at a time. Without open, all is held.
func (r *Replayer) Spill(open func() (Scratch, error), most int) {
	r.open, r.most = open, cmp.Or(most, 450_000)
}

// portion is a part of what was recorded. All reports of one connection are in the
// same, and so is all that gets one answer: what portions come to may be added up.
type portion struct{ from, to uint64 } // of what partOf says; to is not of it

// share is a portion, and its tuples where those were put aside.
type share struct {
	portion
	tuples *spool
}

var everything = portion{0, 1 << 32}

// errFull says that a portion is too much to be held.
var errFull = errors.New("there are more answers than can be held at a time")

func (p portion) has(part uint32) bool { return p.from <= uint64(part) && uint64(part) < p.to }

// takes reports whether a flow is of the portion.
func (r *Replayer) takes(f *policies.Flow, from, to *recorded, nowhere *place) bool {
	return r.portion == everything || r.portion.has(partOf(f, from, to, nowhere))
}

// isFull reports whether too much is held, and less can be.
func (r *Replayer) isFull() bool {
	return r.open != nil && r.held > r.most && r.portion.to-r.portion.from > 1
}

// forget gives up what is held of the portion.
func (r *Replayer) forget() {
	clear(r.questions)
	clear(r.answers)
	clear(r.unresolved)
	r.total, r.held = tally{}, 0
}

// settle adds what is held of the portion to what was settled before.
func (r *Replayer) settle() error {
	if r.settled == nil {
		r.settled = r.newSum()
	}
	err := r.settled.add()
	r.forget()
	return err
}

// partOf returns a number that flows have in common where they are counted together.
func partOf(f *policies.Flow, from, to *recorded, nowhere *place) uint32 {
	var ends uint64
	switch {
	case nowhere == nil:
		ends = uint64(uint32(from.group))<<32 | uint64(uint32(to.group))
	case !isConnection(f):
		return 0
	default:
		h := fnv.New64a()
		for _, end := range [...]endName{nameOf(&f.From), nameOf(&f.To)} {
			_, _ = h.Write([]byte(end.namespace + "/" + end.name + "/")) // which has no errors
		}
		ends = h.Sum64()
	}
	return uint32(scatter(scatter(ends)^uint64(f.Protocol)<<16^uint64(f.Port)) >> 32)
}

// scatter is the end of the hash SplitMix64.
func scatter(n uint64) uint64 {
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}

// spread counts a portion's tuples by their parts.
type spread struct {
	counts   [1 << 12]uint32
	all, fit int // fit is how many of them could be held
}

func (s *spread) add(p portion, part uint32) {
	s.counts[(uint64(part)-p.from)*uint64(len(s.counts))/(p.to-p.from)]++
	s.all++
}

// portions cuts a portion into such as can be held, some room left. What is held of
// tuples that are decided record by record does not count.
func (s *spread) portions(p portion, most int) (all []portion) {
	fit, sum, from := max(s.fit, most/4)*3/4, 0, p.from
	for i, n := range s.counts {
		at := p.from + (p.to-p.from)*uint64(i)/uint64(len(s.counts))
		if sum += int(n); sum > fit && at > from {
			all = append(all, portion{from, at})
			from, sum = at, int(n)
		}
	}
	return append(all, portion{from, p.to})
}
