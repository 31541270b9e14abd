package query

import (
	"fmt"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
)

// PathOf says what a connection meets on its way, one hop a row: its source, the
// Service that leads it on, for policies see where it leads, the decision at its
// egress, the node it leaves, the node it comes to, the decision at its ingress, and its destination. Where the
// question means several connections that are decided differently, each has its
// way. It fails where Ask does.
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
	for i := range parts {
		answer.Rows = append(answer.Rows, hops(j, q, &parts[i])...)
	}
	return answer, d.Verdict, nil
}

func hops(j *reach.Judge, q reach.Question, d *policies.Decision) []Row {
	ports := d.Asked()
	rows := []Row{{What: "from", Peer: &d.From, Ports: ports}}
	if s := q.To.Service; s != nil {
		rows = append(rows, Row{
			What: "service", Peer: &policies.Peer{Kind: "Service", Namespace: s.Ref.Namespace, Name: s.Ref.Name}, Ports: ports, Pods: len(s.Pods),
			Because: fmt.Sprintf("it leads to %s on %s", d.To, ports), At: s.Place,
		})
	}
	rows = append(rows, decided(d, policies.Egress)...)
	leaves, comes := nodeOf(j, &d.From), nodeOf(j, &d.To)
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
	rows = append(rows, decided(d, policies.Ingress)...)
	return append(rows, Row{What: "to", Peer: &d.To, Ports: ports, Verdict: d.Verdict, Because: d.Because})
}

// decided returns the row of what one direction of a decision is, none where no
// policy could have a say.
func decided(d *policies.Decision, direction policies.Direction) []Row {
	side := &d.Sides[direction]
	if side.Verdict == policies.Undecided {
		return nil
	}
	row := Row{
		What: direction.String(), Direction: direction.String(), Verdict: side.Verdict, Tier: side.Tier,
		Policy: side.Policy, Rule: side.Rule, Because: side.Because, At: side.At,
	}
	row.Peer = [...]*policies.Peer{policies.Egress: &d.From, policies.Ingress: &d.To}[direction]
	return []Row{row}
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
