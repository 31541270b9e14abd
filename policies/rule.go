package policies

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies/netset"
)

// String says in words what the rule matches: "pods app=web in shop on TCP/5432".
func (r *Rule) String() string {
	text := r.Who() + " on " + r.Where()
	if r.Own != nil {
		text += fmt.Sprintf(", as far as its own side is %s", r.Own)
	}
	if r.Unclear != "" {
		text += "; " + r.Unclear
	}
	return text
}

// Who names the peers of the rule, at most three of them, "nobody" for none.
func (r *Rule) Who() string {
	const most = 3
	var texts []string
	for i := range r.Peers {
		if text := r.Peers[i].String(); !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	if n := len(texts) - most; n > 0 {
		texts = append(texts[:most], fmt.Sprintf("%d more", n))
	}
	if len(texts) == 0 {
		return "nobody"
	}
	return strings.Join(texts, "; ")
}

// Where names the ports of the rule, "no port" for none.
func (r *Rule) Where() string {
	text := "no port"
	if parts := append(portTexts(r.Ports), nameTexts(r.Named)...); len(parts) > 0 {
		text = strings.Join(parts, " ")
	}
	if not := append(portTexts(r.NotPorts), nameTexts(r.NotNamed)...); len(not) > 0 {
		text += " but " + strings.Join(not, " ")
	}
	return text
}

func portTexts(p netset.Ports) []string {
	switch text := p.String(); {
	case p.IsEmpty():
		return nil
	case text == "any":
		return []string{"any port"}
	default:
		return []string{text}
	}
}

// nameTexts prints ports by name, those without a protocol as such.
func nameTexts(ports []NamedPort) []string {
	var texts []string
	for _, n := range ports {
		named := func(p netset.Protocol) bool { return slices.Contains(ports, NamedPort{p, n.Name}) }
		switch {
		case !named(netset.TCP) || !named(netset.UDP) || !named(netset.SCTP):
			texts = append(texts, n.Protocol.String()+"/"+n.Name)
		case n.Protocol == netset.TCP:
			texts = append(texts, "port "+n.Name)
		}
	}
	return texts
}
