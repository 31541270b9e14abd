package query

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
)

// PathOf says what a connection meets on its way, one hop a row: its source, the
// Service that leads it on, for policies see where it leads, the decision at its
// egress, the node it leaves, the node it comes to, the decision at its ingress,
// and its destination. What host endpoints decide about what their node forwards
// has a row of its own beside the node. Where the question means several
// connections that are decided differently, each has its way; ranges of addresses
// that go the same one share it. It fails where Ask does.
func PathOf(j *reach.Judge, q reach.Question) (Answer, policies.Verdict, error) {
	d, err := j.Ask(q)
	if err != nil {
		return Answer{}, policies.Undecided, err
	}
	answer := Answer{Question: Path}
	parts := d.Parts
	if len(parts) == 0 {
		parts = []policies.Decision{d}
	}
	var ways [][]Row
	alike, at := map[string]int{}, map[string]int{}
	for i := range parts {
		way := hops(j, q, &parts[i])
		key := anonymous(way, &parts[i])
		if alike[key]++; alike[key] == 1 {
			at[key] = len(ways)
			ways = append(ways, way)
		}
	}
	for key, n := range alike {
		if n > 1 {
			ways[at[key]][0].Because = fmt.Sprintf("it is the same for %d more", n-1)
		}
	}
	answer.Rows = slices.Concat(ways...)
	return answer, d.Verdict, nil
}

// anonymous returns a text that is the same for ways that differ in the addresses
// of an end only.
func anonymous(way []Row, d *policies.Decision) string {
	text := fmt.Sprint(d.From.IsOutside(), d.To.IsOutside())
	for _, r := range way {
		if r.Peer.IsOutside() {
			r.Peer = nil
		}
		text += fmt.Sprintln(r.What, r.Peer, r.Ports, r.Verdict, r.Policy, r.Because, r.At)
	}
	for _, p := range []policies.Peer{d.From, d.To} {
		if p.IsOutside() {
			text = strings.ReplaceAll(text, p.String(), "it")
		}
	}
	return text
}

func hops(j *reach.Judge, q reach.Question, d *policies.Decision) []Row {
	ports := d.Asked()
	rows := []Row{{What: "from", Peer: &d.From, Ports: ports}}
	if s := q.To.Service; s != nil {
		row := Row{
			What: "service", Peer: &policies.Peer{Kind: "Service", Namespace: s.Ref.Namespace, Name: s.Ref.Name}, Ports: ports, Pods: len(s.Pods),
			Because: fmt.Sprintf("it leads to %s on %s", d.To, ports), At: s.Place,
		}
		if d.From.IsOutside() && hasPreDNAT(j.Model()) {
			row.Because += "; what preDNAT policies of the node it arrives at say of the Service's own address and port is not asked"
		}
		rows = append(rows, row)
	}
	leaves, comes := nodeOf(j, &d.From), nodeOf(j, &d.To)
	rows = append(rows, decided(d, policies.Egress, leaves)...)
	if leaves != nil {
		rows = append(rows, Row{What: "leaves node", Peer: leaves})
	}
	if comes != nil {
		row := Row{What: "comes to node", Peer: comes}
		if leaves != nil && leaves.Name == comes.Name {
			row.Because = "the same node"
		}
		rows = append(rows, row)
	}
	rows = append(rows, decided(d, policies.Ingress, comes)...)
	return append(rows, Row{What: "to", Peer: &d.To, Ports: ports, Verdict: d.Verdict, Because: d.Because})
}

func hasPreDNAT(m *policies.Model) bool {
	return slices.ContainsFunc(m.Policies, func(p policies.Policy) bool { return hookOf(m, &p) == policies.PreDNAT })
}

// decided returns the rows of what one direction of a decision is, none where no
// policy could have a say. Of nodes that the end may be on it tells those that do
// not let the connection through.
func decided(d *policies.Decision, direction policies.Direction, on *policies.Peer) []Row {
	side := &d.Sides[direction]
	end := [...]*policies.Peer{policies.Egress: &d.From, policies.Ingress: &d.To}[direction]
	if side.Verdict == policies.Undecided || end.IsOutside() {
		return nil
	}
	stops := side.Hops
	if len(stops) == 0 {
		stops = []policies.Hop{{Side: *side}}
	}
	var rows []Row
	for i := range stops {
		stop := &stops[i]
		row := Row{
			What: direction.String(), Direction: direction.String(), Verdict: stop.Verdict, Tier: stop.Tier,
			Policy: stop.Policy, Rule: stop.Rule, Because: stop.Because, At: stop.At, Peer: end,
		}
		if stop.Node != "" {
			row.What, row.Peer = "forwarded by", &policies.Peer{Kind: "Node", Name: stop.Node}
			if on == nil && stop.Verdict == policies.Allow {
				continue
			}
			if on == nil {
				row.What = "perhaps forwarded by"
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// nodeOf returns the node that a peer's pods run on, nil where that is not known
// or not one.
func nodeOf(j *reach.Judge, p *policies.Peer) *policies.Peer {
	if p.IsOutside() || p.Kind == "Node" {
		return nil
	}
	name := ""
	for i := range j.Model().Pods {
		pod := &j.Model().Pods[i]
		ref := policies.Ref{Kind: p.Kind, Namespace: p.Namespace, Name: p.Name}
		if pod.Workload != ref || p.Pod != "" && pod.Ref.Name != p.Pod {
			continue
		}
		if pod.Node == "" || name != "" && name != pod.Node {
			return nil
		}
		name = pod.Node
	}
	if name == "" {
		return nil
	}
	return &policies.Peer{Kind: "Node", Name: name}
}
