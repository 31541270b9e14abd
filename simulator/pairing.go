package simulator

import (
	"cmp"
	"iter"
	"slices"
	"time"

	"github.com/weir-policy/weir/policies"
)

// pairing recognises the connections of one question that both sides have
// reported. What the source's side alone has let go says less than what the
// destination's side reports of the same connection, so as many reports of the
// former as have one of the latter, whatever its verdict, are counted once. The
// two may begin in neighbouring hours, no further apart.
//
// It keeps two counts for each hour, so the order of reports plays no part; a day
// takes 100 bytes, until it is settled.
type pairing struct {
	days    []day
	last    int               // the place of a day that was asked for
	high    map[hourOf]uint64 // what a count has above its lowest 16 bits
	settled uint64            // reports that have a twin, of days before those
	left    remains
}

// pairs are the reports of one question. Most have none that may be twins.
type pairs struct{ among *pairing }

func (p *pairs) addHours(s side, hours []HourFlows) {
	if s == neither {
		return
	}
	if p.among == nil {
		p.among = &pairing{}
	}
	p.among.addHours(s, hours)
}

func (p *pairs) add(f *policies.Flow) {
	p.addHours(sideOf(known(f.Verdict), f.EgressOnly, f.Origin.Reporter), []HourFlows{{floorDiv(f.First.Unix(), 3600), f.Count}})
}

// days returns how many days are held.
func (p *pairs) days() int {
	if p.among == nil {
		return 0
	}
	return len(p.among.days)
}

func (p *pairs) matched() uint64 {
	if p.among == nil {
		return 0
	}
	return p.among.matched()
}

// remains is what the last hour before has of reports without a twin.
type remains struct {
	hour   int64
	counts [2]uint64
}

// sides are some of departed and arrived.
type sides uint8

func (s side) alone() sides {
	if s == neither {
		return 0
	}
	return 1 << s
}

const bothSides = 1<<departed | 1<<arrived

// day is the counts of a day's hours, by side.
type day struct {
	number int32 // since 1970, in UTC
	counts [24][2]uint16
}

type hourOf struct {
	hour int64 // since 1970
	side side
}

// side is whose report may have a twin.
type side uint8

const (
	departed side = iota // the source's, with no word of the destination's
	arrived              // the destination's
	neither
)

// sideOf returns whose report a record is.
func sideOf(verdict policies.Verdict, egressOnly bool, reporter policies.Reporter) side {
	switch {
	case verdict == policies.Allow && egressOnly, verdict == policies.Unknown && reporter == policies.SourceSide:
		return departed
	case reporter == policies.DestinationSide:
		return arrived
	}
	return neither
}

func (p *pairing) add(at time.Time, s side, flows uint64) {
	p.addHours(s, []HourFlows{{floorDiv(at.Unix(), 3600), flows}})
}

func (p *pairing) addHours(s side, hours []HourFlows) {
	if s == neither {
		return
	}
	for _, h := range hours {
		d := p.day(int32(floorDiv(h.Hour, 24)))
		count := &d.counts[h.Hour-24*int64(d.number)][s]
		sum := uint64(*count) + h.Flows
		*count = uint16(sum)
		if sum >>= 16; sum > 0 {
			if p.high == nil {
				p.high = map[hourOf]uint64{}
			}
			p.high[hourOf{h.Hour, s}] += sum
		}
	}
}

// day returns the counts of a day. Mostly it is the one that was asked for last,
// or the next.
func (p *pairing) day(number int32) *day {
	for range 2 {
		if p.last < len(p.days) && p.days[p.last].number == number {
			return &p.days[p.last]
		}
		p.last++
	}
	var found bool
	p.last, found = slices.BinarySearchFunc(p.days, number, func(d day, n int32) int { return cmp.Compare(d.number, n) })
	if !found {
		p.days = slices.Insert(p.days, p.last, day{number: number})
	}
	return &p.days[p.last]
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// hours yields the counts of each hour of some days, in order, but for those of
// nothing.
func (p *pairing) hours(days []day) iter.Seq2[int64, [2]uint64] {
	return func(yield func(int64, [2]uint64) bool) {
		for i := range days {
			for h, low := range days[i].counts {
				hour := 24*int64(days[i].number) + int64(h)
				counts := [2]uint64{
					uint64(low[departed]) + p.high[hourOf{hour, departed}]<<16,
					uint64(low[arrived]) + p.high[hourOf{hour, arrived}]<<16,
				}
				if counts != [2]uint64{} && !yield(hour, counts) {
					return
				}
			}
		}
	}
}

// join adds reports of the same question. Of one of the two at most may days be settled.
func (p *pairing) join(of *pairing) {
	p.settled += of.settled
	if of.left != (remains{}) {
		p.left = of.left
	}
	for hour, counts := range of.hours(of.days) {
		for s, flows := range counts {
			if flows > 0 {
				p.addHours(side(s), []HourFlows{{hour, flows}})
			}
		}
	}
}

// matched returns how many reports of the source's side have a twin: the most
// that can be, for twins of the same hour or of neighbouring ones.
func (p *pairing) matched() uint64 {
	flows := p.settled
	p.matches(p.days, func(_ int64, n uint64) { flows += n })
	return flows
}

// settle matches reports of days before one, of which no more come.
func (p *pairing) settle(before int32) {
	n := 0
	for n < len(p.days) && p.days[n].number < before {
		n++
	}
	if n == 0 {
		return
	}
	p.left = p.matches(p.days[:n], func(_ int64, flows uint64) { p.settled += flows })
	for of := range p.high {
		if of.hour < 24*int64(before) {
			delete(p.high, of)
		}
	}
	p.days, p.last = slices.Delete(p.days, 0, n), 0
}

// matches calls each for reports of the source's side that have a twin, and the
// hour that they are of. It returns what the last hour has left.
func (p *pairing) matches(days []day, each func(hour int64, flows uint64)) remains {
	match := func(hour int64, a, b *uint64) {
		if n := min(*a, *b); n > 0 {
			*a, *b = *a-n, *b-n
			each(hour, n)
		}
	}
	last := p.left
	for hour, counts := range p.hours(days) {
		if hour != last.hour+1 {
			last.counts = [2]uint64{}
		}
		// The hour before comes first, for nothing later can match what is left of it.
		match(last.hour, &last.counts[departed], &counts[arrived])
		match(hour, &last.counts[arrived], &counts[departed])
		match(hour, &counts[departed], &counts[arrived])
		last = remains{hour, counts}
	}
	return last
}
