package webhook

import (
	"cmp"
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/weir-policy/weir/internal/live"
	"github.com/weir-policy/weir/internal/standing"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/reach"
)

// World is the world as it is seen; see live.World.
type World interface {
	Unready() error
	Entry(object map[string]any) (*k8s.Entry, error)
	Held(key k8s.Key) (live.Version, bool)
	Within(namespace string) []k8s.Key
	Try(pending func(held func(k8s.Key) (live.Version, bool)) (put []*k8s.Entry, gone []k8s.Key), look func(live.Trial)) error
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

// Decider decides about changes, one after the other: each on the world as it is
// seen, with those that it admitted and that have not been seen yet. Only one
// replica may decide at a time. It is safe for concurrent use.
type Decider struct {
	Options
	World   World
	Keeper  *standing.Keeper
	Unready func() error // why the Invariants are not known yet; nil where they are

	turn    chan struct{} // whose turn it is to decide; he has what follows
	ledger  ledger
	assumed world // the last one, with all that was admitted

	mutex sync.Mutex
	seen  map[string]seenInvariant
	since time.Time // when the replica began to decide
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
	d.declare()
	return d
}

// Saw takes an Invariant as it is stored, nil where it does not compile.
func (d *Decider) Saw(name string, v live.Version, i *invariant.Invariant) {
	d.mutex.Lock()
	d.seen[name] = seenInvariant{v, i}
	d.mutex.Unlock()
	d.declare()
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
	delete(d.seen, name)
	d.mutex.Unlock()
	d.declare()
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

func (d *Decider) held(k k8s.Key) (live.Version, bool) {
	if !isInvariant(k) {
		return d.World.Held(k)
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	s, there := d.seen[k.Name]
	return s.Version, there
}

// declare lets the keeper look at the invariants that are stored, and at those of
// packs.
func (d *Decider) declare() {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.Keeper.Declare(d.stored())
}

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
	pending := 0
	select {
	case d.turn <- struct{}{}:
		d.decide(ctx, a, v)
		pending = len(d.ledger.pending)
		<-d.turn
	case <-ctx.Done():
		v.undecided(ctx.Err())
	}
	answer := v.response()
	if d.Observe != nil {
		d.Observe(Observation{v.name(), isDryRun(r), d.Clock().Sub(begin), pending})
	}
	return answer, nil
}

func isDryRun(r *admissionv1.AdmissionRequest) bool { return r.DryRun != nil && *r.DryRun }

// Ready says why nothing can be decided yet; nil where it can.
func (d *Decider) Ready() error {
	if d.Unready != nil {
		if err := d.Unready(); err != nil {
			return err
		}
	}
	return d.World.Unready()
}

// decide fills in the verdict. It is called by whose turn it is.
func (d *Decider) decide(ctx context.Context, a *admission, v *verdict) {
	if isInvariant(a.key) && v.request.Operation != admissionv1.Delete {
		var err error
		if a.invariant, err = standing.Compile(v.request.Object.Raw); err != nil {
			v.refuse(err)
			return
		}
	}
	if err := d.Ready(); err != nil {
		v.undecided(err)
		return
	}
	d.ledger.settle(d.held, d.Clock())
	a.held, _ = d.held(a.key)
	if a.isGone() && a.key.Group == "" && a.key.Kind == "Namespace" {
		a.within = d.World.Within(a.key.Name)
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
	if v.isDenied() || isDryRun(v.request) || v.changesNothing {
		return
	}
	a.until = d.Clock().Add(d.Pending)
	d.ledger.add(a)
	if a.invariant == nil {
		d.assumed = v.then
	}
}

// weigh compares the invariants before and after a change: in the world as it is
// seen, in that with all pending admissions, and in those in which another of two
// admissions of one object came to be.
func (d *Decider) weigh(ctx context.Context, a *admission, v *verdict) error {
	seen, err := d.standing(ctx)
	if err != nil {
		return err
	}
	v.changesNothing = true
	var before world
	for _, admissions := range d.worlds() {
		if before, v.then, err = d.compare(ctx, seen, admissions, a); err != nil {
			return err
		}
		v.changesNothing = v.changesNothing && reflect.DeepEqual(before.change, v.then.change)
		v.compare(before.Standing, v.then.Standing)
	}
	d.assumed = before
	return nil
}

// worlds returns the admissions that may have come to be together, the likeliest
// last.
func (d *Decider) worlds() [][]*admission {
	worlds := [][]*admission{nil}
	for _, rival := range d.ledger.rivals() {
		worlds = append(worlds, append(slices.Clone(d.ledger.pending), rival))
	}
	if len(d.ledger.pending) > 0 {
		worlds = append(worlds, d.ledger.pending)
	}
	return worlds
}

// standing returns how the invariants stand in the world as it is seen, those among
// them that are pending.
func (d *Decider) standing(ctx context.Context) (*standing.Standing, error) {
	seen, err := d.Keeper.Standing(ctx)
	if err != nil || !slices.ContainsFunc(d.ledger.pending, func(a *admission) bool { return a.invariant != nil }) {
		return seen, err
	}
	d.mutex.Lock()
	all := declared(d.stored(), d.ledger.pending)
	d.mutex.Unlock()
	return seen.Declaring(ctx, all, d.Clock())
}

// world is a world that may be, told by what is not as in the one that is seen.
type world struct {
	*standing.Standing
	seen   *standing.Standing
	change k8s.Change
	model  *policies.Model // nil where nothing but policies changes
}

// compare returns the world in which some admissions have come to be, and the same
// with one more.
func (d *Decider) compare(ctx context.Context, seen *standing.Standing, admissions []*admission, a *admission) (before, after world, err error) {
	for {
		if before, err = d.try(seen, admissions...); err == nil {
			after, err = d.try(seen, append(admissions[:len(admissions):len(admissions)], a)...)
		}
		if !errors.Is(err, errOther) {
			break
		}
		if seen, err = d.standing(ctx); err != nil {
			break
		}
	}
	if err != nil {
		return before, after, err
	}
	now := d.Clock()
	if before.Standing, err = before.from(ctx, &d.assumed, true, now); err != nil {
		return before, after, err
	}
	after.Standing, err = after.from(ctx, &before, isPolicy(a.key), now)
	return before, after, err
}

// errOther is the end of a trial of another world than the one that was looked at.
var errOther = errors.New("the world is another one by now")

// try returns a world in which admissions have come to be, without its standing.
func (d *Decider) try(seen *standing.Standing, admissions ...*admission) (w world, err error) {
	w.seen = seen
	tried := d.World.Try(
		func(func(k8s.Key) (live.Version, bool)) ([]*k8s.Entry, []k8s.Key) { return overlay(admissions...) },
		func(t live.Trial) {
			if t.Base != seen.Model {
				err = errOther
				return
			}
			if w.change = t.Change; !standing.IsOfPolicies(&t.Change) {
				w.model = t.Model()
			}
		})
	return w, cmp.Or(tried, err)
}

// from looks at a world. It begins with another one, where only policies are not as
// in that.
func (w *world) from(ctx context.Context, other *world, onlyPolicies bool, now time.Time) (*standing.Standing, error) {
	if other.seen == w.seen && onlyPolicies {
		if edit, ok := delta(&other.change, &w.change); ok {
			return other.Edited(ctx, edit, now)
		}
	}
	return w.seen.After(ctx, &w.change, func() *policies.Model { return w.model }, now)
}

// delta returns what leads from one change of a world to another, if that is but
// policies that come.
func delta(from, to *k8s.Change) (e reach.Edit, ok bool) {
	if from.Whole || to.Whole || !slices.Equal(from.Pods, to.Pods) || !slices.Equal(from.World, to.World) {
		return e, false
	}
	for _, ref := range from.Gone {
		if !slices.Contains(to.Gone, ref) && find(to, ref) == nil {
			return e, false
		}
	}
	for i := range from.Policies {
		if ref := from.Policies[i].Ref; !slices.Contains(to.Gone, ref) && find(to, ref) == nil {
			return e, false
		}
	}
	for _, ref := range to.Gone {
		if !slices.Contains(from.Gone, ref) {
			e.Delete = append(e.Delete, ref)
		}
	}
	for i := range to.Policies {
		if p := find(from, to.Policies[i].Ref); p == nil || !reflect.DeepEqual(p, &to.Policies[i]) {
			e.Put = append(e.Put, to.Policies[i])
		}
	}
	return e, true
}

func find(c *k8s.Change, ref policies.Ref) *policies.Policy {
	for i := range c.Policies {
		if c.Policies[i].Ref == ref {
			return &c.Policies[i]
		}
	}
	return nil
}

// isPolicy reports whether an object is nothing but a policy.
func isPolicy(k k8s.Key) bool {
	switch k.Group {
	case "", "apps", "batch":
		return false
	case policies.CalicoGroup:
		return strings.HasSuffix(k.Kind, "NetworkPolicy")
	}
	return true
}

// weighInvariant looks whether an Invariant holds today.
func (d *Decider) weighInvariant(ctx context.Context, a *admission, v *verdict) error {
	stored := d.storedAs(a.key.Name)
	if v.request.Operation == admissionv1.Delete {
		v.changesNothing = true // it is looked at until it is gone
		if of := invariant.Named(d.Held, a.key.Name); of != nil {
			v.warn("invariant %s is that of the pack %s again", a.key.Name, of.Pack)
		} else {
			v.warn("invariant %s is not checked any more", a.key.Name)
		}
		return nil
	}
	if stored != nil && stored.Says(a.invariant) {
		return nil
	}
	seen, err := d.standing(ctx)
	if err != nil {
		return err
	}
	for _, admissions := range d.worlds() {
		w, err := d.try(seen, admissions...)
		for errors.Is(err, errOther) {
			if seen, err = d.standing(ctx); err == nil {
				w, err = d.try(seen, admissions...)
			}
		}
		if err != nil {
			return err
		}
		now := d.Clock()
		if w.Standing, err = w.from(ctx, &d.assumed, true, now); err != nil {
			return err
		}
		s, err := w.Declaring(ctx, []invariant.Invariant{*a.invariant}, now)
		if err != nil {
			return err
		}
		v.declares(&s.Results[0])
	}
	return nil
}

func (d *Decider) storedAs(name string) *invariant.Invariant {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.seen[name].Invariant
}
