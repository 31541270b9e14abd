package k8s

import (
	"bytes"
	"errors"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/expression"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// What the API server takes of an Invariant, at most.
const (
	mostPeers    = 32
	mostItems    = 64 // of ports, accounts and exceptions
	mostWaivers  = 32
	mostLinks    = 16
	longestCEL   = 16384
	longestRego  = 16384
	longestOwner = 253
	longestWords = 1024
)

var (
	invariantForms = []string{"never", "always", "only", "isolated", "exists", "cel", "rego"}
	podFields      = []string{"namespaceSelector", "podSelector", "serviceAccounts"}
	soleFields     = []string{"cidr", "outside", "set", "nodes", "anyone"}
)

// ReadInvariants returns the Invariants among documents that come from Parse, in
// their order. All other kinds are left to Read, which in turn leaves these out.
// Expressions are compiled, policies in Rego by rego.Program. The error joins every
// policies.Problem found; there are no invariants then.
func ReadInvariants(docs []Document, rego func(text string, lines []policies.Place) (expression.Program, error)) ([]invariant.Invariant, error) {
	r := newReader(Options{})
	r.rego = rego
	var all []invariant.Invariant
	r.take = func(v value, kind, version string) {
		if r.isOurs(v, kind, version, v1alpha1.KindInvariant) {
			if o, ok := r.object(v, kind, v1alpha1.Group, true); ok {
				all = append(all, readInvariant(o))
			}
		}
	}
	for _, d := range docs {
		if mayHold(d.Node, v1alpha1.KindInvariant) {
			r.document(d)
		}
	}
	if len(r.problems) > 0 {
		return nil, join(r.problems)
	}
	return all, nil
}

// mayHold reports whether a document is worth a look: it is a list, of Weir's
// group, or of the kind.
func mayHold(n *yaml.Node, kind string) bool {
	if n = resolve(n); n.Kind != mapping {
		return false
	}
	for key, node := range pairs(n) {
		text := node.Value
		if key.Value == "kind" && (text == kind || strings.HasSuffix(text, "List")) ||
			key.Value == "apiVersion" && strings.HasPrefix(text, v1alpha1.Group+"/") {
			return true
		}
	}
	return false
}

// isOurs reports whether an object is of one of Weir's own kinds. One that is
// meant to be and is not is reported.
func (r *reader) isOurs(v value, kind, version, ours string) bool {
	group, _, _ := strings.Cut(version, "/")
	switch {
	case kind == ours && version == "":
		v.field("kind").orElse(v).problem("kind %s without an apiVersion; write \"apiVersion: %s\"", kind, v1alpha1.APIVersion)
	case kind == ours && group == v1alpha1.Group && version != v1alpha1.APIVersion:
		v.field("apiVersion").orElse(v).problem("%s is not of %s; write \"apiVersion: %s\"", kind, version, v1alpha1.APIVersion)
	case group == v1alpha1.Group && !slices.Contains(v1alpha1.Kinds, kind) && nearest(kind, v1alpha1.Kinds) == ours:
		v.field("kind").orElse(v).problem("kind %s is not of %s; did you mean %q?", kind, version, ours)
	}
	return kind == ours && version == v1alpha1.APIVersion
}

func readInvariant(o object) invariant.Invariant {
	o.only(objectFields...)
	o.meta.only(metaFields...)
	if namespace := o.meta.field("namespace"); namespace.present() {
		namespace.problem("an Invariant is cluster-wide; leave out the namespace, and name it in a namespaceSelector")
	}
	spec := o.need("spec", "write the sentence there")
	spec.only(slices.Concat([]string{"description", "owner", "links", "severity", "adopt", "waivers"}, invariantForms)...)
	i := invariant.Invariant{
		Ref:         o.ref,
		Description: spec.field("description").words(longestWords),
		Owner:       spec.field("owner").words(longestOwner),
		Adopt:       spec.field("adopt").boolean(),
		Place:       o.place(),
		FormPlace:   o.place(),
	}
	for _, link := range spec.field("links").atMost(mostLinks) {
		i.Links = append(i.Links, link.text())
	}
	i.Severity, _ = invariant.ParseSeverity(spec.field("severity").oneOf(invariant.Severities()...))
	if form := spec.soleForm(); form.present() {
		i.FormPlace = form.place()
		form.readForm(&i)
	}
	for _, item := range spec.field("waivers").atMost(mostWaivers) {
		i.Waivers = append(i.Waivers, item.readWaiver(i.Form))
	}
	return i
}

// soleForm returns the one form that an invariant has.
func (v value) soleForm() value {
	if !v.present() || v.node.Kind != mapping {
		return value{}
	}
	var given []string
	strange := false
	for key := range pairs(v.node) {
		switch near := nearest(key.Value, invariantForms); {
		case slices.Contains(invariantForms, key.Value):
			given = append(given, key.Value)
		case near != "":
			strange = true // and reported with what was meant
		}
	}
	form := value{}
	switch {
	case len(given) > 1:
		v.keyOf(given[1]).problem("an Invariant takes exactly one of %s, not %s; make an Invariant of each", strings.Join(invariantForms, ", "), strings.Join(given, " and "))
	case len(given) == 0 && !strange:
		v.problem("an Invariant needs one of %s", strings.Join(invariantForms, ", "))
	case len(given) == 1:
		if form = v.field(given[0]); !form.present() {
			v.keyOf(given[0]).problem("%s is empty; say what it is about", given[0])
		}
	}
	return form
}

// keyOf returns the key of a field that is there.
func (v value) keyOf(name string) value {
	for key := range pairs(v.node) {
		if key.Value == name {
			return v.at(key, name)
		}
	}
	return v
}

// readForm reads a sentence.
func (v value) readForm(i *invariant.Invariant) {
	switch v.name {
	case "cel":
		i.Form, i.CEL = invariant.CEL, v.cel()
		return
	case "rego":
		i.Form, i.Rego = invariant.Rego, v.rego()
		return
	case "isolated":
		i.Form = invariant.Isolated
		v.only("pods", "directions")
		pods := v.need("pods", "say which pods")
		i.From = pods.peers()
		pods.rejectAddresses()
		i.Directions = policies.Directions[:]
		if directions := v.field("directions"); directions.present() {
			i.Directions = nil
			for _, d := range directions.distinct(len(policies.Directions)) {
				i.Directions = append(i.Directions, d.way())
			}
			slices.Sort(i.Directions)
		}
		return
	case "only":
		i.Form = invariant.Only
		v.only("from", "to", "ports", "direction")
		i.Direction = policies.Ingress
		if d := v.field("direction"); d.present() {
			i.Direction = d.way()
		}
	case "never":
		i.Form = invariant.Never
	case "always":
		i.Form = invariant.Always
	case "exists":
		i.Form = invariant.Exists
	}
	if i.Form != invariant.Only {
		v.only("from", "to", "ports")
	}
	i.From = v.need("from", "say who opens the connections; anyone: true is everyone").peers()
	i.To = v.need("to", "say where the connections lead; anyone: true is everywhere").peers()
	i.Ports = v.field("ports").ports()
}

// oneOf returns one of these words; one that is none of them is reported.
func (v value) oneOf(words ...string) string {
	text := v.text()
	if text == "" || slices.Contains(words, text) {
		if v.present() && text == "" && v.node.Kind == scalar && isText(v.node) {
			v.problem("%s is empty; it takes %s", v.name, strings.Join(words, ", "))
		}
		return text
	}
	hint := ""
	if near := nearest(text, words); near != "" {
		hint = "; did you mean \"" + near + "\"?"
	}
	v.problem("%s %q is none of %s%s", v.name, text, strings.Join(words, ", "), hint)
	return ""
}

// way reads a direction.
func (v value) way() policies.Direction {
	if v.oneOf(policies.Egress.String(), policies.Ingress.String()) == policies.Egress.String() {
		return policies.Egress
	}
	return policies.Ingress
}

// words returns a text that is not too long.
func (v value) words(most int) string {
	text := v.text()
	if len(text) > most {
		v.problem("%s has %d characters, more than the %d that the API server takes; shorten it", v.name, len(text), most)
	}
	return text
}

// peers reads a list of peers, at least one.
func (v value) peers() []policies.Match {
	var all []policies.Match
	for _, item := range v.atLeastOne(mostPeers) {
		if m, ok := item.invariantPeer(); ok {
			all = append(all, m)
		}
	}
	return all
}

// rejectAddresses reports peers that are no pods.
func (v value) rejectAddresses() {
	if !v.present() || v.node.Kind != list {
		return
	}
	for _, node := range v.node.Content {
		item := v.at(resolve(node), "")
		if item.node.Kind != mapping {
			continue
		}
		for key := range pairs(item.node) {
			if slices.Contains(soleFields, key.Value) {
				item.at(key, "").problem("isolated is about pods, and %s describes others; describe pods by their labels", key.Value)
			}
		}
	}
}

// invariantPeer reads one peer, which may take others out by "not".
func (v value) invariantPeer() (policies.Match, bool) {
	v.name = "a peer"
	if !v.wants(mapping, "a mapping") {
		return policies.Match{}, false
	}
	v.only(slices.Concat(podFields, soleFields, []string{"except", "not"})...)
	not := v.field("not")
	m, given := v.plainPeer()
	if !not.present() {
		if !given {
			v.needsPeer()
		}
		return m, given
	}
	not.only(slices.Concat(podFields, soleFields, []string{"except"})...)
	but, ok := not.plainPeer()
	if !ok && not.wants(mapping, "a mapping") {
		not.needsPeer()
	}
	if !given {
		m = invariant.Others([]policies.Match{but})
		m.Place = v.place()
		return m, ok
	}
	return policies.Match{Any: []policies.Match{m}, Except: []policies.Match{but}, Place: v.place()}, ok
}

// needsPeer reports that nobody is described, unless there is something else wrong
// with the peer, which is reported already.
func (v value) needsPeer() {
	known := slices.Concat(podFields, soleFields)
	for key, node := range pairs(v.node) {
		if !slices.Contains(known, key.Value) || !isNull(node) {
			return
		}
	}
	v.problem("%s describes nobody; give it %s", v.name, strings.Join(known, ", "))
}

// plainPeer reads what a peer is but for its exceptions; false where it is
// nothing.
func (v value) plainPeer() (policies.Match, bool) {
	if v.node.Kind != mapping {
		return policies.Match{}, false
	}
	var given []string
	for _, name := range podFields {
		if v.field(name).present() {
			given = append(given, name)
			break
		}
	}
	for _, name := range soleFields {
		if v.field(name).present() {
			given = append(given, name)
		}
	}
	if except := v.field("except"); except.present() && !v.field("cidr").present() {
		except.problem("except names parts of a cidr, so it needs one; to take others out, write \"not\"")
	}
	if len(given) > 1 {
		v.field(given[1]).problem("a peer takes %s or %s, not both; make two peers of it", given[0], given[1])
	}
	if len(given) != 1 {
		return policies.Match{}, false
	}
	m := v.peerBy(given[0])
	m.Place = v.place()
	return m, true
}

func (v value) peerBy(name string) policies.Match {
	field := v.field(name)
	switch name {
	case "cidr":
		return v.outsideBlock()
	case "outside":
		field.mustBeTrue()
		return invariant.Everywhere()
	case "anyone":
		field.mustBeTrue()
		return invariant.Anyone()
	case "set":
		return field.set()
	case "nodes":
		return policies.Match{Nodes: field.selector()}
	}
	m := policies.Match{Namespaces: selector.Everything(), Pods: selector.Everything()}
	if namespaces := v.field("namespaceSelector"); namespaces.present() {
		m.Namespaces = namespaces.selector()
	}
	if pods := v.field("podSelector"); pods.present() {
		m.Pods = pods.selector()
	}
	accounts := v.field("serviceAccounts")
	if !accounts.present() {
		return m
	}
	var names []string
	for _, item := range accounts.distinct(mostItems) {
		name := item.text()
		if name != "" && !v.r.isValid(objectNames, name) {
			item.problem("%q is not the name of a service account; its namespace goes into a namespaceSelector", name)
		}
		names = append(names, name)
	}
	return policies.Match{All: []policies.Match{m, {
		Endpoints: true, Namespaces: selector.Everything(), Pods: selector.Where(policies.CalicoServiceAccount, selector.In, names...),
	}}}
}

func (v value) mustBeTrue() {
	if v.node.Kind == scalar && !v.boolean() && v.node.Tag == "!!bool" {
		v.problem("%s takes true only; leave it out otherwise", v.name)
	}
}

// outsideBlock reads a cidr and its exceptions.
func (v value) outsideBlock() policies.Match {
	whole, ok := v.field("cidr").networkOnly()
	block := netset.Block{CIDR: whole}
	for _, item := range v.field("except").atLeastOne(mostItems) {
		part, partOK := item.networkOnly()
		if ok && partOK && (part.Bits() <= whole.Bits() || !whole.Contains(part.Addr())) {
			item.problem("except %s is not a part of the cidr %s; remove it or widen the cidr", part, whole)
		}
		if partOK {
			block.Except = append(block.Except, part)
		}
	}
	return invariant.Outside(policies.Match{Block: block, InCluster: true})
}

// networkOnly reads a cidr in which no bits are set behind the prefix, for who writes
// 10.0.0.7/8 may mean either.
func (v value) networkOnly() (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(v.text()); err == nil && isText(v.node) && p != p.Masked() && !p.Addr().Is4In6() {
		v.problem("CIDR %s has bits set behind its prefix; write %s, or %s for the one address", p, p.Masked(), netip.PrefixFrom(p.Addr(), p.Addr().BitLen()))
		return netip.Prefix{}, false
	}
	return v.cidr()
}

var setName = regexp.MustCompile(`^([a-z0-9]([-a-z0-9]*[a-z0-9])?/)?[a-z0-9]([-.a-z0-9]*[a-z0-9])?$`)

// set reads the name of a network set.
func (v value) set() policies.Match {
	text := v.text()
	if !setName.MatchString(text) {
		if isText(v.node) {
			v.problem("set %q is neither namespace/name, a NetworkSet, nor the name of a GlobalNetworkSet", text)
		}
		return policies.Match{}
	}
	ref := policies.Ref{Group: policies.CalicoGroup, Kind: "GlobalNetworkSet", Name: text}
	if namespace, name, namespaced := strings.Cut(text, "/"); namespaced {
		ref.Kind, ref.Namespace, ref.Name = "NetworkSet", namespace, name
	}
	return invariant.Outside(policies.Match{Object: ref})
}

// ports reads ports as questions take them.
func (v value) ports() []policies.PortQuery {
	var all []policies.PortQuery
	for _, item := range v.atLeastOne(mostItems) {
		text := item.node.Value
		if item.node.Tag != "!!int" || item.node.Kind != scalar {
			if text = item.text(); text == "" && (item.node.Kind != scalar || !isText(item.node)) {
				continue
			}
		}
		q, err := policies.ParsePort(text)
		if err != nil {
			item.problem("%s", err)
			continue
		}
		all = append(all, q)
	}
	return all
}

func (v value) readWaiver(form invariant.Form) invariant.Waiver {
	v.name = "a waiver"
	v.only("reason", "owner", "until", "from", "to")
	if !v.wants(mapping, "a mapping") {
		return invariant.Waiver{}
	}
	w := invariant.Waiver{
		Reason: v.need("reason", "say why this is forgiven").someWords(longestWords),
		Owner:  v.need("owner", "say who asked for it").someWords(longestOwner),
		From:   v.field("from").peers(),
		To:     v.field("to").peers(),
		Place:  v.place(),
	}
	for _, side := range [...]string{"from", "to"} {
		if field := v.field(side); field.present() && (form == invariant.Exists || form == invariant.Isolated && side == "to") {
			field.problem("%s does not narrow what is forgiven of %q; leave it out", side, form)
		}
	}
	until := v.need("until", "say until which day, as in 2027-01-31")
	if text := until.text(); text != "" {
		day, err := time.Parse(time.DateOnly, text)
		if err != nil {
			until.problem("until %q is not a day such as 2027-01-31", text)
		}
		w.Until = day
	} else if until.present() && isText(until.node) {
		until.problem("until is empty; say until which day, as in 2027-01-31")
	}
	return w
}

func (v value) someWords(most int) string {
	text := v.words(most)
	if text == "" && v.present() && isText(v.node) {
		v.problem("%s is empty; a waiver needs one", v.name)
	}
	return text
}

// cel compiles an expression. Its problems stand where they are in the file, as
// far as the scalar's style lets that be told.
func (v value) cel() *expression.Expression {
	text := v.words(longestCEL)
	if text == "" {
		if isText(v.node) {
			v.problem("cel is empty; write an expression")
		}
		return nil
	}
	x, err := expression.Compile(text)
	if err != nil {
		v.expressionProblems(err)
		return nil
	}
	if !slices.Contains(invariant.ExpressionTypes, x.Type()) {
		v.problem("cel is a %s; it must be a bool, or a list of the Connections or texts that break the invariant", x.Type())
		return nil
	}
	if x.Uses("flows") {
		v.problem("cel uses flows, which no invariant is about: what was recorded changes from day to day")
		return nil
	}
	return x.Placed(v.scalar().place)
}

// rego compiles a policy in Rego.
func (v value) rego() expression.Program {
	text := v.words(longestRego)
	if text == "" {
		if isText(v.node) {
			v.problem("rego is empty; write a module with a rule deny")
		}
		return nil
	}
	if len(text) > longestRego {
		return nil
	}
	lines, in := make([]policies.Place, 1+strings.Count(text, "\n")), v.scalar()
	for k := range lines {
		lines[k] = in.place(k+1, 1)
	}
	p, err := v.r.rego(text, lines)
	if err != nil {
		v.expressionProblems(err)
		return nil
	}
	return p
}

// expressionProblems reports what is wrong in an expression, or in a policy in
// Rego, where it stands in the file.
func (v value) expressionProblems(err error) {
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for _, err := range all {
		var p policies.Problem
		if !errors.As(err, &p) {
			v.problem("%s: %s", v.name, err)
			continue
		}
		v.r.problems = append(v.r.problems, policies.Problem{Place: v.scalar().place(p.Place.Line, p.Place.Column), Message: v.name + ": " + p.Message})
	}
}

// scalarText is how the text of a scalar stands in its file.
type scalarText struct {
	at    policies.Place
	style yaml.Style
	block textBlock
}

func (v value) scalar() scalarText {
	return scalarText{v.place(), v.node.Style, v.r.blocks[v.node]}
}

// place returns where the file has a line and column of the text.
func (s scalarText) place(line, column int) policies.Place {
	at := s.at
	switch {
	case s.style&yaml.LiteralStyle != 0:
		at.Line, at.Column = at.Line+line, s.block.indent+column
	case s.style&yaml.FoldedStyle != 0:
		for k, width := range s.block.widths {
			if column <= width+1 {
				at.Line, at.Column = at.Line+1+k, s.block.indent+column
				break
			}
			column -= width + 1
		}
	case line > 1: // of a quoted text
	case s.style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0:
		at.Column += column
	default:
		at.Column += column - 1
	}
	return at
}

// textBlock is how a block scalar stands in its file.
type textBlock struct {
	indent int   // of its lines
	widths []int // of its lines behind that, in characters
}

// blocksOf returns the block scalars of the roots that data holds which are
// expressions.
func blocksOf(roots []*yaml.Node, data []byte) map[*yaml.Node]textBlock {
	if !bytes.Contains(data, []byte("cel:")) && !bytes.Contains(data, []byte("rego:")) {
		return nil
	}
	all := map[*yaml.Node]textBlock{}
	lines := bytes.Split(data, []byte("\n"))
	var visit func(n *yaml.Node)
	visit = func(n *yaml.Node) {
		for i, c := range n.Content {
			isText := n.Kind == mapping && i%2 == 1 && (n.Content[i-1].Value == "cel" || n.Content[i-1].Value == "rego")
			if isText && c.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
				all[c] = blockOf(lines[min(c.Line, len(lines)):])
			}
			visit(c)
		}
	}
	for _, root := range roots {
		visit(root)
	}
	return all
}

// blockOf reads a block scalar at the beginning of some lines.
func blockOf(lines [][]byte) textBlock {
	var b textBlock
	for _, line := range lines {
		text := bytes.TrimLeft(line, " ")
		indent := len(line) - len(text)
		if b.widths == nil {
			b.indent = indent
		}
		if indent < b.indent {
			break
		}
		b.widths = append(b.widths, utf8.RuneCount(bytes.TrimSuffix(line, []byte("\r")))-b.indent)
	}
	return b
}
