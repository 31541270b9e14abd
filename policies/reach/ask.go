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
	targets, note, err := j.targets(q)
	if err != nil {
		return policies.Decision{}, err
	}
	var parts []policies.Decision
	for _, t := range targets {
		for _, from := range j.ends(q.From) {
			if len(q.From.Pods) == 0 && t.end.kind == outsideEnd && from.kind == outsideEnd {
				return policies.Decision{}, fmt.Errorf("both %s and %s are outside: policies decide nothing between them", q.From.Text, q.To.Text)
			}
			parts = append(parts, j.overPorts(from, t.end, t.ports)...)
		}
	}
	answer := merge(parts)
	if note != "" {
		answer.Because = strings.TrimPrefix(answer.Because+"; "+note, "; ")
	}
	return answer, nil
}

// target is one end that a question leads to, with the ports asked there.
type target struct {
	end   End
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
			if ports, err = j.throughService(q.To.Service, e, q.Port); err != nil {
				return nil, "", err
			}
			if ports.IsEmpty() {
				continue
			}
			if p := ports.String(); !slices.Contains(led, p) {
				led = append(led, p)
			}
		case q.Port.Name != "":
			if ports = j.numbersBehind(e, q.Port.Name); ports.IsEmpty() {
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

// throughService returns the pod's ports that a Service leads the question's
// port to.
func (j *Judge) throughService(s *policies.Service, e End, q policies.PortQuery) (netset.Ports, error) {
	var ports netset.Ports
	var offered []string
	found := false
	for _, p := range s.Ports {
		offered = append(offered, fmt.Sprintf("%s/%d", p.Protocol, p.Port))
		if q.Name != "" && q.Name != p.Name || q.Name == "" && !q.Ports.Contains(p.Protocol, p.Port) {
			continue
		}
		found = true
		number := p.Target
		if p.TargetName == "" {
			ports = ports.Union(netset.PortSpan(p.Protocol, number, number))
			continue
		}
		for _, c := range j.model.Pods[e.index].Ports {
			if c.Name == p.TargetName && c.Protocol == p.Protocol {
				ports = ports.Union(netset.PortSpan(c.Protocol, c.Number, c.Number))
			}
		}
	}
	if !found {
		asked := q.Name
		if asked == "" {
			asked = q.Ports.String()
		}
		return ports, fmt.Errorf("service %s has no port %s; it offers %s", s.Ref, asked, strings.Join(offered, ", "))
	}
	return ports, nil
}

func (j *Judge) numbersBehind(e End, name string) netset.Ports {
	var ports netset.Ports
	if e.kind == podEnd {
		for _, c := range j.model.Pods[e.index].Ports {
			if c.Name == name {
				ports = ports.Union(netset.PortSpan(c.Protocol, c.Number, c.Number))
			}
		}
	}
	return ports
}

// ends returns one end for each thing a target names that policies can tell
// apart.
func (j *Judge) ends(t policies.Target) []End {
	var all []End
	seen := map[[2]any]bool{}
	for _, i := range t.Pods {
		p := &j.model.Pods[i]
		key := [2]any{j.placement.pods[i], p.Workload}
		if p.HostNetwork || p.Replicas <= 1 {
			key[1] = [2]string{p.Node, p.Workload.Name}
		}
		if !seen[key] {
			seen[key] = true
			all = append(all, j.Pod(i))
		}
	}
	for _, i := range t.Nodes {
		all = append(all, j.Node(i))
	}
	for first, last := range t.Addresses.Spans() {
		for a, end := j.atomOf(first), j.atomOf(last); a <= end; a++ {
			all = append(all, j.Outside(later(first, j.frame.atoms[a].first)))
		}
	}
	return all
}

func later(a, b netip.Addr) netip.Addr {
	if a.Compare(b) > 0 {
		return a
	}
	return b
}

// overPorts answers for each group of ports that are decided alike.
func (j *Judge) overPorts(from, to End, ports netset.Ports) []policies.Decision {
	allow, unknown := j.Ports(from, to)
	var parts []policies.Decision
	for _, alike := range []netset.Ports{ports.Minus(allow).Minus(unknown), ports.Intersect(unknown), ports.Intersect(allow)} {
		for r := range alike.Ranges() {
			d := j.Decide(from, to, r.Protocol, r.First)
			d.Ports = alike
			parts = append(parts, d)
			break
		}
	}
	return parts
}

// Ports returns all traffic, of every protocol, that is allowed between two
// ends, and all for which the answer is unknown.
func (j *Judge) Ports(from, to End) (allow, unknown netset.Ports) {
	g := newGrants(j.ports)
	if j.self(from, to) {
		return netset.AllTraffic(), netset.Ports{}
	}
	sum := noGrant
	var a, b [2]int32
	for _, source := range j.columnsOf(from, &a) {
		for _, target := range j.columnsOf(to, &b) {
			if j.columns[source].families&j.columns[target].families == 0 {
				continue
			}
			sum = g.either(sum, g.both(j.granted(g, policies.Egress, from, to, target), j.granted(g, policies.Ingress, to, from, source)))
		}
	}
	return g.ports.sets[g.all[sum].allow], g.ports.sets[g.all[sum].unknown]
}

func (j *Judge) granted(g *grants, d policies.Direction, subject, other End, column int32) grantID {
	open := g.id(grant{allow: g.ports.id(netset.AllTraffic())})
	class := j.classOf(subject)
	if class < 0 {
		return open
	}
	given := g.of(j.rows[d][class], column)
	if d == policies.Ingress {
		given = g.fromNode(given, g.of(j.local[class], column), j.onNodeOf(other, subject))
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
	for _, p := range parts {
		answer.Ports = answer.Ports.Union(p.Ports)
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
