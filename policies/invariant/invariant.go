// Package invariant says whether sentences about reachability hold, and what
// breaks them.
//
// It owns what the sentences mean, and waivers. What is decided package reach
// says; which moment it is, the caller.
package invariant

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/expression"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
)

// Invariant is a sentence about reachability that must hold.
type Invariant struct {
	Ref         policies.Ref
	Description string
	Owner       string
	Links       []string
	Severity    Severity
	Adopt       bool // admission takes it although it does not hold today
	Form        Form
	// From and To are the ends of the connections that the sentence is about, any
	// of these. Isolated speaks of From alone, CEL and Rego of neither.
	From, To   []policies.Match
	Ports      []policies.PortQuery // any of them; any of TCP, UDP and SCTP where there is none
	Direction  policies.Direction   // of Only: Ingress keeps others from To, Egress keeps From from others
	Directions []policies.Direction // of Isolated
	CEL        *expression.Expression
	Rego       expression.Program
	Waivers    []Waiver
	Place      policies.Place
	FormPlace  policies.Place // of the sentence itself
	// Pack is the policy pack that it comes from, whose authors do not know the
	// world: that it speaks of nobody there is no news.
	Pack string
}

// Form is the kind of sentence that an invariant is.
type Form uint8

// The forms.
const (
	NoForm   Form = iota
	Never         // no connection is allowed
	Always        // every connection is allowed, but that of a pod to itself
	Only          // but the others, nobody reaches them
	Isolated      // every pod is isolated
	Exists        // some connection is allowed
	CEL           // an expression is true, or an empty list
	Rego          // a policy says nothing
)

var forms = [...]string{"", "never", "always", "only", "isolated", "exists", "cel", "rego"}

func (f Form) String() string { return forms[f] }

// isProgram reports whether only an evaluation tells what the sentence asks.
func (f Form) isProgram() bool { return f == CEL || f == Rego }

// Severity is what becomes of a change that breaks an invariant.
type Severity uint8

// The severities.
const (
	Deny  Severity = iota // it is refused
	Warn                  // who makes it is told
	Audit                 // it is noted
)

var severities = [...]string{"deny", "warn", "audit"}

func (s Severity) String() string { return severities[s] }

// Severities are the names of all of them, the worst first.
func Severities() []string { return severities[:] }

// ParseSeverity reads what String prints; empty is Deny.
func ParseSeverity(text string) (Severity, error) {
	for i, name := range severities {
		if text == name {
			return Severity(i), nil
		}
	}
	if text == "" {
		return Deny, nil
	}
	return Deny, fmt.Errorf("severity %q is none of %s", text, strings.Join(severities[:], ", "))
}

// Waiver forgives what breaks an invariant until the end of a day in UTC: all of
// it, or what is between From, if any, and To, if any.
type Waiver struct {
	Reason, Owner string
	Until         time.Time // the day's beginning
	From, To      []policies.Match
	Place         policies.Place
}

// Expired reports whether the waiver's last day is over.
func (w *Waiver) Expired(now time.Time) bool { return !now.Before(w.Until.AddDate(0, 0, 1)) }

// Pods describes every pod that is not on its node's network.
func Pods() policies.Match {
	return policies.Match{Namespaces: selector.Everything(), Pods: selector.Everything()}
}

// Nodes describes every node, and the pods on their network.
func Nodes() policies.Match { return policies.Match{Nodes: selector.Everything()} }

// Outside describes those of the addresses that m does that are no pod's and no
// node's; m is made of blocks and sets.
func Outside(m ...policies.Match) policies.Match {
	return policies.Match{Any: m, Except: []policies.Match{Pods(), Nodes()}}
}

// Anyone describes every pod, and all addresses outside. Nodes are described by
// name or label only: a node can always reach the pods that it runs.
func Anyone() policies.Match {
	return policies.Match{Any: []policies.Match{Pods(), Outside(everywhere()...)}}
}

// Others describes anyone but these.
func Others(m []policies.Match) policies.Match {
	others := Anyone()
	others.Except = m
	return others
}

// Everywhere describes all addresses that are no pod's and no node's.
func Everywhere() policies.Match { return Outside(everywhere()...) }

func everywhere() []policies.Match {
	var all []policies.Match
	for _, b := range netset.EveryAddress().Blocks() {
		all = append(all, policies.Match{Block: b, InCluster: true})
	}
	return all
}

// ends returns whom the sentence has at either end.
func (i *Invariant) ends() (from, to []policies.Match) {
	switch {
	case i.Form == Only && i.Direction == policies.Ingress:
		return []policies.Match{Others(i.From)}, i.To
	case i.Form == Only:
		return i.From, []policies.Match{Others(i.To)}
	}
	return i.From, i.To
}

// AskFlows reports whether some of the invariants ask what was recorded.
func AskFlows(invariants []Invariant) bool {
	return slices.ContainsFunc(invariants, func(i Invariant) bool { return i.Rego != nil && i.Rego.AsksFlows() })
}

// Matches returns what reach.Options.Apart needs so that the invariants can be
// checked.
func Matches(invariants []Invariant) []policies.Match {
	var all []policies.Match
	for k := range invariants {
		i := &invariants[k]
		from, to := i.ends()
		all = append(append(all, from...), to...)
		for w := range i.Waivers {
			all = append(append(all, i.Waivers[w].From...), i.Waivers[w].To...)
		}
	}
	return all
}
