package reach_test

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/selector"
)

// drawEdit puts in policies of another model of the dialect, some of them in place of
// one that is there, and takes out some.
func drawEdit(d dice, m *policies.Model, more []policies.Policy) (e reach.Edit) {
	if len(m.Policies) > 0 {
		e.Delete = several(d, 1, func() policies.Ref { return pick(d, m.Policies...).Ref })
	}
	if len(more) == 0 {
		return e
	}
	e.Put = several(d, 2, func() policies.Policy {
		p := pick(d, more...)
		if len(m.Policies) > 0 && d.chance(50) {
			p.Ref = pick(d, m.Policies...).Ref
		}
		if d.chance(30) {
			p.Priority = d.between(0, 3)
		}
		return p
	})
	return e
}

// drawMoves makes pods and namespaces come, go and change, those of another world of
// the dialect among them.
func drawMoves(d dice, e *reach.Edit, w, another *policies.World) {
	type mover struct {
		policies.Pod
		behind []policies.Ref
	}
	var all []mover
	head := *w
	for i := range w.Pods {
		m := mover{Pod: w.Pods[i]}
		for _, s := range w.Services {
			if slices.Contains(s.Pods, i) {
				m.behind = append(m.behind, s.Ref)
			}
		}
		all = append(all, m)
	}
	// Namespaces first, for pods come to those that there are.
	head.Namespaces, head.Services = slices.Clone(w.Namespaces), slices.Clone(w.Services)
	tell := func(kind, name string) { e.Others = append(e.Others, policies.Ref{Kind: kind, Name: name}) }
	for range d.between(0, 2) * d.between(0, 1) {
		n := d.between(0, len(head.Namespaces)+len(another.Namespaces)-1)
		if n >= len(head.Namespaces) {
			more := another.Namespaces[n-len(head.Namespaces)]
			tell("Namespace", more.Name)
			if at := slices.IndexFunc(head.Namespaces, func(n policies.Namespace) bool { return n.Name == more.Name }); at >= 0 {
				head.Namespaces[at] = more
			} else {
				head.Namespaces = append(head.Namespaces, more)
			}
			continue
		}
		name := head.Namespaces[n].Name
		tell("Namespace", name)
		head.Namespaces = slices.Delete(head.Namespaces, n, n+1)
		all = slices.DeleteFunc(all, func(m mover) bool { return m.Ref.Namespace == name })
		head.Services = slices.DeleteFunc(head.Services, func(s policies.Service) bool {
			if s.Ref.Namespace == name {
				e.Others = append(e.Others, s.Ref)
			}
			return s.Ref.Namespace == name
		})
	}
	slices.SortFunc(head.Namespaces, func(a, b policies.Namespace) int { return strings.Compare(a.Name, b.Name) })
	pods := slices.Concat(w.Pods, another.Pods)
	is := func(p policies.Pod) bool {
		return slices.ContainsFunc(head.Namespaces, func(n policies.Namespace) bool { return n.Name == p.Ref.Namespace })
	}
	for range d.between(0, 3) {
		if len(pods) == 0 {
			break
		}
		p := pick(d, pods...)
		at := slices.IndexFunc(all, func(m mover) bool { return m.Ref == p.Ref })
		if at >= 0 && d.chance(40) {
			e.Pods = append(e.Pods, p.Ref)
			all = slices.Delete(all, at, at+1)
			continue
		}
		if at >= 0 {
			p = all[at].Pod
		}
		other := pick(d, pods...)
		switch d.between(0, 7) {
		case 0:
			p.Labels = other.Labels
		case 1:
			p.Addresses = other.Addresses
		case 2:
			p.Addresses = nil
		case 3:
			p.HostNetwork, p.Addresses, p.NodeLabels = other.HostNetwork, other.Addresses, other.NodeLabels
		case 4:
			p.Node = other.Node
		case 5:
			p.Ports, p.Replicas = other.Ports, other.Replicas
		case 6:
			p.ServiceAccount = other.ServiceAccount
		default:
			p.Ref.Name += "-more"
			p.Workload = p.Ref
			at = slices.IndexFunc(all, func(m mover) bool { return m.Ref == p.Ref })
		}
		if !is(p) {
			continue
		}
		m := mover{Pod: p}
		for _, s := range head.Services {
			if s.Ref.Namespace == p.Ref.Namespace && d.chance(50) {
				m.behind = append(m.behind, s.Ref)
			}
		}
		e.Pods = append(e.Pods, p.Ref)
		if at >= 0 {
			all[at] = m
		} else {
			all = append(all, m)
		}
	}
	slices.SortStableFunc(all, func(a, b mover) int { return a.Ref.Compare(b.Ref) })
	head.Pods = nil
	for i := range head.Services {
		head.Services[i].Pods = nil
	}
	for i, m := range all {
		head.Pods = append(head.Pods, m.Pod)
		for k := range head.Services {
			if slices.Contains(m.behind, head.Services[k].Ref) {
				head.Services[k].Pods = append(head.Services[k].Pods, i)
			}
		}
	}
	e.World = &head
}

// afterEdit is what an edit makes of some policies.
func afterEdit(all []policies.Policy, e reach.Edit) []policies.Policy {
	all = slices.Clone(all)
	remove := func(ref policies.Ref) {
		all = slices.DeleteFunc(all, func(p policies.Policy) bool { return p.Ref == ref })
	}
	for _, ref := range e.Delete {
		remove(ref)
	}
	for _, p := range e.Put {
		remove(p.Ref)
		all = append(all, p)
	}
	slices.SortStableFunc(all, policies.Policy.Compare)
	return all
}

// A judge that is made of another one, again and again, is the one that New makes.
func TestWithIsNew(t *testing.T) {
	made, anew := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		d := dice{t}
		m, another := drawTwoModels(d, t)
		froms, tos := several(d, 2, func() policies.Match { return drawMatch(d, m, 1) }), several(d, 2, func() policies.Match { return drawMatch(d, m, 1) })
		o := reach.Options{Lasting: true, Apart: slices.Concat(froms, tos, []policies.Match{{Any: peersOf(another.Policies)}})}
		if d.chance(20) {
			o.Apart = slices.Concat(froms, tos)
		}
		j := reach.New(m, o)
		ports := pick(d, netset.AllTraffic(), netset.PortSpan(netset.TCP, 80, 80), netset.PortSpan(netset.UDP, 53, 90))
		for range d.between(1, 4) {
			e := drawEdit(d, j.Model(), another.Policies)
			if d.chance(60) {
				drawMoves(d, &e, &j.Model().World, &another.World)
				if d.chance(50) {
					e.Put, e.Delete = nil, nil
				}
			}
			head, change := j.With(e)
			made++
			if want, got := afterEdit(j.Model().Policies, e), head.Model().Policies; len(want) != len(got) || len(got) > 0 && !reflect.DeepEqual(want, got) {
				t.Fatalf("the model holds %v, want %v", got, want)
			}
			fresh := *head.Model()
			want := reach.New(&fresh, reach.Options{})
			// Before the judges are compared, rows are made as they are asked for.
			early := d.chance(70)
			if !early {
				compareJudges(t, d, want, head)
			}
			if change.Anew() {
				anew++
			} else {
				checkChange(t, j, head, change, froms, tos, ports)
			}
			checkBetween(t, head, froms, tos, ports)
			if early {
				compareJudges(t, d, want, head)
			}
			if d.chance(80) {
				j = head
			}
		}
	})
	t.Logf("%d of %d judges were made anew", anew, made)
}

// drawTwoModels returns two models of one dialect.
func drawTwoModels(d dice, t rapid.TB) (a, b *policies.Model) {
	switch d.between(0, 2) {
	case 0:
		x, y := drawCluster(d), drawCluster(d)
		return readModel(t, x.String(), x.podCIDRs), readModel(t, y.String(), y.podCIDRs)
	case 1:
		x, y := drawCalicoWorld(d), drawCalicoWorld(d)
		return readModel(t, x.String(), x.podCIDRs), readModel(t, y.String(), y.podCIDRs)
	}
	return readModel(t, drawHostWorld(d).String(), nil), readModel(t, drawHostWorld(d).String(), nil)
}

// peersOf returns all matches of some policies.
func peersOf(all []policies.Policy) []policies.Match {
	some := []policies.Match{{Anyone: true}}
	for i := range all {
		some = append(some, all[i].Subject)
		for _, way := range policies.Directions {
			for _, r := range all[i].Rules[way] {
				some = append(some, r.Peers...)
				if r.Own != nil {
					some = append(some, *r.Own)
				}
			}
		}
	}
	return some
}

// compareJudges holds two judges of one model against each other.
func compareJudges(t *rapid.T, d dice, want, got *reach.Judge) {
	all := endsOf(want)
	asked := []point{{netset.TCP, 80}, {netset.UDP, 81}, pick(d, calicoPoints...)}
	if len(all) > 0 && d.chance(10) {
		reach.NewAudit(got)
		if x, y := want.Parts().Isolates(policies.Ingress, all[0]), got.Parts().Isolates(policies.Ingress, all[0]); x != y {
			t.Fatalf("%v is isolated: %v, want %v", want.Peer(all[0]), y, x)
		}
	}
	for _, a := range all {
		for _, way := range policies.Directions {
			var refs []policies.Ref
			for p := range got.GoverningPolicies(way, a) {
				refs = append(refs, p.Ref)
			}
			for i, g := range want.Governing(way, a) {
				if refs[i] != want.Model().Policies[g.Policy].Ref {
					t.Fatalf("%v of %v is governed by %v", way, want.Peer(a), refs)
				}
			}
			if diff := gocmp.Diff(want.Governing(way, a), got.Governing(way, a)); diff != "" {
				t.Fatalf("%v of %v is governed otherwise: -want +got\n%s", way, want.Peer(a), diff)
			}
		}
		for _, b := range all {
			allow, unknown := got.Ports(a, b)
			if wantAllow, wantUnknown := want.Ports(a, b); !allow.Equal(wantAllow) || !unknown.Equal(wantUnknown) {
				t.Fatalf("%v to %v: %v and unknown %v, want %v and %v", got.Peer(a), got.Peer(b), allow, unknown, wantAllow, wantUnknown)
			}
			for _, q := range asked {
				v := got.Verdict(a, b, q.protocol, q.port)
				if v != inPorts(allow, unknown, q) {
					t.Fatalf("%v to %v on %v: %v, Ports say %v", got.Peer(a), got.Peer(b), q, v, inPorts(allow, unknown, q))
				}
			}
		}
	}
	for range 5 {
		a, b, q := pick(d, all...), pick(d, all...), pick(d, asked...)
		wanted, said := want.Decide(a, b, q.protocol, q.port), got.Decide(a, b, q.protocol, q.port)
		// A judge that tells more apart says more of the families.
		wanted.Families, said.Families = nil, nil
		if !reflect.DeepEqual(wanted, said) {
			t.Fatalf("%v to %v on %v is explained otherwise:\n%+v\nwant\n%+v", got.Peer(a), got.Peer(b), q, said, wanted)
		}
		brief := got.DecideBriefly(a, b, q.protocol, q.port)
		brief.Families = nil
		if withoutTrace(&brief); !reflect.DeepEqual(brief, *withoutTrace(&said)) {
			t.Fatalf("%v to %v on %v is explained otherwise, and briefly:\n%+v\nwant\n%+v", got.Peer(a), got.Peer(b), q, brief, said)
		}
	}
}

func withoutTrace(d *policies.Decision) *policies.Decision {
	for i := range d.Sides {
		d.Sides[i].Trace = nil
		for k := range d.Sides[i].Hops {
			d.Sides[i].Hops[k].Trace = nil
		}
	}
	return d
}

// checkChange checks that what was between two groups, less what the change says was
// before, plus what it says is after, is what is between them.
func checkChange(t *rapid.T, base, head *reach.Judge, c *reach.Change, froms, tos []policies.Match, ports netset.Ports) {
	wasFrom, okFrom := base.GroupOf(froms...)
	wasTo, okTo := base.GroupOf(tos...)
	from, to := wasFrom, wasTo
	if !head.Serves(from) {
		from, _ = head.GroupOf(froms...)
		to, _ = head.GroupOf(tos...)
	}
	if !okFrom || !okTo || !head.Serves(from) || !head.Serves(to) {
		t.Fatal("there are no groups")
	}
	before, after := c.Count(from, to, ports)
	for v := range before.Sure {
		before.Sure[v], before.Perhaps[v] = after.Sure[v]-before.Sure[v], after.Perhaps[v]-before.Perhaps[v]
	}
	var more reach.Count
	pairs := map[string]int{}
	var crossings [2][]reach.Crossing
	count := func(sign int, x reach.Crossing) {
		key := fmt.Sprint(x.Verdict, x.Perhaps)
		for r := range x.Ports.Ranges() {
			for _, q := range calicoPoints {
				if r.Protocol == q.protocol && r.First <= q.port && q.port <= r.Last {
					pairs[fmt.Sprint(key, q)] += sign * x.Pairs
					if pairs[fmt.Sprint(key, q)] == 0 {
						delete(pairs, fmt.Sprint(key, q))
					}
				}
			}
		}
	}
	for x := range base.Between(wasFrom, wasTo, ports) {
		count(1, x)
	}
	for x := range c.Before(from, to, ports) {
		count(-1, x)
		add(&more, -1, x)
		crossings[0] = append(crossings[0], x)
	}
	for x := range c.After(from, to, ports) {
		count(1, x)
		add(&more, 1, x)
		crossings[1] = append(crossings[1], x)
	}
	for x := range head.Between(from, to, ports) {
		count(-1, x)
	}
	if before != more {
		t.Fatalf("%v to %v on %v: it counts %v more, want %v", froms, tos, ports, before, more)
	}
	if len(pairs) > 0 {
		t.Fatalf("%v to %v on %v: the change misses %v", froms, tos, ports, pairs)
	}
	for side, j := range []*reach.Judge{base, head} {
		for _, x := range crossings[side] {
			checkCrossing(t, j, x)
		}
	}
}

func checkCrossing(t *rapid.T, j *reach.Judge, x reach.Crossing) {
	for r := range x.Ports.Ranges() {
		if v := j.Verdict(x.From, x.To, r.Protocol, r.First); v != x.Verdict {
			t.Fatalf("%v to %v on %v: %v, it is %v", j.Peer(x.From), j.Peer(x.To), x.Ports, x.Verdict, v)
		}
	}
}

// Most changes leave the classes of pods what they are.
func TestWithSeldomBeginsAnew(t *testing.T) {
	j := reach.New(worlds.Cluster5k.Model(1), reach.Options{Lasting: true})
	pods := func(key, value string) policies.Match {
		return policies.Match{Namespaces: selector.Label(policies.NameLabel, "ns-0001"), Pods: selector.Label(key, value)}
	}
	block := func(text string) policies.Match {
		return policies.Match{Block: netset.Block{CIDR: netip.MustParsePrefix(text)}}
	}
	for _, row := range []struct {
		what string
		rule policies.Rule
		anew bool
	}{
		{"a label that policies name", policies.Rule{Peers: []policies.Match{pods("app", "app-001")}}, false},
		{"a label that only pods have", policies.Rule{Peers: []policies.Match{pods("version", "v3")}}, false},
		{"a label of namespaces", policies.Rule{Peers: []policies.Match{{Namespaces: selector.Label("cost-centre", "7"), Pods: selector.Everything()}}}, false},
		{"another port", policies.Rule{Peers: []policies.Match{{Anyone: true}}, Ports: netset.PortSpan(netset.TCP, 4711, 4711)}, false},
		{"a port's name that only pods give", policies.Rule{Peers: []policies.Match{{Anyone: true}}, Named: []policies.NamedPort{{Protocol: netset.TCP, Name: "metrics"}}}, false},
		{"a range that policies name", policies.Rule{Peers: []policies.Match{block("192.0.2.0/24")}}, false},
		{"another range", policies.Rule{Peers: []policies.Match{block("192.0.2.7/32")}}, true},
		{"a label of no pod", policies.Rule{Peers: []policies.Match{pods("colour", "red")}}, true},
		{"a label that differs from pod to pod", policies.Rule{Peers: []policies.Match{pods("pod-template-hash", "5d8f")}}, true},
		{"a label of nodes", policies.Rule{Peers: []policies.Match{{Nodes: selector.Label("zone", "a")}}}, true},
	} {
		t.Run(row.what, func(t *testing.T) {
			row.rule.Action = policies.ActionAllow
			p := policies.Policy{
				Ref: policies.Ref{Kind: "NetworkPolicy", Namespace: "ns-0001", Name: "new"}, Tier: "default",
				Subject: pods("app", "app-000"), Governs: [2]bool{policies.Ingress: true},
				Rules: [2][]policies.Rule{policies.Ingress: {row.rule}},
			}
			if _, c := j.With(reach.Edit{Put: []policies.Policy{p}}); c.Anew() != row.anew {
				t.Errorf("anew: %v, want %v", c.Anew(), row.anew)
			}
		})
	}
}

// Pods come and go without a new judge, and so do namespaces.
func TestWithSeldomBeginsAnewForAWorld(t *testing.T) {
	m := worlds.Cluster5k.Model(1)
	slices.SortFunc(m.Pods, func(a, b policies.Pod) int { return a.Ref.Compare(b.Ref) })
	service := policies.Ref{Kind: "Service", Namespace: "ns-0001", Name: "named"}
	j := reach.New(m, reach.Options{Lasting: true, Apart: []policies.Match{{Object: service}}})
	pod := func(change func(p *policies.Pod)) func(w *policies.World, e *reach.Edit) {
		return func(w *policies.World, e *reach.Edit) {
			change(&w.Pods[7])
			e.Pods = []policies.Ref{m.Pods[7].Ref, w.Pods[7].Ref}
		}
	}
	other := func(ref policies.Ref) func(*policies.World, *reach.Edit) {
		return func(_ *policies.World, e *reach.Edit) { e.Others = []policies.Ref{ref} }
	}
	relabel := func(labels map[string]string) func(w *policies.World, e *reach.Edit) {
		return func(w *policies.World, e *reach.Edit) {
			w.Namespaces = slices.Clone(w.Namespaces)
			w.Namespaces[1].Labels = labels
			e.Others = []policies.Ref{{Kind: "Namespace", Name: w.Namespaces[1].Name}}
		}
	}
	label := func(key, value string) func(p *policies.Pod) {
		return func(p *policies.Pod) {
			p.Labels = maps.Clone(p.Labels)
			p.Labels[key] = value
		}
	}
	for _, row := range []struct {
		what string
		edit func(w *policies.World, e *reach.Edit)
		anew bool
	}{
		{"a pod takes the place of another", pod(func(p *policies.Pod) { p.Ref.Name += "0" }), false},
		{"a pod goes", func(w *policies.World, e *reach.Edit) {
			e.Pods, w.Pods = []policies.Ref{m.Pods[7].Ref}, slices.Delete(w.Pods, 7, 8)
		}, false},
		{"an address is not known", pod(func(p *policies.Pod) { p.Addresses = nil }), false},
		{"a label has another value", pod(label("version", "new")), false},
		{"a label is none before", pod(label("colour", "red")), false},
		{"a port's name is none before", pod(func(p *policies.Pod) {
			p.Ports = []policies.ContainerPort{{Name: "new", Protocol: netset.TCP, Number: 1}}
		}), false},
		{"a pod is on its node's network", pod(func(p *policies.Pod) { p.HostNetwork = true }), true},                            // for a Service is named
		{"an address of IPv6", pod(func(p *policies.Pod) { p.Addresses = []netip.Addr{netip.MustParseAddr("fd00::1")} }), false}, // policies name ranges of IPv6
		{"a namespace has another label", relabel(map[string]string{policies.NameLabel: m.Namespaces[1].Name, "team": "new"}), false},
		{"another Service", other(policies.Ref{Kind: "Service", Namespace: "ns-0001", Name: "other"}), false},
		{"a Service that policies name", other(service), true},
		{"a service account", other(policies.Ref{Kind: "ServiceAccount", Namespace: "ns-0001", Name: "robot"}), false},
		{"a node", other(policies.Ref{Kind: "Node", Name: "node-1"}), true},
		{"a network set", other(policies.Ref{Group: policies.CalicoGroup, Kind: "GlobalNetworkSet", Name: "bad"}), true},
	} {
		t.Run(row.what, func(t *testing.T) {
			w := m.World
			w.Pods = slices.Clone(m.Pods)
			e := reach.Edit{World: &w}
			row.edit(&w, &e)
			if _, c := j.With(e); c.Anew() != row.anew {
				t.Errorf("anew: %v, want %v", c.Anew(), row.anew)
			}
		})
	}
}

// An edit of everybody is about those pairs alone that the tiers behind it allow.
func TestWithLooksBehind(t *testing.T) {
	pods := func(name string) policies.Match {
		return policies.Match{Namespaces: selector.Everything(), Pods: selector.Label("app", name)}
	}
	everybody := policies.Match{Namespaces: selector.Everything(), Pods: selector.Everything()}
	policy := func(tier, name string, subject policies.Match, rules ...policies.Rule) policies.Policy {
		return policies.Policy{
			Ref: policies.Ref{Kind: "NetworkPolicy", Namespace: "a", Name: name}, Tier: tier, Subject: subject,
			Governs: [2]bool{policies.Ingress: true}, Rules: [2][]policies.Rule{policies.Ingress: rules},
		}
	}
	rule := func(does policies.Action, ports netset.Ports, peers ...policies.Match) policies.Rule {
		return policies.Rule{Action: does, Ports: ports, Peers: peers}
	}
	postgres := netset.PortSpan(netset.TCP, 5432, 5432)
	m := &policies.Model{
		World: policies.World{Namespaces: []policies.Namespace{{Name: "a"}}},
		Tiers: []policies.Tier{{Name: "first", End: policies.ActionPass}, {Name: "second", End: policies.ActionDeny, SparesOwnNode: true}, {Name: "third", End: policies.ActionPass}},
		Policies: []policies.Policy{
			policy("second", "closed", everybody),
			policy("second", "db", pods("db"), rule(policies.ActionAllow, postgres, pods("web"))),
		},
	}
	for _, app := range []string{"web", "db", "cart", "mail"} {
		ref := policies.Ref{Kind: "Pod", Namespace: "a", Name: app}
		m.Pods = append(m.Pods, policies.Pod{Ref: ref, Workload: ref, Replicas: 1, Labels: map[string]string{"app": app}})
	}
	for _, row := range []struct {
		what  string
		put   policies.Policy
		pairs int
	}{
		{"a denial counts where somebody is allowed", policy("first", "new", everybody, rule(policies.ActionDeny, netset.AllTraffic(), everybody)), 1},
		{"and on no port on which nobody is", policy("first", "new", everybody, rule(policies.ActionDeny, netset.PortSpan(netset.TCP, 80, 80), everybody)), 0},
		{"what is allowed first counts for all", policy("first", "new", everybody, rule(policies.ActionAllow, postgres, pods("mail"))), 4 - 1},
		{"what is passed on anyway does not", policy("first", "new", everybody, rule(policies.ActionPass, postgres, everybody)), 0},
		{"nor does what is decided before", policy("third", "new", everybody, rule(policies.ActionAllow, postgres, everybody)), 0},
		{"nor does what is allowed already", policy("second", "new", pods("db"), rule(policies.ActionAllow, postgres, pods("web"))), 0},
	} {
		t.Run(row.what, func(t *testing.T) {
			j := reach.New(m, reach.Options{Lasting: true, Apart: []policies.Match{everybody, pods("mail")}})
			_, c := j.With(reach.Edit{Put: []policies.Policy{row.put}})
			all, _ := j.GroupOf(everybody)
			before, after := c.Count(all, all, postgres)
			for _, n := range []reach.Count{before, after} {
				if sum := n.Sure[policies.Allow] + n.Sure[policies.Deny]; sum != row.pairs {
					t.Errorf("it counts %d pairs, want %d: %v", sum, row.pairs, n)
				}
			}
		})
	}
}

// The judge of an edit serves several at once, while its rows are made.
func TestWithServesMany(t *testing.T) {
	m := worlds.Cluster5k.Model(1)
	everybody := policies.Match{Namespaces: selector.Everything(), Pods: selector.Everything()}
	j := reach.New(m, reach.Options{Lasting: true, Apart: []policies.Match{everybody}})
	p := m.Policies[0]
	p.Subject = everybody
	head, change := j.With(reach.Edit{Put: []policies.Policy{p}})
	all, ok := j.GroupOf(everybody)
	if !ok || change.Anew() {
		t.Fatal("it is begun anew")
	}
	web := netset.PortSpan(netset.TCP, 80, 80)
	var counts [4]reach.Count
	var verdicts [4]policies.Verdict
	var wait sync.WaitGroup
	for i := range counts {
		wait.Go(func() {
			counts[i] = head.Count(all, all, web)
			verdicts[i] = head.Verdict(head.Pod(i), head.Pod(7), netset.TCP, 80)
		})
	}
	wait.Wait()
	want := reach.New(head.Model(), reach.Options{Apart: []policies.Match{everybody}})
	group, _ := want.GroupOf(everybody)
	for i := range counts {
		if n := want.Count(group, group, web); counts[i] != n {
			t.Errorf("%v, want %v", counts[i], n)
		}
		if v := want.Verdict(want.Pod(i), want.Pod(7), netset.TCP, 80); verdicts[i] != v {
			t.Errorf("%v, want %v", verdicts[i], v)
		}
	}
}
