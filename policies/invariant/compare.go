package invariant

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
)

// Turn is what a change does to an invariant.
type Turn uint8

// The turns.
const (
	Stays   Turn = iota // it holds, or not, as before
	Breaks              // it was not broken, and is
	Stuck               // it was broken, and is
	Mends               // it was broken, and is not any more
	Doubts              // it was neither broken nor unknown, and cannot be told any more
	Removed             // nobody declares it any more
	Worsens             // it was broken, and something breaks it that did not before
)

var turns = [...]string{"stays", "breaks", "stuck", "mends", "doubts", "removed", "worsens"}

func (t Turn) String() string { return turns[t] }

// Change is what a change does to one invariant. After is how it is found then;
// of one that is Removed, how it would be.
type Change struct {
	Before, After Result
	Turn          Turn
	// Added and Edited are set where the change declares it first, or says
	// something else by it.
	Added, Edited bool
	// Former is what the change does to what the base says by it, less what the head
	// waives, where the head wants something else, or nothing; nil else.
	Former *Change
	// Forgives are the waivers that the change brings and that waive something.
	Forgives []*Waiver
}

// Fails reports whether the change must not be made: it breaks an invariant of
// severity deny, or breaks it further, or declares one that is false; or it loosens one
// that it breaks.
func (c *Change) Fails() bool {
	return c.After.Severity == Deny && c.IsBroken() || c.IsFalse() || c.Loosens()
}

// IsFalse reports whether the change declares an invariant of severity deny, or makes it
// say something else, that does not hold and does not say adopt. Admission refuses such a
// one, too.
func (c *Change) IsFalse() bool {
	return c.After.Severity == Deny && c.Turn == Stuck && (c.Added || c.Edited) && !c.After.Adopt
}

// IsBroken reports whether the change breaks it, or breaks it further.
func (c *Change) IsBroken() bool { return c.Turn == Breaks || c.Turn == Worsens }

// Loosens reports whether the change breaks an invariant of severity deny as the base
// declares it, and takes it away or makes it say something else.
func (c *Change) Loosens() bool {
	return c.Former != nil && c.Former.After.Severity == Deny && c.Former.IsBroken()
}

// TurnOf compares what was found of one invariant before and after. One that was
// broken and is may be Stuck although something breaks it that did not before; it
// Worsens for sure where more does, where it cannot be told any more, and where an
// expression or a policy in Rego names others. Set.Worse says it of pairs.
func TurnOf(before, after *Result) Turn {
	bad := func(s State) bool { return s == Broken || s == Invalid }
	switch was, is := before.State, after.State; {
	case was == Broken && (is == Invalid || is == Broken && (after.Broken > before.Broken || namesMore(before, after))):
		return Worsens
	case bad(was) && bad(is):
		return Stuck
	case bad(is):
		return Breaks
	case bad(was):
		return Mends
	case is == Unknown && was != Unknown:
		return Doubts
	}
	return Stays
}

// Says reports whether two invariants say the same, wherever they stand: what they
// want, how much, and what is waived until when. Descriptions and owners may differ.
func (i *Invariant) Says(other *Invariant) bool {
	return i.Wants(other) && i.forgiven() == other.forgiven()
}

// Wants reports whether two invariants say the same, whatever is waived.
func (i *Invariant) Wants(other *Invariant) bool { return i.sentence() == other.sentence() }

func peersText(all []policies.Match) string {
	var texts []string
	for _, m := range all {
		texts = append(texts, m.String())
	}
	return strings.Join(texts, "; ")
}

func (w *Waiver) forgiven() string {
	return fmt.Sprintln("waived", w.Until, peersText(w.From), "to", peersText(w.To))
}

func (i *Invariant) forgiven() (text string) {
	for k := range i.Waivers {
		text += i.Waivers[k].forgiven()
	}
	return text
}

// Forgives returns the waivers that waive something, of those that another invariant
// does not have.
func (r *Result) Forgives(other *Invariant) (all []*Waiver) {
	for k := range r.Waivers {
		w := &r.Waivers[k]
		isOld := slices.ContainsFunc(other.Waivers, func(o Waiver) bool { return o.forgiven() == w.forgiven() })
		if !isOld && !slices.Contains(r.Expired, w) && !slices.Contains(r.Unused, w) && r.State != Invalid {
			all = append(all, w)
		}
	}
	return all
}

func (i *Invariant) sentence() string {
	text := fmt.Sprintln(i.Form, i.Severity, i.Adopt, i.Direction, i.Directions, peersText(i.From), "to", peersText(i.To))
	for _, p := range i.Ports {
		text += fmt.Sprintln(p.Name, p.Ports)
	}
	if i.CEL != nil {
		text += i.CEL.String()
	}
	if i.Rego != nil {
		text += i.Rego.String()
	}
	return text
}

// Named returns the invariant of a name; nil where there is none.
func Named(all []Invariant, name string) *Invariant {
	if k := slices.IndexFunc(all, func(i Invariant) bool { return i.Ref.Name == name }); k >= 0 {
		return &all[k]
	}
	return nil
}
