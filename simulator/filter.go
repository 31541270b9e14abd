package simulator

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
)

// Filter chooses flows: those of which all its fields hold. A field that lists
// several holds if one of them does, and an empty one always does. The zero
// Filter chooses every flow.
type Filter struct {
	From, To, Either []End // Either is an end, whichever it is
	Ports            netset.Ports
	Verdicts         []policies.Verdict
	Policies         []HitPattern
	Reporters        []policies.Reporter
	Formats          []string
	Since, Until     time.Time // of when a flow was first seen; Until is excluded
}

// Answer is whether a record is what was asked for.
type Answer uint8

// The answers, worst first.
const (
	No     Answer = iota
	NotSay        // the record does not say enough
	Yes
)

func yesIf(yes bool) Answer {
	if yes {
		return Yes
	}
	return No
}

// anyOf returns the best answer for some patterns; Yes where there are none.
func anyOf[T any](patterns []T, is func(*T) Answer) Answer {
	if len(patterns) == 0 {
		return Yes
	}
	best := No
	for i := range patterns {
		best = max(best, is(&patterns[i]))
	}
	return best
}

// Match reports whether a flow is one of those that the filter chooses: Yes only
// where the record says all that it takes.
func (f *Filter) Match(flow *policies.Flow) Answer {
	result := min(f.matchTime(flow.First), f.matchRecord(flow))
	if result != No && !f.Ports.IsEmpty() {
		result = min(result, f.matchPort(flow.Protocol, flow.Port))
	}
	if result == No {
		return No
	}
	return min(
		result,
		anyOf(f.From, func(e *End) Answer { return e.match(&flow.From) }),
		anyOf(f.To, func(e *End) Answer { return e.match(&flow.To) }),
		anyOf(f.Either, func(e *End) Answer { return max(e.match(&flow.From), e.match(&flow.To)) }),
		anyOf(f.Policies, func(p *HitPattern) Answer { return p.match(flow.Hits) }),
	)
}

func (f *Filter) matchTime(at time.Time) Answer {
	switch {
	case f.Since.IsZero() && f.Until.IsZero():
		return Yes
	case at.IsZero():
		return NotSay
	}
	return yesIf(!at.Before(f.Since) && (f.Until.IsZero() || at.Before(f.Until)))
}

// matchRecord looks at what every record has.
func (f *Filter) matchRecord(flow *policies.Flow) Answer {
	verdict := cmp.Or(flow.Verdict, policies.Unknown)
	return min(
		anyOf(f.Verdicts, func(v *policies.Verdict) Answer { return yesIf(*v == verdict) }),
		anyOf(f.Reporters, func(r *policies.Reporter) Answer { return yesIf(*r == flow.Origin.Reporter) }),
		anyOf(f.Formats, func(name *string) Answer { return yesIf(*name == flow.Origin.Format) }),
	)
}

func (f *Filter) matchPort(protocol netset.Protocol, port uint16) Answer {
	switch {
	case protocol == 0:
		return NotSay
	case port == 0 && protocol.HasPorts():
		return min(NotSay, yesIf(!f.Ports.Intersect(netset.EveryPort(protocol)).IsEmpty()))
	}
	return yesIf(f.Ports.Contains(protocol, port))
}

// End is a pattern of one end of a flow. Each field that is set must hold.
type End struct {
	text      string
	namespace string
	pod       string
	name      string // of a workload, or of a pod
	kind      string
	labels    *selector.Selector
	addresses netip.Prefix
	outside   bool
}

// String returns the text that the pattern was read from.
func (e End) String() string { return e.text }

// ParseEnd reads a pattern of an end:
//
//	shop/*               whatever is in a namespace
//	shop/web             a workload or a pod
//	shop/Deployment/web  a workload of a kind
//	shop/pod/web-0       a pod
//	app=web,tier!=old    what has labels, as kubectl selects them
//	shop/app=web         the same in a namespace
//	10.0.0.0/8, ::1      addresses
//	world                whatever the recorder says is outside
func ParseEnd(text string) (End, error) {
	e := End{text: text}
	if text == "world" {
		e.outside = true
		return e, nil
	}
	if a, err := netip.ParseAddr(text); err == nil {
		a = plain(a)
		e.addresses = netip.PrefixFrom(a, a.BitLen())
		return e, nil
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		e.addresses = p.Masked()
		return e, nil
	}
	if namespace, labels, ok := splitLabels(text); ok {
		s, err := selector.Parse(labels)
		if err != nil {
			return End{}, fmt.Errorf("end %q: %w", text, err)
		}
		e.namespace, e.labels = namespace, &s
		return e, nil
	}
	parts := strings.Split(text, "/")
	if slices.Contains(parts, "") || len(parts) < 2 || len(parts) > 3 || strings.ContainsAny(parts[0], ".:") {
		return End{}, fmt.Errorf("end %q is none of namespace/*, namespace/name, namespace/kind/name, namespace/pod/name, a label selector such as app=web, an address, a CIDR, world", text)
	}
	e.namespace = parts[0]
	switch {
	case len(parts) == 2 && parts[1] == "*":
	case len(parts) == 2:
		e.name = parts[1]
	case strings.EqualFold(parts[1], "pod"):
		e.pod = parts[2]
	default:
		e.kind, e.name = parts[1], parts[2]
	}
	return e, nil
}

// splitLabels tells a selector from a name, by what only selectors have. Keys may
// have a slash too, behind a domain: a namespace has no dot.
func splitLabels(text string) (namespace, labels string, ok bool) {
	if !strings.ContainsAny(text, "=!, (") {
		return "", "", false
	}
	before, rest, found := strings.Cut(text, "/")
	if found && !strings.ContainsAny(before, "=!, (.") {
		return before, rest, true
	}
	return "", text, true
}

func (e *End) match(p *policies.FlowPeer) Answer {
	elsewhere := p.Host || p.OwnNode || isOutside(p) // so it is no pod
	switch {
	case e.outside && isOutside(p):
		return Yes
	case e.outside:
		return min(NotSay, yesIf(p.Namespace == "" && p.Pod == "" && !p.Host && !p.OwnNode))
	case e.addresses.IsValid() && !p.Address.IsValid():
		return NotSay
	case e.addresses.IsValid():
		return yesIf(e.addresses.Contains(plain(p.Address)))
	case elsewhere:
		return No
	}
	result := Yes
	if e.namespace != "" {
		result = said(p.Namespace, e.namespace)
	}
	if e.pod != "" {
		result = min(result, e.matchPod(p))
	}
	if e.name != "" {
		result = min(result, e.matchName(p))
	}
	if e.labels != nil {
		result = min(result, matchLabels(*e.labels, p))
	}
	return result
}

func said(is, want string) Answer {
	if is == "" {
		return NotSay
	}
	return yesIf(is == want)
}

func (e *End) matchPod(p *policies.FlowPeer) Answer {
	if p.Pod == "" && p.PodPrefix != "" {
		return min(NotSay, yesIf(strings.HasPrefix(e.pod, p.PodPrefix)))
	}
	return said(p.Pod, e.pod)
}

func (e *End) matchName(p *policies.FlowPeer) Answer {
	if e.kind == "" && p.Pod == e.name {
		return Yes
	}
	w := Owner(p)
	result := said(w.Name, e.name)
	if e.kind == "" || result == No {
		return result
	}
	return min(result, said(strings.ToLower(w.Kind), strings.ToLower(e.kind)))
}

func matchLabels(s selector.Selector, p *policies.FlowPeer) Answer {
	sure, possible := s.Test(func(key string) (value string, has, known bool) {
		value, has = p.Labels[key]
		return value, has, has || p.Labels != nil && !p.LabelsPartial
	})
	switch {
	case sure:
		return Yes
	case possible:
		return NotSay
	}
	return No
}

// Owner returns the workload that an end is of: the outermost that the record
// names, where a ReplicaSet leads to its Deployment and a Job to its CronJob; else
// the one whose pods have such names. It has no kind where neither says it, and
// is zero where the record does not tell.
func Owner(p *policies.FlowPeer) policies.Ref {
	owner := policies.Ref{Namespace: p.Namespace}
	switch {
	case len(p.Workloads) > 0:
		owner.Kind, owner.Name = p.Workloads[0].Kind, p.Workloads[0].Name
		before, suffix, found := cutLast(owner.Name)
		switch {
		case found && owner.Kind == "ReplicaSet" && isHash(suffix):
			owner.Kind, owner.Name = "Deployment", before
		case found && owner.Kind == "Job" && isNumber(suffix) && len(suffix) == cronMinutes:
			owner.Kind, owner.Name = "CronJob", before
		}
		return owner
	case p.PodPrefix == "" && p.Pod != "":
		owner.Kind, owner.Name = ownerOfPod(p.Pod)
	case p.PodPrefix != "":
		owner.Name = strings.TrimSuffix(p.PodPrefix, "-")
		switch before, suffix, found := cutLast(owner.Name); {
		case found && isNumber(suffix) && len(suffix) == cronMinutes:
			owner.Kind, owner.Name = "CronJob", before
		case found && isHash(suffix):
			owner.Kind, owner.Name = "Deployment", before
		}
	default:
		return policies.Ref{}
	}
	return owner
}

// cronMinutes is how many digits a CronJob's Jobs have: minutes since 1970.
const cronMinutes = 8

func ownerOfPod(pod string) (kind, name string) {
	before, last, found := cutLast(pod)
	switch {
	case !found:
		return "", pod
	case isNumber(last) && len(last) < 5:
		return "StatefulSet", before
	case !isSuffix(last):
		return "", pod
	}
	name, middle, found := cutLast(before)
	switch {
	case found && isNumber(middle) && len(middle) == cronMinutes:
		return "CronJob", name
	case found && isHash(middle) && len(middle) >= 8:
		return "Deployment", name
	}
	return "", before
}

func cutLast(name string) (before, last string, found bool) {
	i := strings.LastIndexByte(name, '-')
	if i <= 0 || i == len(name)-1 {
		return name, "", false
	}
	return name[:i], name[i+1:], true
}

// HitPattern is a pattern of a rule that took part in a recorded decision.
type HitPattern struct {
	text, tier string
	either     []policies.Ref // what the text may mean; one without a kind means any
}

// String returns the text that the pattern was read from.
func (p HitPattern) String() string { return p.text }

// ParseHit reads a pattern of a policy: "shop/db", "NetworkPolicy/shop/db", of a
// cluster-wide one "guard" or "GlobalNetworkPolicy/guard", or "tier:security" for
// whatever is in a tier.
func ParseHit(text string) (HitPattern, error) {
	p := HitPattern{text: text}
	tier, isTier := strings.CutPrefix(text, "tier:")
	parts := strings.Split(text, "/")
	switch {
	case slices.Contains(parts, "") || len(parts) > 3 || isTier && tier == "":
		return p, fmt.Errorf("policy %q is none of namespace/name, kind/namespace/name, name, kind/name, tier:name", text)
	case isTier:
		p.tier = tier
	case len(parts) == 3:
		p.either = []policies.Ref{{Kind: parts[0], Namespace: parts[1], Name: parts[2]}}
	case len(parts) == 2:
		p.either = []policies.Ref{{Namespace: parts[0], Name: parts[1]}, {Kind: parts[0], Name: parts[1]}}
	default:
		p.either = []policies.Ref{{Name: text}}
	}
	return p, nil
}

func (p *HitPattern) match(hits []policies.Hit) Answer {
	if len(hits) == 0 {
		return NotSay
	}
	best := No
	for i := range hits {
		if p.tier != "" {
			best = max(best, said(hits[i].Tier, p.tier))
		}
		for _, want := range p.either {
			is := &hits[i].Policy
			if is.Name != want.Name || is.Namespace != want.Namespace {
				continue
			}
			if want.Kind == "" {
				return Yes
			}
			best = max(best, said(is.Kind, want.Kind))
		}
	}
	return best
}

// ParseMoment reads a moment: RFC 3339, a day such as 2026-03-01, the start of
// which in UTC it is, or how long before now it was, as in 30d, 12h or 90m.
func ParseMoment(text string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at.UTC(), nil
		}
	}
	ago, err := ParseAge(text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is no moment: write it as 2026-03-01, 2026-03-01T12:00:00Z, or how long ago it was, as 30d or 12h", text)
	}
	return now.Add(-ago).UTC(), nil
}

// ParseAge reads a duration such as 30d or 12h, which may begin with weeks or days.
func ParseAge(text string) (time.Duration, error) {
	if text == "" {
		return 0, errors.New("no duration")
	}
	var sum time.Duration
	for _, unit := range []struct {
		suffix string
		length time.Duration
	}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}} {
		number, rest, found := strings.Cut(text, unit.suffix)
		if !found {
			continue
		}
		const most = 100_000 // days and weeks that a duration can hold
		n := 0
		if number == "" {
			return 0, fmt.Errorf("no number before %s", unit.suffix)
		}
		for _, digit := range number {
			if digit < '0' || digit > '9' || n > most {
				return 0, fmt.Errorf("%q is not a number of at most %d", number, most)
			}
			n = 10*n + int(digit-'0')
		}
		if time.Duration(n) > most*24*time.Hour/unit.length {
			return 0, fmt.Errorf("%s%s is too long ago", number, unit.suffix)
		}
		sum, text = sum+time.Duration(n)*unit.length, rest
	}
	if text == "" {
		return sum, nil
	}
	d, err := time.ParseDuration(text)
	if err == nil && d < 0 {
		err = fmt.Errorf("%s is in the future", text)
	}
	return sum + d, err
}
