package report

import (
	"bufio"
	"bytes"
	"encoding/json"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/diff"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator"
)

const apiVersion = "weir.dev/v1alpha1"

// object writes a JSON object with a member a line, and arrays with an element
// a line, so that answers stream, and read well in a terminal and in a diff.
type object struct {
	out    *bufio.Writer
	indent string
	more   bool
}

func newObject(out *bufio.Writer, kind Kind) *object { return openObject(out, "").of(kind) }

func (o *object) of(kind Kind) *object {
	o.text("apiVersion", apiVersion)
	o.text("kind", string(kind))
	return o
}

func openObject(out *bufio.Writer, indent string) *object {
	out.WriteByte('{')
	return &object{out: out, indent: indent + "  "}
}

func (o *object) close() {
	o.out.WriteString("\n" + o.indent[2:] + "}")
	if o.indent == "  " {
		o.out.WriteByte('\n')
	}
}

func (o *object) name(name string) {
	if o.more {
		o.out.WriteByte(',')
	}
	o.more = true
	o.out.WriteString("\n" + o.indent + `"` + name + `": `)
}

func (o *object) value(name string, value []byte) {
	o.name(name)
	o.out.Write(value)
}

func (o *object) text(name, value string) { o.value(name, appendString(nil, value)) }

func (o *object) number(name string, value uint64) {
	o.value(name, strconv.AppendUint(nil, value, 10))
}

func (o *object) child(name string) *object {
	o.name(name)
	return openObject(o.out, o.indent)
}

// children writes an array of objects that write gives their members.
func children[T any](o *object, name string, values []T, write func(child *object, i int, value T)) {
	o.name(name)
	o.out.WriteByte('[')
	separator := "\n" + o.indent + "  "
	for i, v := range values {
		o.out.WriteString(separator)
		child := openObject(o.out, o.indent+"  ")
		write(child, i, v)
		child.close()
		separator = ",\n" + o.indent + "  "
	}
	if len(values) > 0 {
		o.out.WriteString("\n" + o.indent)
	}
	o.out.WriteByte(']')
}

// list writes an array of what item appends for each value.
func list[T any](o *object, name string, values iter.Seq[T], item func([]byte, T) []byte) {
	o.name(name)
	o.out.WriteByte('[')
	separator := "\n" + o.indent + "  "
	var line []byte
	empty := true
	for v := range values {
		line = item(append(line[:0], separator...), v)
		o.out.Write(line)
		if empty {
			separator, empty = ","+separator, false
		}
	}
	if !empty {
		o.out.WriteString("\n" + o.indent)
	}
	o.out.WriteByte(']')
}

// The functions below append one JSON value, on one line.

func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			var quoted bytes.Buffer
			encoder := json.NewEncoder(&quoted)
			encoder.SetEscapeHTML(false)
			if err := encoder.Encode(s); err != nil {
				panic(err) // a string always encodes
			}
			return append(b, bytes.TrimSuffix(quoted.Bytes(), []byte("\n"))...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// appendName begins a member of the object that b ends in.
func appendName(b []byte, name string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	b = append(b, '"')
	b = append(b, name...)
	return append(b, '"', ':')
}

func appendMember(b []byte, name, value string) []byte {
	return appendString(appendName(b, name), value)
}

// appendSome appends the member unless its value is empty.
func appendSome(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return appendMember(b, name, value)
}

func appendNumber(b []byte, name string, value uint64) []byte {
	return strconv.AppendUint(appendName(b, name), value, 10)
}

func appendTime(b []byte, name string, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	return appendMember(b, name, t.UTC().Format(time.RFC3339Nano))
}

func appendList[T any](b []byte, values []T, item func([]byte, T) []byte) []byte {
	b = append(b, '[')
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = item(b, v)
	}
	return append(b, ']')
}

func appendPeer(b []byte, p policies.Peer) []byte {
	b = append(b, '{')
	if p.CIDR != nil {
		b = appendMember(b, "cidr", p.CIDR.String())
		if len(p.Except) > 0 {
			b = appendName(b, "except")
			b = appendList(b, prefixTexts(p), appendString)
		}
		return append(b, '}')
	}
	b = appendSome(b, "namespace", p.Namespace)
	b = appendSome(b, "name", p.Name)
	b = appendSome(b, "kind", p.Kind)
	b = appendSome(b, "pod", p.Pod)
	return append(b, '}')
}

func prefixTexts(p policies.Peer) []string {
	var texts []string
	for _, e := range p.Except {
		texts = append(texts, e.String())
	}
	return texts
}

// appendPorts appends an object for each protocol of the set; all of a
// protocol with ports is [[1,65535]].
func appendPorts(b []byte, ports netset.Ports) []byte {
	b = append(b, '[')
	var current netset.Protocol
	open := false
	for r := range ports.Ranges() {
		if r.Protocol.HasPorts() {
			if r.Last == 0 {
				continue
			}
			r.First = max(r.First, 1)
		}
		switch {
		case open && r.Protocol == current:
			b = append(b, ',')
		default:
			if open {
				b = append(b, "]},"...)
			}
			b = appendMember(append(b, '{'), "protocol", r.Protocol.String())
			b = append(b, `,"ports":[`...)
		}
		b = append(b, '[')
		b = strconv.AppendUint(b, uint64(r.First), 10)
		b = append(b, ',')
		b = strconv.AppendUint(b, uint64(r.Last), 10)
		b = append(b, ']')
		current, open = r.Protocol, true
	}
	if open {
		b = append(b, "]}"...)
	}
	return append(b, ']')
}

func appendRef(b []byte, r policies.Ref) []byte {
	b = appendSome(append(b, '{'), "group", r.Group)
	b = appendMember(b, "kind", r.Kind)
	b = appendSome(b, "namespace", r.Namespace)
	return append(appendMember(b, "name", r.Name), '}')
}

func appendWarning(b []byte, w policies.Warning) []byte {
	b = appendMember(append(b, '{'), "message", w.Message)
	return append(appendSome(b, "at", w.Place.String()), '}')
}

func appendCause(b []byte, c simulator.Cause) []byte {
	b = appendMember(append(b, '{'), "text", c.Text)
	return append(appendNumber(b, "flows", c.Flows), '}')
}

func warningList(o *object, warnings []policies.Warning) {
	list(o, "warnings", slices.Values(warnings), appendWarning)
}

func reachabilityJSON(out *bufio.Writer, connections iter.Seq[policies.Connection], warnings []policies.Warning) {
	o := newObject(out, KindReachability)
	peers := rememberPeers(peerJSON)
	allow, unknown := rememberGrants(func(p netset.Ports) string { return string(appendPorts(nil, p)) })
	list(o, "connections", connections, func(b []byte, c policies.Connection) []byte {
		b = append(b, `{"from":`...)
		b = append(b, peers.of(c.From)...)
		b = append(b, `,"to":`...)
		b = append(b, peers.of(c.To)...)
		b = append(b, `,"allow":`...)
		b = append(b, allow.of(c.Grant)...)
		b = append(b, `,"unknown":`...)
		b = append(b, unknown.of(c.Grant)...)
		return append(b, '}')
	})
	warningList(o, warnings)
	o.close()
}

func changeJSON(o *object, c *Change) {
	changeMembers(o, c.Change)
	stagedMembers(o, c.Staged)
	if c.Each != nil {
		children(o, "each", c.Each, func(child *object, i int, alone *diff.Change) {
			child.value("staged", appendRef(nil, c.Staged[i].Ref))
			within := child.child("change").of(KindChange)
			changeMembers(within, alone)
			within.close()
		})
	}
	o.close()
}

func stagedMembers(o *object, staged []policies.Staged) {
	if len(staged) == 0 {
		return
	}
	list(o, "staged", slices.Values(staged), func(b []byte, s policies.Staged) []byte {
		b = appendRef(appendName(append(b, '{'), "staged"), s.Ref)
		b = appendRef(appendName(b, "policy"), s.Policy.Ref)
		b = appendMember(b, "action", stagedAction(s))
		return append(appendSome(b, "at", s.Policy.Place.String()), '}')
	})
}

func changeMembers(o *object, c *diff.Change) {
	differences := byClass(c)
	peers := rememberPeers(peerJSON)
	for _, of := range []class{adds, removes} {
		list(o, of.past(), slices.Values(differences[of]), func(b []byte, d diff.Difference) []byte {
			b = appendEnds(b, peers, d)
			b = appendPorts(append(b, `,"allow":`...), d.Ports)
			return append(b, `,"unknown":[]}`...)
		})
	}
	list(o, unknown.past(), slices.Values(differences[unknown]), func(b []byte, d diff.Difference) []byte {
		b = appendPorts(append(appendEnds(b, peers, d), `,"ports":`...), d.Ports)
		b = appendMember(b, "before", d.Before.String())
		return append(appendMember(b, "after", d.After.String()), '}')
	})
	list(o, "groups", slices.Values(c.Groups), appendGroup)
	o.name("workloads")
	b := appendList(appendName([]byte{'{'}, "added"), c.NewWorkloads, appendRef)
	b = appendList(appendName(b, "removed"), c.GoneWorkloads, appendRef)
	o.out.Write(append(b, '}'))
	list(o, "policies", slices.Values(c.Policies), func(b []byte, p diff.PolicyChange) []byte {
		b = appendRef(appendName(append(b, '{'), "policy"), p.Ref)
		b = appendMember(b, "what", p.What)
		return append(appendSome(b, "at", p.At.String()), '}')
	})
	warningList(o, c.Warnings)
}

func peerJSON(p policies.Peer) string { return string(appendPeer(nil, p)) }

// appendEnds begins an object with the ends of a difference.
func appendEnds(b []byte, peers *memory[*policies.Peer], d diff.Difference) []byte {
	b = append(append(b, `{"from":`...), peers.of(d.From)...)
	return append(append(b, `,"to":`...), peers.of(d.To)...)
}

func appendGroup(b []byte, g diff.Group) []byte {
	b = appendList(append(b, `{"from":`...), g.From, appendPeer)
	b = appendList(append(b, `,"to":`...), g.To, appendPeer)
	b = appendPorts(append(b, `,"ports":`...), g.Ports)
	b = appendMember(b, "before", g.Before.String())
	b = appendMember(b, "after", g.After.String())
	b = appendNumber(b, "pairs", uint64(g.Pairs))
	b = append(appendDecision(append(b, `,"is":{`...), &g.Is), '}')
	return append(appendDecision(append(b, `,"was":{`...), &g.Was), "}}"...)
}

// AppendDecision appends a decision as one line of JSON, without its end of
// line.
func AppendDecision(b []byte, d *policies.Decision) []byte {
	b = append(b, `{"apiVersion":"`+apiVersion+`","kind":"`+string(KindDecision)+`"`...)
	return append(appendDecision(b, d), '}')
}

// AppendError appends what answers a question that could not be asked, as one
// line of JSON without its end of line.
func AppendError(b []byte, p policies.Problem) []byte {
	b = append(b, `{"apiVersion":"`+apiVersion+`","kind":"Error"`...)
	return append(appendMember(appendMember(b, "message", p.Message), "at", p.Place.String()), '}')
}

// appendDecision appends the members of a decision to the object b ends in.
func appendDecision(b []byte, d *policies.Decision) []byte {
	b = appendPeer(appendName(b, "from"), d.From)
	b = appendPeer(appendName(b, "to"), d.To)
	b = appendMember(b, "protocol", d.Protocol.String())
	b = appendNumber(b, "port", uint64(d.Port))
	if !d.Ports.IsEmpty() {
		b = appendPorts(appendName(b, "ports"), d.Ports)
	}
	b = appendMember(b, "verdict", d.Verdict.String())
	b = appendSome(b, "because", d.Because)
	if len(d.Families) > 0 {
		b = append(appendName(b, "families"), '{')
		for _, family := range slices.Sorted(maps.Keys(d.Families)) {
			b = appendMember(b, family, d.Families[family].String())
		}
		b = append(b, '}')
	}
	for _, direction := range policies.Directions {
		if side := &d.Sides[direction]; side.Verdict != policies.Undecided {
			b = appendSide(appendName(b, direction.String()), side)
		}
	}
	if len(d.Parts) > 0 {
		b = appendList(appendName(b, "parts"), d.Parts, func(b []byte, part policies.Decision) []byte {
			return append(appendDecision(append(b, '{'), &part), '}')
		})
	}
	return b
}

func appendSide(b []byte, s *policies.Side) []byte {
	b = appendMember(append(b, '{'), "verdict", s.Verdict.String())
	b = appendSome(b, "tier", s.Tier)
	if s.Policy != nil {
		b = appendRef(appendName(b, "policy"), *s.Policy)
	}
	b = appendRule(b, s.Rule)
	b = appendSome(b, "because", s.Because)
	b = appendSome(b, "at", s.At.String())
	if len(s.Trace) > 0 {
		b = appendList(appendName(b, "trace"), s.Trace, appendStep)
	}
	return append(b, '}')
}

func appendStep(b []byte, s policies.Step) []byte {
	b = appendSome(append(b, '{'), "tier", s.Tier)
	b = appendRef(appendName(b, "policy"), s.Policy)
	b = appendRule(b, s.Rule)
	if s.Action != policies.NoAction {
		b = appendMember(b, "action", s.Action.String())
	}
	b = appendMember(b, "matches", s.Matches.String())
	b = appendSome(b, "because", s.Because)
	return append(appendSome(b, "at", s.At.String()), '}')
}

func appendRule(b []byte, rule *int) []byte {
	if rule == nil {
		return b
	}
	return appendNumber(b, "rule", uint64(*rule))
}

func decisionJSON(out *bufio.Writer, d *policies.Decision) error {
	var indented bytes.Buffer
	if err := json.Indent(&indented, AppendDecision(nil, d), "", "  "); err != nil {
		return err
	}
	indented.WriteByte('\n')
	_, err := indented.WriteTo(out)
	return err
}

func replayJSON(o *object, r *simulator.Result, reading FlowReading) {
	o.number("flows", r.Flows)
	o.number("paired", r.Paired)
	o.number("bytes", r.Bytes)
	o.value("seen", appendSeen([]byte{}, r.First, r.Last))
	outcomes := []byte{'{'}
	for _, outcome := range simulator.Outcomes {
		outcomes = appendNumber(outcomes, string(outcome), r.Outcomes[outcome])
	}
	outcomes = append(appendNumber(outcomes, "unresolved", r.Unresolved), '}')
	o.value("outcomes", outcomes)
	o.number("explained", r.Explained)
	o.value("fidelity", strconv.AppendFloat(nil, r.Fidelity(), 'f', -1, 64))
	o.number("questions", uint64(r.Questions))
	list(o, "rows", r.Rows.All(), appendRow)
	list(o, "causes", slices.Values(r.Causes), appendCause)
	o.value("reading", appendReading(nil, reading))
	o.close()
}

func appendReading(b []byte, r FlowReading) []byte {
	b = appendNumber(append(b, '{'), "records", r.Records)
	b = appendNumber(b, "bad", r.Bad)
	b = appendList(appendName(b, "problems"), r.Problems, appendString)
	b = appendList(appendName(b, "leftOut"), r.LeftOut, appendCause)
	return append(appendNumber(b, "lost", r.Lost), '}')
}

func importJSON(o *object, reading FlowReading, stored *Stored, resolved *Resolved) {
	o.value("reading", appendReading(nil, reading))
	if stored != nil {
		o.value("stored", append(appendNumber(appendNumber([]byte{'{'}, "added", stored.Added), "known", stored.Known), '}'))
	}
	if resolved != nil {
		b := appendNumber([]byte{'{'}, "named", resolved.Named)
		o.value("resolved", append(appendList(appendName(b, "left"), resolved.Left, appendCause), '}'))
	}
	o.close()
}

func appendSeen(b []byte, first, last time.Time) []byte {
	b = append(b, '{')
	b = appendTime(b, "first", first)
	return append(appendTime(b, "last", last), '}')
}

func appendRow(b []byte, r simulator.Row) []byte {
	b = appendMember(append(b, '{'), "outcome", string(r.Outcome))
	b = appendPeer(appendName(b, "from"), r.From)
	b = appendPeer(appendName(b, "to"), r.To)
	b = appendMember(b, "protocol", r.Protocol.String())
	b = appendNumber(b, "port", uint64(r.Port))
	b = appendMember(b, "recorded", r.Recorded.String())
	b = appendMember(b, "before", r.Before.String())
	b = appendMember(b, "after", r.After.String())
	b = appendNumber(b, "flows", r.Flows)
	b = appendNumber(b, "bytes", r.Bytes)
	b = appendSeen(appendName(b, "seen"), r.First, r.Last)
	b = appendExample(appendName(b, "example"), &r.Example)
	if r.Decision.Verdict != policies.Undecided {
		b = append(appendDecision(append(appendName(b, "decision"), '{'), &r.Decision), '}')
	}
	return append(appendSome(b, "cause", r.Cause), '}')
}

func appendExample(b []byte, f *policies.Flow) []byte {
	b = appendSome(append(b, '{'), "at", f.Record.String())
	b = appendTime(b, "time", f.Last)
	for _, end := range []struct {
		name string
		peer *policies.FlowPeer
	}{{"from", &f.From}, {"to", &f.To}} {
		b = append(appendName(b, end.name), '{')
		b = appendSome(b, "namespace", end.peer.Namespace)
		b = appendSome(b, "pod", end.peer.Pod)
		if end.peer.Address.IsValid() {
			b = appendMember(b, "address", end.peer.Address.String())
		}
		if len(end.peer.Names) > 0 {
			b = appendList(appendName(b, "names"), end.peer.Names, appendString)
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

func previewJSON(o *object, p *Preview) {
	previewMembers(o, p)
	stagedMembers(o, p.Staged)
	if p.Each != nil {
		children(o, "each", p.Each, func(child *object, i int, alone *Preview) {
			child.value("staged", appendRef(nil, p.Staged[i].Ref))
			within := child.child("preview").of(KindPreview)
			previewMembers(within, alone)
			within.close()
		})
	}
	o.close()
}

func previewMembers(o *object, p *Preview) {
	for _, end := range []struct {
		name     string
		revision Revision
	}{{"base", p.Base}, {"head", p.Head}} {
		b := appendMember([]byte{'{'}, "name", end.revision.Name)
		o.value(end.name, append(appendSome(b, "commit", end.revision.Commit), '}'))
	}
	o.text("headline", headline(p).plain())
	o.value("failed", appendList(nil, p.Failed, appendString))
	list(o, "sentences", slices.Values(sentences(p)), func(b []byte, s sentence) []byte {
		b = appendMember(append(b, '{'), "rule", s.Rule)
		b = appendMember(b, "level", s.Level)
		b = appendMember(b, "text", strings.TrimSpace(s.Lead.plain()+" "+s.Body.plain()))
		return append(appendSome(b, "at", s.At.String()), '}')
	})
	list(o, "invariants", slices.Values(p.Invariants), func(b []byte, c invariant.Change) []byte { return appendInvariantChange(b, &c) })
	b := appendSpan(appendName([]byte{'{'}, "reachable"), p.Exposure.Reachable)
	b = appendSpan(appendName(b, "reaching"), p.Exposure.Reaching)
	o.value("exposure", append(b, '}'))
	change := o.child("change").of(KindChange)
	changeMembers(change, p.Change)
	change.close()
	if p.Replay != nil {
		replayJSON(o.child("replay").of(KindReplay), p.Replay, p.Reading)
	}
	warningList(o, p.warnings())
}

func appendSpan(b []byte, s Span) []byte {
	b = appendNumber(append(b, '{'), "before", uint64(s.Before))
	b = appendNumber(b, "after", uint64(s.After))
	b = appendList(appendName(b, "new"), s.New, appendPeer)
	return append(appendList(appendName(b, "gone"), s.Gone, appendPeer), '}')
}
