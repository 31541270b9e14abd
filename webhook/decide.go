package webhook

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/weir-policy/weir/internal/live"
	"github.com/weir-policy/weir/internal/standing"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/k8s"
)

// World is the world as it is seen; see live.World.
type World interface {
	Unready() error
	Unseen() []string
	Entry(object map[string]any) (*k8s.Entry, error)
	Look(f func(live.Moment)) error
}

// Choice is what becomes of a request about which nothing is sure.
type Choice string

// The choices.
const (
	Allow Choice = "allow" // without a word
	Warn  Choice = "warn"  // and its author is told
	Deny  Choice = "deny"
)

// Options are how a Decider decides.
type Options struct {
	// Exclude are the namespaces that are not looked at.
	Exclude []string
	// Undecided is for requests that cannot be decided in time: Warn or Deny.
	// Unknown is for those after which it cannot be told whether an invariant of
	// severity deny holds. Opaque is for those that bring a policy that is not
	// understood: Warn or Deny. All are Warn unless they are set.
	Undecided, Unknown, Opaque Choice
	// Pending is how long it may take until an admitted object is stored; half a
	// minute, the most that another webhook may take, unless it is set.
	Pending time.Duration
	// Held are invariants of policy packs. Each is checked like one that is stored,
	// until one of its name is.
	Held    []invariant.Invariant
	Clock   func() time.Time
	Observe func(Observation) // is told of every decision, if it is set
}

// Observation is a decision as it is counted.
type Observation struct {
	Verdict string // allowed, denied, warned or undecided
	DryRun  bool
	Took    time.Duration
	Pending int
}

// Stored is who tells of the Invariants that are stored; see controller.Feed.
type Stored interface {
	Unready() error   // why they are not known yet; nil where they are
	Unseen() []string // why some may have changed without being told of
	Seen() time.Time  // since when they are told of without a break; zero while they are not
}

// Decider decides about changes, one after the other: each on every world that may be,
// now that some of those it admitted are stored and some are not, and none of them has
// been seen yet. Only one replica may decide at a time. It is safe for concurrent use.
type Decider struct {
	Options
	World  World
	Keeper *standing.Keeper
	Stored Stored // the Invariants; nil for those that it is told of at once

	turn   chan struct{} // whose turn it is to decide
	ledger ledger

	mutex sync.Mutex
	seen  map[string]seenInvariant
	since time.Time // when the replica began to decide
	taken time.Time // when somebody took the turn; zero while nobody has it
}

type seenInvariant struct {
	live.Version
	*invariant.Invariant // nil where it does not compile
}

// NewDecider returns a decider that has decided nothing.
func NewDecider(w World, k *standing.Keeper, o Options) *Decider {
	o.Undecided, o.Unknown, o.Opaque = cmp.Or(o.Undecided, Warn), cmp.Or(o.Unknown, Warn), cmp.Or(o.Opaque, Warn)
	o.Pending = cmp.Or(o.Pending, 30*time.Second)
	if o.Clock == nil {
		o.Clock = time.Now
	}
	d := &Decider{Options: o, World: w, Keeper: k, turn: make(chan struct{}, 1), seen: map[string]seenInvariant{}}
	d.Keeper.Declare(d.stored())
	return d
}

// Saw takes an Invariant as it is stored, nil where it does not compile.
func (d *Decider) Saw(name string, v live.Version, i *invariant.Invariant) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.seen[name] = seenInvariant{v, i}
	d.Keeper.Declare(d.stored())
}

// Renewed takes another version of an Invariant that says what it said before.
func (d *Decider) Renewed(name string, v live.Version) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if s, there := d.seen[name]; there {
		d.seen[name] = seenInvariant{v, s.Invariant}
	}
}

// Missed takes that there is no Invariant of a name.
func (d *Decider) Missed(name string) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	delete(d.seen, name)
	d.Keeper.Declare(d.stored())
}

// Begin tells the decider that it is the one who decides from now on. What another
// one admitted shortly before it cannot know, so it is not sure of what it admits
// until that must have been seen.
func (d *Decider) Begin() {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.since = d.Clock()
}

// unsure returns for how long the decider will not know what another one admitted.
func (d *Decider) unsure() time.Duration {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.since.IsZero() {
		return 0
	}
	return max(0, d.since.Add(d.Pending).Sub(d.Clock()))
}

// stored returns the invariants that are stored, and those of packs.
func (d *Decider) stored() []invariant.Invariant {
	var all []invariant.Invariant
	for _, s := range d.seen {
		if s.Invariant != nil {
			all = append(all, *s.Invariant)
		}
	}
	for k := range d.Held {
		if s := d.seen[d.Held[k].Ref.Name]; s.Invariant == nil {
			all = append(all, d.Held[k])
		}
	}
	slices.SortFunc(all, func(a, b invariant.Invariant) int { return strings.Compare(a.Ref.Name, b.Ref.Name) })
	return all
}

// Decide decides about a request. An error is one of the request; all else is told
// in the answer.
func (d *Decider) Decide(ctx context.Context, r *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
	begin := d.Clock()
	a, err := d.read(r)
	if err != nil {
		return nil, err
	}
	v := &verdict{Options: &d.Options, request: r}
	if a == nil {
		return v.response(), nil
	}
	v.key = a.key
	if isInvariant(a.key) && r.Operation != admissionv1.Delete {
		if a.invariant, err = standing.Compile(r.Object.Raw); err != nil {
			v.refuse(err)
		}
	}
	if !v.isDenied() {
		d.decideInTurn(ctx, a, v)
	}
	answer := v.response()
	if d.Observe != nil {
		d.Observe(Observation{v.name(), isDryRun(r), d.Clock().Sub(begin), d.ledger.len()})
	}
	return answer, nil
}

// decideInTurn decides when it is a request's turn, and takes note of what may be stored
// from then on, even where that was not decided.
func (d *Decider) decideInTurn(ctx context.Context, a *admission, v *verdict) {
	defer func() {
		if mayBeStored := !v.isDenied() && !isDryRun(v.request); mayBeStored {
			a.until = d.Clock().Add(d.Pending)
			d.ledger.add(a)
		}
	}()
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		v.undecided(ctx.Err())
		return
	}
	d.take(d.Clock())
	defer func() {
		d.take(time.Time{})
		<-d.turn
	}()
	d.decide(ctx, a, v)
}

func (d *Decider) take(at time.Time) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.taken = at
}

// longestTurn is longer than any request has.
const longestTurn = 2 * time.Minute

// Alive returns an error when nothing can be decided any more, since a decision does not
// end.
func (d *Decider) Alive() error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.taken.IsZero() || d.Clock().Sub(d.taken) < longestTurn {
		return nil
	}
	return fmt.Errorf("a decision has not ended since %s", d.taken.UTC().Format(time.RFC3339))
}

func isDryRun(r *admissionv1.AdmissionRequest) bool { return r.DryRun != nil && *r.DryRun }

// Ready says why nothing can be decided yet; nil where it can.
func (d *Decider) Ready() error {
	if d.Stored != nil {
		if err := d.Stored.Unready(); err != nil {
			return err
		}
	}
	return d.World.Unready()
}

// Unseen says what may have changed without being seen, a clause each.
func (d *Decider) Unseen() []string {
	all := d.World.Unseen()
	if d.Stored != nil {
		all = append(all[:len(all):len(all)], d.Stored.Unseen()...)
	}
	return all
}

// decide fills in the verdict. It is called by whose turn it is.
func (d *Decider) decide(ctx context.Context, a *admission, v *verdict) {
	if a.was != (live.Version{}) {
		d.ledger.learn(a.key, a.was)
	}
	if err := d.Ready(); err != nil {
		v.undecided(err)
		return
	}
	var err error
	if isInvariant(a.key) {
		err = d.weighInvariant(ctx, a, v)
	} else {
		v.opaque(a)
		err = d.weigh(ctx, a, v)
	}
	if err != nil {
		v.undecided(err)
	}
	if wait := d.unsure(); wait > 0 && !v.isDenied() && v.undecidedFor == "" {
		v.unsure(wait)
	}
	if unseen := d.Unseen(); len(unseen) > 0 && v.undecidedFor == "" {
		v.without(unseen)
	}
}

// weigh compares the invariants before and after a change, in every world that may be.
func (d *Decider) weigh(ctx context.Context, a *admission, v *verdict) error {
	return d.tryAll(ctx, a, v, func(b *branch, seen *standing.Standing, now time.Time) error {
		for _, w := range slices.Concat(b.befores, b.afters) {
			if err := w.look(ctx, seen, now); err != nil {
				return err
			}
		}
		for _, after := range b.afters {
			for _, before := range b.befores {
				if err := v.compare(before.Standing, after.Standing, now); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// weighInvariant looks whether an Invariant holds today.
func (d *Decider) weighInvariant(ctx context.Context, a *admission, v *verdict) error {
	if a.isGone() {
		a.isKnown = true
		if of := invariant.Named(d.Held, a.key.Name); of != nil {
			v.warn("invariant %s is that of the pack %s again", a.key.Name, of.Pack)
		} else {
			v.warn("invariant %s is not checked any more", a.key.Name)
		}
		return nil
	}
	seen := d.sightOf(a.key)
	if a.isKnown = seen.UID == a.uid; seen.Invariant != nil && seen.Says(a.invariant) {
		return nil
	}
	return d.tryAll(ctx, a, v, func(b *branch, seen *standing.Standing, now time.Time) error {
		w := b.befores[0]
		if err := w.look(ctx, seen, now); err != nil {
			return err
		}
		s, err := w.Declaring(ctx, []invariant.Invariant{*a.invariant}, now)
		if err != nil {
			return err
		}
		v.declares(s.Results[0])
		return nil
	})
}

// tryAll looks at every world that may be, until one refuses the request. Where they
// are many it waits a little for some of what was admitted to be seen. Where they are too
// many after that, it fails, unless one of those that it tries refuses the request.
func (d *Decider) tryAll(ctx context.Context, a *admission, v *verdict, look func(*branch, *standing.Standing, time.Time) error) error {
	for patience := patienceOf(ctx); ; {
		seen, err := d.standing(ctx)
		if err != nil {
			return err
		}
		var branches []branch
		open, whole, isOther, waits := 0, false, false, false
		err = d.World.Look(func(m live.Moment) {
			if isOther = m.Base() != seen.Model; isOther {
				return
			}
			pending := d.settle(m, a)
			questions := questionsOf(m, pending)
			if waits = count(questions) > fewBranches && patience(pending, d.Clock().Add(d.Pending)); waits {
				return
			}
			open = len(questions)
			branches, whole = branchesOf(m, questions, a)
		})
		switch {
		case err != nil:
			return err
		case waits:
			select {
			case <-time.After(soon):
			case <-ctx.Done():
			}
			continue
		case isOther:
			continue
		}
		for i := range branches {
			if err := look(&branches[i], seen, d.Clock()); err != nil || v.isDenied() {
				return err
			}
		}
		if !whole {
			return fmt.Errorf("%d other changes may be stored or not, too many to try each with each", open)
		}
		return nil
	}
}

const (
	soon   = time.Millisecond // how soon it is looked again whether something was seen
	recent = 2 * time.Second  // and at most, unless somebody else refused it
)

// patienceOf returns whether it is worth while to wait for what is pending: while half
// of the time of a request is left, and something was admitted recently. A request
// without a deadline waits for nothing.
func patienceOf(ctx context.Context) func(pending []*admission, until time.Time) bool {
	deadline, ok := ctx.Deadline()
	half := time.Until(deadline) / 2
	return func(pending []*admission, until time.Time) bool {
		return ok && time.Until(deadline) > half && slices.ContainsFunc(pending, func(a *admission) bool { return until.Sub(a.until) < recent })
	}
}

// settle forgets the admissions that are over, but those of Invariants, and returns all
// others.
func (d *Decider) settle(m live.Moment, a *admission) []*admission {
	if v, there := m.Held(a.key); there && v.UID == a.uid {
		a.isKnown = true
	}
	return d.ledger.settle(func(k k8s.Key) (sight, bool) {
		if isInvariant(k) {
			return sight{}, false
		}
		v, there := m.Held(k)
		if there {
			return sight{v, v.ResourceVersion, m.Seen(k)}, true
		}
		return sight{v, m.Revision(k), m.Seen(k)}, true
	}, d.Clock())
}

// standing returns how the invariants stand in the world as it is seen. Those that may
// be stored, or other than they are seen, are among them in every edition.
func (d *Decider) standing(ctx context.Context) (*standing.Standing, error) {
	pending := d.ledger.settle(func(k k8s.Key) (sight, bool) {
		if !isInvariant(k) {
			return sight{}, false
		}
		s, since := d.sightOf(k), time.Unix(0, 0)
		if d.Stored != nil {
			since = d.Stored.Seen()
		}
		return sight{s.Version, s.ResourceVersion, since}, true
	}, d.Clock())
	seen, err := d.Keeper.Standing(ctx)
	if err != nil {
		return nil, err
	}
	all := slices.Clone(seen.Invariants)
	for _, a := range pending {
		i := a.invariant
		if isInvariant(a.key) && i == nil { // it is checked until it has gone, and then that of a pack is
			i = invariant.Named(d.Held, a.key.Name)
		}
		if i != nil && !slices.ContainsFunc(all, func(other invariant.Invariant) bool { return other.Ref.Name == i.Ref.Name && other.Says(i) }) {
			all = append(all, *i)
		}
	}
	if len(all) == len(seen.Invariants) {
		return seen, nil
	}
	return seen.Declaring(ctx, all, d.Clock())
}

// sightOf returns what is seen of an Invariant.
func (d *Decider) sightOf(k k8s.Key) seenInvariant {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.seen[k.Name]
}
