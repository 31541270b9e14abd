package flowrow

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-policy/weir/policies"
)

// What the text columns hold. A character that would be taken for one that
// parts a text is written as in a URL, %2C for a comma.

func escape(text, special string) string {
	if !strings.ContainsAny(text, special+"%") {
		return text
	}
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; c == '%' || strings.IndexByte(special, c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func unescape(text string) (string, error) {
	if strings.IndexByte(text, '%') < 0 {
		return text, nil
	}
	return url.PathUnescape(text)
}

// split returns the parts of a text, unescaped; none of an empty one.
func split(text, separator string) ([]string, error) {
	if text == "" {
		return nil, nil
	}
	parts := strings.Split(text, separator)
	for i := range parts {
		var err error
		if parts[i], err = unescape(parts[i]); err != nil {
			return nil, err
		}
	}
	return parts, nil
}

// FormatLabels returns "app=web,tier=front", sorted.
func FormatLabels(labels map[string]string) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(escape(key, ",=") + "=" + escape(labels[key], ",="))
	}
	return b.String()
}

// ParseLabels reads what FormatLabels returns.
func ParseLabels(text string) (map[string]string, error) {
	labels := map[string]string{}
	if text == "" {
		return labels, nil
	}
	for pair := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, fmt.Errorf("label %q has no value", pair)
		}
		key, errKey := unescape(key)
		value, errValue := unescape(value)
		if errKey != nil || errValue != nil {
			return nil, fmt.Errorf("label %q is not well escaped", pair)
		}
		labels[key] = value
	}
	return labels, nil
}

// The states that labels can be in. Partial labels of which there are none are
// those of stateNone.
const (
	stateNone    = "none"
	statePartial = "partial"
	stateFull    = "full"
)

func labelsState(p *policies.FlowPeer) string {
	switch {
	case p.LabelsPartial && len(p.Labels) > 0:
		return statePartial
	case p.LabelsPartial:
		return statePartial + " " + stateNone
	case p.Labels == nil:
		return stateNone
	}
	return stateFull
}

// FormatRef returns "NetworkSet/shop/partners", "GlobalNetworkSet//partners"
// for what is in no namespace, and "Kind.group/…" where there is a group.
func FormatRef(r policies.Ref) string {
	if r == (policies.Ref{}) {
		return ""
	}
	kind := escape(r.Kind, "./,|")
	if r.Group != "" {
		kind += "." + escape(r.Group, "/,|")
	}
	return kind + "/" + escape(r.Namespace, "/,|") + "/" + escape(r.Name, "/,|")
}

func parseRef(text string) (policies.Ref, error) {
	if text == "" {
		return policies.Ref{}, nil
	}
	parts := strings.Split(text, "/")
	if len(parts) != 3 {
		return policies.Ref{}, fmt.Errorf("%q is not of the form kind/namespace/name", text)
	}
	kind, group, _ := strings.Cut(parts[0], ".")
	var r policies.Ref
	for _, part := range []struct {
		to   *string
		text string
	}{{&r.Kind, kind}, {&r.Group, group}, {&r.Namespace, parts[1]}, {&r.Name, parts[2]}} {
		var err error
		if *part.to, err = unescape(part.text); err != nil {
			return policies.Ref{}, err
		}
	}
	return r, nil
}

// formatOwners returns what src_kind and src_name do not say of a record's
// workloads: all of them, where there are several, or one is of another
// namespace than the pod or of a group.
func formatOwners(p *policies.FlowPeer) string {
	if len(p.Workloads) == 0 || len(p.Workloads) == 1 && p.Workloads[0] == (policies.Ref{
		Kind: p.Workloads[0].Kind, Namespace: p.Namespace, Name: p.Workloads[0].Name,
	}) && p.Workloads[0].Kind+p.Workloads[0].Name != "" {
		return ""
	}
	var all []string
	for _, w := range p.Workloads {
		if w == (policies.Ref{}) {
			all = append(all, "//")
			continue
		}
		all = append(all, FormatRef(w))
	}
	return strings.Join(all, ",")
}

func parseOwners(text, kind, namespace, name string) ([]policies.Ref, error) {
	if text == "" {
		if kind+name == "" {
			return nil, nil
		}
		return []policies.Ref{{Kind: kind, Namespace: namespace, Name: name}}, nil
	}
	var all []policies.Ref
	for part := range strings.SplitSeq(text, ",") {
		r, err := parseRef(part)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// formatNetwork says in words what kind of end it is: pod, or any of outside,
// node, own-node, public, private.
func formatNetwork(p *policies.FlowPeer) string {
	var words []string
	for _, w := range []struct {
		is   bool
		word string
	}{{p.Outside, "outside"}, {p.Host, "node"}, {p.OwnNode, "own-node"}, {p.Network != policies.AnyNetwork, p.Network.String()}} {
		if w.is {
			words = append(words, w.word)
		}
	}
	if len(words) == 0 && p.Namespace != "" {
		return "pod"
	}
	return strings.Join(words, " ")
}

func parseNetwork(text string, p *policies.FlowPeer) error {
	if text == "" || text == "pod" {
		return nil
	}
	for word := range strings.SplitSeq(text, " ") {
		switch word {
		case "outside":
			p.Outside = true
		case "node":
			p.Host = true
		case "own-node":
			p.OwnNode = true
		default:
			var err error
			if p.Network, err = policies.ParseNetwork(word); err != nil {
				return fmt.Errorf("network %q is none of pod, outside, node, own-node, public, private", word)
			}
		}
	}
	return nil
}

func formatNames(names []string) string {
	var b strings.Builder
	for i, name := range names {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(escape(name, ","))
	}
	return b.String()
}

// FormatHits returns "tier|kind/namespace/name|action|rule", the hits parted by
// commas. A rule is its number, "end" of a tier, or empty when it is not known;
// staged ones have a fifth part that says so.
func FormatHits(hits []policies.Hit) string {
	var b strings.Builder
	for i, h := range hits {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(escape(h.Tier, "|,") + "|" + FormatRef(h.Policy) + "|")
		if h.Action != policies.NoAction {
			b.WriteString(h.Action.String())
		}
		b.WriteByte('|')
		switch h.Rule {
		case policies.UnknownRule:
		case policies.EndOfTier:
			b.WriteString("end")
		default:
			b.WriteString(strconv.Itoa(h.Rule))
		}
		if h.Staged {
			b.WriteString("|staged")
		}
	}
	return b.String()
}

// ParseHits reads what FormatHits returns.
func ParseHits(text string) ([]policies.Hit, error) {
	if text == "" {
		return nil, nil
	}
	var hits []policies.Hit
	for part := range strings.SplitSeq(text, ",") {
		fields := strings.Split(part, "|")
		if len(fields) < 4 || len(fields) > 5 || len(fields) == 5 && fields[4] != "staged" {
			return nil, fmt.Errorf("%q is not of the form tier|policy|action|rule", part)
		}
		h := policies.Hit{Staged: len(fields) == 5, Rule: policies.UnknownRule}
		var err error
		if h.Tier, err = unescape(fields[0]); err != nil {
			return nil, err
		}
		if h.Policy, err = parseRef(fields[1]); err != nil {
			return nil, err
		}
		if h.Action, err = policies.ParseAction(fields[2]); err != nil {
			return nil, err
		}
		switch fields[3] {
		case "":
		case "end":
			h.Rule = policies.EndOfTier
		default:
			if h.Rule, err = strconv.Atoi(fields[3]); err != nil {
				return nil, fmt.Errorf("rule %q is no number", fields[3])
			}
		}
		hits = append(hits, h)
	}
	return hits, nil
}
