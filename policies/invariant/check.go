package invariant

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/expression"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// State is what became of an invariant.
type State uint8

// The states.
const (
	Unchecked State = iota
	Holds
	Broken
	Unknown // nothing breaks it for sure, and something may
	Waived  // all that breaks it is waived
	Invalid // it could not be asked
)

var states = [...]string{"unchecked", "holds", "broken", "unknown", "waived", "invalid"}

func (s State) String() string { return states[s] }

// MostCounterexamples is how many a result has.
const MostCounterexamples = 5

// Result is what was found of an invariant.
type Result struct {
	*Invariant
	State State
	// Counterexamples are some of what breaks it, or of what is waived where all of
	// it is. Broken and Waived are how many pairs there are of each, with addresses
	// outside by range; for Isolated how many pods, for CEL and Rego how many items.
	Counterexamples []Counterexample
	Broken, Waived  int
	// Unknown is how many pairs may break it, or not; Doubt is one of them, where the
	// state is Unknown.
	Unknown         int
	Doubt           *Counterexample
	Problem         string // why it could not be asked, where the state is Invalid, or of one Unseen
	Vacuous         string // whom nobody is, so that it speaks of nothing; empty else
	Expired, Unused []*Waiver
	// Absent says which network sets it names that are not there, a clause each.
	Absent []string

	unseen bool
	whom   []whom // whom an expression or a policy in Rego names
}

// Unseen returns a result as of a world that may have changed without being seen, for
// some reason: it cannot be told.
func (r Result) Unseen(why string) *Result {
	r.State, r.Problem, r.Doubt, r.unseen = Unknown, why, nil, true
	return &r
}

// IsUnseen reports whether it comes from Unseen.
func (r *Result) IsUnseen() bool { return r.unseen }

// Counterexample is what breaks an invariant: a connection, a pod that is not
// isolated, or whatever an expression or a policy in Rego says. Of a connection that
// Recheck or Worse found only Ports, Pairs and Waiver are set until it is explained.
type Counterexample struct {
	From, To policies.Peer
	Ports    netset.Ports // all on which it does; none for a pod or a text
	// Protocol and Port are the lowest of them.
	Protocol netset.Protocol
	Port     uint16
	Decision policies.Decision // on the lowest port, without the rules that do not match
	// Because says why, as one clause: of the rule or end of a tier that decides,
	// whose place At is, if there is one.
	Because string
	Says    string // what a policy in Rego says of it
	Policy  *policies.Ref
	At      policies.Place
	Pairs   int // that are decided like this one
	Waiver  *Waiver

	ends  [2]reach.End
	judge *reach.Judge // that is to explain it; nil where nothing is left to explain
	named string       // the ends, as an expression or a policy in Rego names them
}

// Set is invariants that are ready to be checked against one judge. It serves one
// goroutine.
type Set struct {
	// Steps is how many an expression may take, RegoSteps how many a policy in Rego.
	// SkipExpressions keeps Recheck from evaluating any.
	Steps, RegoSteps uint64
	SkipExpressions  bool
	// Recorded is what policies in Rego find that ask what was recorded; to Recheck
	// nothing was.
	Recorded expression.Recorded

	judge      *reach.Judge
	invariants []Invariant
	groups     []groups
	found      []*numbers // of each that is plain; nil where it was not checked
	world      *expression.World
	regoMemory any
	workloads  map[policies.Ref][]int
}

// numbers are how many pairs, or pods, break an invariant, and how many may.
type numbers struct{ broken, unknown int }

// plain reports whether all that breaks an invariant may be counted together: nothing
// is waived, and the same ports are meant everywhere.
func (i *Invariant) plain() bool {
	return !i.Form.isProgram() && len(i.Waivers) == 0 && !slices.ContainsFunc(i.Ports, func(p policies.PortQuery) bool { return p.Name != "" })
}

// groups are whom an invariant and its waivers speak of.
type groups struct {
	from, to reach.Group
	ports    netset.Ports      // all that may be meant anywhere
	waivers  [][2]*reach.Group // nil for everyone
}

// Apart asks a judge to tell apart whom the invariants speak of.
func Apart(o reach.Options, invariants ...Invariant) reach.Options {
	o.Apart = append(o.Apart[:len(o.Apart):len(o.Apart)], Matches(invariants)...)
	for k := range invariants {
		for _, p := range invariants[k].Ports {
			if p.Name != "" {
				o.ApartNames = append(o.ApartNames[:len(o.ApartNames):len(o.ApartNames)], p.Name)
			}
		}
	}
	return o
}

// Prepare readies invariants for a judge whose options come from Apart. It fails
// where the judge does not tell apart whom they speak of.
func Prepare(j *reach.Judge, invariants []Invariant) (*Set, error) {
	s := &Set{
		Steps: expression.Steps, RegoSteps: expression.ProgramSteps,
		judge: j, invariants: invariants, groups: make([]groups, len(invariants)), found: make([]*numbers, len(invariants)),
	}
	for k := range invariants {
		s.groups[k].waivers = make([][2]*reach.Group, len(invariants[k].Waivers))
	}
	err := s.group(s.groups, func(_ reach.Group, matches ...policies.Match) (reach.Group, bool) { return j.GroupOf(matches...) })
	if err != nil {
		return nil, err
	}
	return s, nil
}

// group finds whom the invariants speak of, given those whom they spoke of before.
func (s *Set) group(before []groups, find func(before reach.Group, matches ...policies.Match) (reach.Group, bool)) error {
	all := make([]groups, len(before))
	for k := range s.invariants {
		i, was, g := &s.invariants[k], &before[k], &all[k]
		ok := true
		group := func(before reach.Group, matches []policies.Match) reach.Group {
			found, told := find(before, matches...)
			ok = ok && told
			return found
		}
		from, to := i.ends()
		g.from, g.to = group(was.from, from), group(was.to, to)
		g.ports = s.portsOf(i, g.to)
		g.waivers = make([][2]*reach.Group, len(i.Waivers))
		for w := range i.Waivers {
			for side, matches := range [2][]policies.Match{i.Waivers[w].From, i.Waivers[w].To} {
				if len(matches) > 0 {
					var before reach.Group
					if was.waivers[w][side] != nil {
						before = *was.waivers[w][side]
					}
					found := group(before, matches)
					g.waivers[w][side] = &found
				}
			}
		}
		if !ok {
			return fmt.Errorf("invariant %s: the judge was not made for it", i.Ref.Name)
		}
	}
	s.groups = all
	return nil
}

// Check evaluates all of the invariants at a moment, in their order. It fails only
// when the context is done.
func (s *Set) Check(ctx context.Context, now time.Time) ([]Result, error) {
	results := make([]Result, len(s.invariants))
	for k := range s.invariants {
		var err error
		if results[k], err = s.check(ctx, k, now, s.sight(k)); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// sight is where to look for what breaks an invariant.
type sight struct {
	all       *numbers // that there are; nil where it is not plain, so that they are to be counted
	here      numbers  // of them, that can be seen
	most      int      // how many examples are enough
	brief     bool     // whoever shows them explains them
	crossings func(...policies.Verdict) iter.Seq[reach.Crossing]
	members   iter.Seq[reach.Member]
}

// sight returns all there is.
func (s *Set) sight(k int) sight {
	g := &s.groups[k]
	at := sight{all: s.numbersOf(k), most: MostCounterexamples, members: s.judge.Members(g.from)}
	at.crossings = func(want ...policies.Verdict) iter.Seq[reach.Crossing] {
		return s.judge.Between(g.from, g.to, g.ports, want...)
	}
	if at.all != nil {
		at.here = *at.all
	}
	return at
}

// numbersOf returns those of a plain invariant, nil of another.
func (s *Set) numbersOf(k int) *numbers {
	i, g := &s.invariants[k], &s.groups[k]
	if s.found[k] == nil && i.plain() {
		var n numbers
		if i.Form == Isolated {
			n = i.countMembers(s.judge, s.judge.Members(g.from))
		} else {
			n = i.numbers(s.judge.Count(g.from, g.to, g.ports, i.breaking(), policies.Unknown))
		}
		s.found[k] = &n
	}
	return s.found[k]
}

func (i *Invariant) numbers(n reach.Count) numbers {
	v := i.breaking()
	return numbers{n.Sure[v], n.Perhaps[v] + n.Sure[policies.Unknown] + n.Perhaps[policies.Unknown]}
}

func (i *Invariant) countMembers(j *reach.Judge, members iter.Seq[reach.Member]) (n numbers) {
	for m := range members {
		broken, doubts := i.isIsolated(j, m)
		if broken != nil {
			n.broken += m.People
		}
		n.unknown += len(doubts) * m.People
	}
	return n
}

func (s *Set) check(ctx context.Context, k int, now time.Time, at sight) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	i, g := &s.invariants[k], &s.groups[k]
	f := s.finderOf(k, now)
	f.sight, f.brief = at, at.brief && !i.Form.isProgram()
	switch i.Form {
	case CEL:
		if err := s.evaluate(ctx, k, f); err != nil {
			return Result{}, err
		}
	case Rego:
		if err := s.evaluateRego(ctx, i.Rego, f); err != nil {
			return Result{}, err
		}
	case Isolated:
		s.isolated(g, f)
	case Exists:
		s.exists(g, f)
	default:
		s.connections(g, f)
	}
	if f.all != nil && i.Form != Exists {
		f.Broken, f.Unknown = f.all.broken, f.all.unknown
	}
	r := f.result()
	r.Absent = s.absent(i)
	return r, nil
}

// connections looks for what breaks a sentence about connections.
func (s *Set) connections(g *groups, f *finder) {
	s.whom(g, f)
	if f.done() {
		return
	}
	for c := range f.crossings(f.Invariant.breaking(), policies.Unknown) {
		if s.means(f.Invariant, &c) {
			f.crossing(c)
		}
		if f.done() {
			return
		}
	}
}

// exists looks for one connection.
func (s *Set) exists(g *groups, f *finder) {
	s.whom(g, f)
	if f.all != nil && f.all.broken > 0 {
		return // that many there are
	}
	for c := range f.crossings(policies.Allow, policies.Unknown) {
		if !s.means(f.Invariant, &c) {
			continue
		}
		if c.Verdict == policies.Allow && !c.Perhaps {
			f.Doubt = nil
			return
		}
		f.doubts(c)
	}
	if f.Doubt != nil {
		return
	}
	for c := range f.crossings(policies.Deny) {
		if s.means(f.Invariant, &c) {
			f.crossing(c)
			return
		}
	}
	because := "there is no such connection"
	if f.Vacuous != "" {
		because = "nobody is described by its " + f.Vacuous
	}
	f.breaks(Counterexample{Because: because})
}

// whom says whether nobody is at one of the ends.
func (s *Set) whom(g *groups, f *finder) {
	switch {
	case s.nobody(g.from):
		f.Vacuous = "from"
	case s.nobody(g.to):
		f.Vacuous = "to"
	}
}

// breaking is the verdict that breaks a sentence about connections, or that makes
// Exists hold.
func (i *Invariant) breaking() policies.Verdict {
	if i.Form == Always {
		return policies.Deny
	}
	return policies.Allow
}

// means reports whether an invariant is about a crossing, and leaves it those ports
// that are meant at its destination.
func (s *Set) means(i *Invariant, c *reach.Crossing) bool {
	c.Ports = s.asked(i, *c)
	return !c.Ports.IsEmpty()
}

// nobody reports whether a group is empty.
func (s *Set) nobody(g reach.Group) bool {
	for range s.judge.Members(g) {
		return false
	}
	return true
}

// portsOf returns all ports that an invariant may mean anywhere.
func (s *Set) portsOf(i *Invariant, to reach.Group) netset.Ports {
	if len(i.Ports) == 0 {
		return netset.TransportPorts()
	}
	var ports netset.Ports
	for _, p := range i.Ports {
		ports = ports.Union(p.Ports)
		if p.Name == "" {
			continue
		}
		for m := range s.judge.Members(to) {
			ports = ports.Union(s.judge.Named(m.End, p.Name))
		}
	}
	return ports
}

// asked returns those ports of a crossing that the invariant means at its
// destination.
func (s *Set) asked(i *Invariant, c reach.Crossing) netset.Ports {
	if !slices.ContainsFunc(i.Ports, func(p policies.PortQuery) bool { return p.Name != "" }) {
		return c.Ports
	}
	var meant netset.Ports
	for _, p := range i.Ports {
		meant = meant.Union(p.Ports)
		if p.Name != "" {
			meant = meant.Union(s.judge.Named(c.To, p.Name))
		}
	}
	return c.Ports.Intersect(meant)
}

// isolated looks for pods that no policy isolates.
func (s *Set) isolated(g *groups, f *finder) {
	if s.nobody(g.from) {
		f.Vacuous = "pods"
	}
	if f.done() {
		return
	}
	for m := range f.members {
		broken, doubts := f.isIsolated(s.judge, m)
		for _, c := range doubts {
			if !f.forgives(&c) {
				if f.Unknown += c.Pairs; f.Doubt == nil {
					f.Doubt = &c
				}
			}
		}
		if broken != nil {
			f.breaks(*broken)
		}
		if f.done() {
			return
		}
	}
}

// isIsolated returns what shows that no policy isolates a member in a direction, if
// that is so, and where it cannot be told.
func (i *Invariant) isIsolated(j *reach.Judge, m reach.Member) (broken *Counterexample, doubts []Counterexample) {
	for _, d := range i.Directions {
		is := j.Isolates(d, m.End)
		if is == policies.Yes {
			continue
		}
		c := unisolated(j, m.End, d)
		c.Pairs = m.People
		if is != policies.Maybe && !m.Perhaps {
			return &c, doubts
		}
		if c.Because = fmt.Sprintf("whether a policy isolates it at %s cannot be told", d); m.Perhaps {
			c.Because = "whether it is described cannot be told"
		}
		doubts = append(doubts, c)
	}
	return nil, doubts
}

func unisolated(j *reach.Judge, e reach.End, d policies.Direction) Counterexample {
	return Counterexample{From: j.Peer(e), Because: fmt.Sprintf("no policy isolates it at %s", d), ends: [2]reach.End{e, {}}}
}

// finder gathers what breaks an invariant.
type finder struct {
	Result
	judge   *reach.Judge
	waivers [][2]*reach.Group
	used    []bool
	now     time.Time
	waived  []Counterexample
	brief   bool // what is found is explained by whoever shows it
	sight
}

// done reports whether there are examples enough.
func (f *finder) done() bool {
	switch {
	case f.all == nil:
		return false
	case f.here.broken > 0:
		return f.Broken == f.here.broken || len(f.Counterexamples) == f.most
	}
	return f.here.unknown == 0 || f.Doubt != nil
}

// crossing takes a crossing that breaks the invariant, or may.
func (f *finder) crossing(c reach.Crossing) {
	if c.Verdict == policies.Unknown || c.Perhaps {
		f.doubts(c)
		return
	}
	f.breaks(f.counterexample(c))
}

func (f *finder) doubts(c reach.Crossing) {
	x := f.counterexample(c)
	if f.forgives(&x) {
		return
	}
	if f.Unknown += c.Pairs; f.Doubt != nil {
		return
	}
	x.judge = f.judge
	x.explain()
	if c.Perhaps {
		x.Because = "whether the invariant speaks of them cannot be told, for labels of a namespace are not known"
	}
	f.Doubt = &x
}

func (f *finder) counterexample(c reach.Crossing) Counterexample {
	return Counterexample{Ports: c.Ports, Pairs: c.Pairs, ends: [2]reach.End{c.From, c.To}}
}

// breaks takes what breaks the invariant, unless it is waived.
func (f *finder) breaks(x Counterexample) {
	kept, count := &f.Counterexamples, &f.Broken
	if f.forgives(&x) {
		kept, count = &f.waived, &f.Waived
	}
	if *count += x.Pairs; x.named != "" && x.Waiver == nil {
		f.whom = append(f.whom, whom{x.named, x.Ports})
	}
	if len(*kept) >= MostCounterexamples {
		return
	}
	if *kept == nil && f.all != nil {
		*kept = make([]Counterexample, 0, max(1, min(f.most, f.here.broken)))
	}
	if x.judge = f.judge; !f.brief {
		x.explain()
	}
	*kept = append(*kept, x)
}

// forgives reports whether a waiver covers what breaks the invariant.
func (f *finder) forgives(x *Counterexample) bool {
	for w := range f.waivers {
		waiver := &f.Invariant.Waivers[w]
		if waiver.Expired(f.now) || x.ends[0] == (reach.End{}) && (len(waiver.From) > 0 || len(waiver.To) > 0) {
			continue
		}
		covered := true
		for side, group := range f.waivers[w] {
			covered = covered && (group == nil || f.judge.Has(*group, x.ends[side]) == policies.Yes)
		}
		if covered {
			f.used[w], x.Waiver = true, waiver
			return true
		}
	}
	return false
}

// Explained returns a result whose counterexamples are explained; the result itself where
// they are.
func (r *Result) Explained() *Result {
	told := r
	for i := range r.Counterexamples {
		if r.Counterexamples[i].judge == nil {
			continue
		}
		if told == r {
			copied := *r
			copied.Counterexamples = slices.Clone(r.Counterexamples)
			told = &copied
		}
		told.Counterexamples[i].explain()
	}
	return told
}

// explain adds the decision on the lowest port.
func (x *Counterexample) explain() {
	j, ok := x.judge, false
	x.judge = nil
	if x.Protocol, x.Port, ok = lowest(x.Ports); !ok {
		return
	}
	x.Decision = j.DecideBriefly(x.ends[0], x.ends[1], x.Protocol, x.Port)
	x.From, x.To = x.Decision.From, x.Decision.To
	x.Because = x.Decision.Because
	if d, ok := decisive(&x.Decision); ok {
		side := &x.Decision.Sides[d]
		x.Policy, x.At = side.Policy, side.At
		if side.Because != "" {
			x.Because = side.Because
		}
	}
}

// decisive returns the direction that tells most about a decision: one with a rule,
// the destination's first where both sides allow, unless that is outside. It is false
// where none says the verdict.
func decisive(d *policies.Decision) (best policies.Direction, ok bool) {
	order := [...]policies.Direction{policies.Ingress, policies.Egress}
	if d.To.IsOutside() {
		order = [...]policies.Direction{policies.Egress, policies.Ingress}
	}
	for _, direction := range order {
		side := &d.Sides[direction]
		if side.Verdict == d.Verdict && (!ok || d.Sides[best].At.File == "" && side.At.File != "") {
			best, ok = direction, true
		}
	}
	return best, ok
}

// lowest returns the lowest port of some; false where there is none.
func lowest(p netset.Ports) (netset.Protocol, uint16, bool) {
	for r := range p.Ranges() {
		return r.Protocol, r.First, true
	}
	return 0, 0, false
}

// result says what all that was found amounts to.
func (f *finder) result() Result {
	r := f.Result
	switch {
	case r.Problem != "":
		r.State = Invalid
	case r.Broken > 0 || len(r.Counterexamples) > 0:
		r.State = Broken
	case r.Doubt != nil:
		r.State = Unknown
	case r.Waived > 0 || len(f.waived) > 0:
		r.State, r.Counterexamples = Waived, f.waived
	default:
		r.State = Holds
	}
	if r.State != Unknown {
		r.Doubt = nil
	}
	if r.State == Holds || r.Form == Exists {
		r.Unknown = 0
	}
	for w := range r.Waivers {
		switch waiver := &r.Waivers[w]; {
		case waiver.Expired(f.now):
			r.Expired = append(r.Expired, waiver)
		case !f.used[w] && r.State != Invalid:
			r.Unused = append(r.Unused, waiver)
		}
	}
	return r
}
