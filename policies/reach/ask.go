package reach

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Question asks whether From can open a connection to To.
type Question struct {
	From, To policies.Target
	Port     policies.PortQuery
}

// Ask answers a question with the decision and every rule that took part. A
// question may name several pods, addresses or ports. Where they are all decided
// alike the answer is that decision; else the verdict is unknown, since it
// depends on which of them is meant, and Parts holds each answer. It fails where
// the port cannot be resolved: a Service without that port, or a port name that
// no destination has.
func (j *Judge) Ask(q Question) (policies.Decision, error) {
	if !q.From.Addresses.IsEmpty() && !q.To.Addresses.IsEmpty() {
		return policies.Decision{}, fmt.Errorf("both %s and %s are outside: policies decide nothing between them", q.From.Text, q.To.Text)
	}
	targets, note, err := j.targets(q)
	if err != nil {
		return policies.Decision{}, err
	}
	var a answers
	for _, t := range targets {
		for _, from := range j.ends(q.From) {
			allow, unknown := j.Ports(from.end, t.end)
			a.add(answer{from, t.asked, policies.Deny, t.ports.Minus(allow).Minus(unknown)})
			a.add(answer{from, t.asked, policies.Unknown, t.ports.Intersect(unknown)})
			a.add(answer{from, t.asked, policies.Allow, t.ports.Intersect(allow)})
		}
	}
	answer := merge(a.decide(j))
	if note != "" {
		answer.Because = strings.TrimPrefix(answer.Because+"; "+note, "; ")
	}
	return answer, nil
}

// asked is one end that a question means: a pod, a node, or the addresses of a
// range that no rule tells apart, with one of them as its end.
type asked struct {
	end       End
	addresses netset.Addresses
}

// answers gathers what is decided alike: addresses that get the same answer on
// the same ports are answered for together.
type answers []answer

type answer struct {
	from, to asked
	verdict  policies.Verdict
	ports    netset.Ports
}

func (a *answers) add(y answer) {
	if y.ports.IsEmpty() {
		return
	}
	alike := func(x, y asked) bool { return x.end == y.end || x.end.kind == outsideEnd && y.end.kind == outsideEnd }
	for i := range *a {
		x := &(*a)[i]
		if alike(x.from, y.from) && alike(x.to, y.to) && x.verdict == y.verdict && x.ports.Equal(y.ports) {
			x.from.addresses = x.from.addresses.Union(y.from.addresses)
			x.to.addresses = x.to.addresses.Union(y.to.addresses)
			return
		}
	}
	*a = append(*a, y)
}

// decide explains each answer, addresses block by block.
func (a answers) decide(j *Judge) []policies.Decision {
	var decisions []policies.Decision
	for _, x := range a {
		for _, from := range j.named(x.from) {
			for _, to := range j.named(x.to) {
				decisions = append(decisions, j.DecideTogether(from.end, to.end, [2]policies.Peer{from.peer, to.peer}, x.ports))
			}
		}
	}
	return decisions
}

type namedEnd struct {
	end  End
	peer policies.Peer
}

// named returns an end with its name, or one for each block of its addresses.
func (j *Judge) named(x asked) []namedEnd {
	if x.end.kind != outsideEnd {
		return []namedEnd{{x.end, j.Peer(x.end)}}
	}
	var all []namedEnd
	for _, b := range x.addresses.Blocks() {
		for first := range b.Addresses().Spans() {
			all = append(all, namedEnd{j.Outside(first), policies.Outside(b)})
			break
		}
	}
	return all
}

// target is one end that a question leads to, with the ports asked there.
type target struct {
	asked
	ports netset.Ports
}

func (j *Judge) targets(q Question) ([]target, string, error) {
	var all []target
	var led []string
	for _, e := range j.ends(q.To) {
		ports := q.Port.Ports
		switch {
		case q.To.Service != nil:
			var err error
			if ports, err = q.To.Service.Behind(&j.world.Pods[e.end.index], q.Port); err != nil {
				return nil, "", err
			}
			if ports.IsEmpty() {
				continue
			}
			if p := ports.String(); !slices.Contains(led, p) {
				led = append(led, p)
			}
		case q.Port.Name != "":
			if ports = j.numbersBehind(e.end, q.Port.Name); ports.IsEmpty() {
				continue
			}
		}
		all = append(all, target{e, ports})
	}
	if len(all) == 0 {
		return nil, "", fmt.Errorf("%s has no port named %q", q.To.Text, q.Port.Name)
	}
	note := ""
	if s := q.To.Service; s != nil {
		note = fmt.Sprintf("service %s leads to %s at %s", s.Ref, counted(len(s.Pods), "pod"), strings.Join(led, " or "))
	}
	return all, note, nil
}

// PortsOf returns the ports that a question's port means at the pods of a target:
// behind a Service, those that it leads to; for a name, the numbers that the pods
// give it. It fails where Ask would, and where pods differ in that.
func (j *Judge) PortsOf(to policies.Target, port policies.PortQuery) (netset.Ports, error) {
	targets, _, err := j.targets(Question{To: to, Port: port})
	if err != nil {
		return netset.Ports{}, err
	}
	for _, t := range targets[1:] {
		if !t.ports.Equal(targets[0].ports) {
			return netset.Ports{}, fmt.Errorf("the pods of %s differ in which port it is: %s on some, %s on others; name one workload or the number", to.Text, targets[0].ports, t.ports)
		}
	}
	return targets[0].ports, nil
}

func (j *Judge) numbersBehind(e End, name string) netset.Ports {
	var ports netset.Ports
	if e.kind == podEnd {
		for _, c := range j.world.Pods[e.index].Ports {
			if c.Name == name {
				ports = ports.Union(netset.PortSpan(c.Protocol, c.Number, c.Number))
			}
		}
	}
	return ports
}

// ends returns one end for each thing a target names that policies can tell
// apart.
func (j *Judge) ends(t policies.Target) []asked {
	var all []asked
	seen := map[[2]any]bool{}
	for _, i := range t.Pods {
		p := &j.world.Pods[i]
		key := [2]any{j.placement.pods[i], p.Workload}
		if p.HostNetwork || p.Replicas <= 1 {
			key[1] = [2]string{p.Node, p.Workload.Name}
		}
		if !seen[key] {
			seen[key] = true
			all = append(all, asked{end: j.At(j.Pod(i), t.Address)})
		}
	}
	for _, i := range t.Nodes {
		all = append(all, asked{end: j.At(j.Node(i), t.Address)})
	}
	for first, last := range t.Addresses.Spans() {
		for a, end := j.atomOf(first), j.atomOf(last); a <= end; a++ {
			atom := j.frame.atoms[a]
			part := netset.AddressSpan(atom.first, atom.last).Intersect(netset.AddressSpan(first, last))
			all = append(all, asked{j.Outside(slices.MaxFunc([]netip.Addr{first, atom.first}, netip.Addr.Compare)), part})
		}
	}
	return all
}

// Ports returns all traffic, of every protocol, that is allowed between two
// ends, and all for which the answer is unknown.
func (j *Judge) Ports(from, to End) (allow, unknown netset.Ports) {
	j = j.whole()
	g := newGrants(j.ports)
	if j.self(from, to) {
		return netset.AllTraffic(), netset.Ports{}
	}
	var ways waysGranted
	var a, b [2]int32
	for _, source := range j.columnsOf(from, &a) {
		for _, target := range j.columnsOf(to, &b) {
			if way, shared := j.wayOf(from, to, source, target); way != noWay {
				ways.add(g, shared, g.over(way, j.granted(g, policies.Egress, from, to, source, target), j.granted(g, policies.Ingress, to, from, target, source)))
			}
		}
	}
	sum := ways.sum(g)
	return g.ports.sets[g.all[sum].allow], g.ports.sets[g.all[sum].unknown]
}

func (j *Judge) granted(g *grants, d policies.Direction, subject, other End, own, column int32) grantID {
	class := j.columns[own].subject
	if class < 0 {
		return g.open
	}
	given := g.of(j.rows[d].at(class), column)
	if d == policies.Ingress {
		given = g.fromNode(given, g.of(j.local.at(class), column), j.onNodeOf(other, subject))
	}
	return given
}

// merge makes one answer of several.
func merge(parts []policies.Decision) policies.Decision {
	answer := parts[0]
	counts := map[policies.Verdict]int{}
	for _, p := range parts {
		counts[p.Verdict]++
	}
	if len(parts) == 1 {
		return answer
	}
	answer.Parts = parts
	var ports netset.Ports
	for _, p := range parts {
		ports = ports.Union(p.Asked())
	}
	if !ports.Equal(answer.Asked()) {
		answer.Ports = ports
	}
	if len(counts) > 1 {
		answer.Verdict = policies.Unknown
		answer.Sides = [2]policies.Side{}
		answer.Families = nil
		answer.Because = fmt.Sprintf("it depends on which is meant: %d allow, %d deny, %d unknown", counts[policies.Allow], counts[policies.Deny], counts[policies.Unknown])
	}
	return answer
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if stem, ok := strings.CutSuffix(noun, "y"); ok {
		return fmt.Sprintf("%d %sies", n, stem)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
