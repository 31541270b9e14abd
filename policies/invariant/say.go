package invariant

import (
	"fmt"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Say says in one clause what a result comes to, lower case, no full stop:
// "storefront/web can open TCP/5432 to payments/db; 11 other pairs break it too".
func (r *Result) Say() string {
	if r.unseen {
		return "it cannot be told any more: " + r.Problem
	}
	switch r.State {
	case Holds:
		if r.Vacuous != "" && len(r.Absent) > 0 {
			return "it holds, for " + strings.Join(r.Absent, "; ")
		}
		if r.Vacuous != "" {
			return "it holds, for nobody is described by its " + r.Vacuous
		}
		return "it holds"
	case Invalid:
		return "it could not be evaluated: " + r.Problem
	case Unknown:
		return "it cannot be told whether " + r.what(r.Doubt) + ": " + r.Doubt.Because
	case Broken, Waived:
		return r.what(&r.Counterexamples[0]) + r.others()
	}
	return r.State.String()
}

// what says what a counterexample is.
func (r *Result) what(x *Counterexample) string {
	can := "can open"
	switch {
	case x.Says != "":
		return x.Says
	case x.Ports.IsEmpty() && x.From.Name != "":
		if r.State == Unknown {
			return x.From.String() + " is isolated"
		}
		return x.From.String() + ": " + x.Because
	case x.Ports.IsEmpty():
		return x.Because
	case r.Form == Exists:
		return fmt.Sprintf("there is no such connection; %s, for one, cannot open %s to %s", end(&x.From), x.PortText(), end(&x.To))
	case r.Form == Always && r.State != Unknown:
		can = "cannot open"
	}
	return fmt.Sprintf("%s %s %s to %s", end(&x.From), can, x.PortText(), end(&x.To))
}

// end names one end of a connection, an address by itself.
func end(p *policies.Peer) string {
	if p.IsOutside() && p.CIDR.IsSingleIP() {
		return "address " + p.CIDR.Addr().String()
	}
	return p.String()
}

// others says how many pairs there are besides the first.
func (r *Result) others() string {
	n, noun := r.Broken, r.Counted()
	if r.State == Waived {
		n = r.Waived
	}
	switch n--; {
	case n <= 0 || r.Form == Exists:
		return ""
	case n == 1:
		return "; 1 other " + noun + " breaks it too"
	}
	return fmt.Sprintf("; %d other %ss break it too", n, noun)
}

// Counted says what is counted that breaks it: pairs, pods or items.
func (i *Invariant) Counted() string {
	switch i.Form {
	case Isolated:
		return "pod"
	case CEL, Rego:
		return "item"
	}
	return "pair"
}

// Headline names the invariant and what it wants: "invariant payments-db (deny):
// nothing outside payments reaches the payments database".
func (i *Invariant) Headline() string {
	text := fmt.Sprintf("invariant %s (%s)", i.Ref.Name, i.Severity)
	if i.Description != "" {
		text += ": " + i.Description
	}
	return text
}

// PortText returns the lowest port as questions take it, "TCP/5432".
func (x *Counterexample) PortText() string {
	return netset.PortSpan(x.Protocol, x.Port, x.Port).String()
}

// Rule says which rule decides and where it stands, "NetworkPolicy payments/db,
// ingress rule 1 at db.yaml:14:7", counted as weir explain does; empty where no policy
// has a say.
func (x *Counterexample) Rule() string {
	if x.Policy == nil {
		return ""
	}
	text := x.Policy.What() + " " + x.Policy.String()
	if d, ok := decisive(&x.Decision); ok && x.Decision.Sides[d].Rule != nil {
		text += fmt.Sprintf(", %s rule %d", d, *x.Decision.Sides[d].Rule+1)
	}
	if at := x.At.String(); at != "" {
		text += " at " + at
	}
	return text
}

// Question returns the arguments of weir explain that tell more of a connection;
// nil where the counterexample is none.
func (x *Counterexample) Question() []string {
	if x.Ports.IsEmpty() {
		return nil
	}
	return []string{named(&x.From), named(&x.To), x.PortText()}
}

// named returns a peer as questions take it.
func named(p *policies.Peer) string {
	switch {
	case p.IsOutside():
		return p.CIDR.Addr().String()
	case p.Kind == "Node":
		return "node/" + p.Name
	case p.Pod != "":
		return p.Namespace + "/pod/" + p.Pod
	}
	return p.Namespace + "/" + strings.ToLower(p.Kind) + "/" + p.Name
}

// Lapsed says which waivers have expired, a clause each; empty where none has.
func (r *Result) Lapsed() string {
	var all []string
	for _, w := range r.Expired {
		all = append(all, fmt.Sprintf("a waiver expired at the end of %s (%s, for %s)", w.Until.Format(time.DateOnly), w.Reason, w.Owner))
	}
	return strings.Join(all, "; ")
}

// String says until when a waiver forgives, by whom and why.
func (w *Waiver) String() string {
	return fmt.Sprintf("waived until %s by %s: %s", w.Until.Format(time.DateOnly), w.Owner, w.Reason)
}
