package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator"
)

// phrase is words of ours with names of the input among them, which each form
// sets off and escapes in its own way.
type phrase []fragment

type fragment struct {
	text string
	code bool
}

// code is a name, place or value of the input.
type code string

// say joins strings, codes and phrases.
func say(parts ...any) phrase {
	var p phrase
	for _, part := range parts {
		switch part := part.(type) {
		case string:
			if part != "" {
				p = append(p, fragment{part, false})
			}
		case code:
			p = append(p, fragment{string(part), true})
		case phrase:
			p = append(p, part...)
		default:
			panic(fmt.Sprintf("say: %T is no part of a phrase", part))
		}
	}
	return p
}

func (p phrase) plain() string {
	var text strings.Builder
	for _, f := range p {
		text.WriteString(f.text)
	}
	return text.String()
}

// enumerate joins phrases as "a, b and c".
func enumerate(items []phrase) phrase {
	var p phrase
	for i, item := range items {
		switch {
		case i > 0 && i == len(items)-1:
			p = say(p, " and ")
		case i > 0:
			p = say(p, ", ")
		}
		p = say(p, item)
	}
	return p
}

// grouped prints 1204331 as 1,204,331.
func grouped[N int | uint64](n N) string {
	digits := strconv.FormatUint(uint64(n), 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// counted prints "1 flow" and "2 flows".
func counted[N int | uint64](n N, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return grouped(n) + " " + plural(one)
}

func plural(one string) string {
	if stem, ok := strings.CutSuffix(one, "y"); ok {
		return stem + "ies"
	}
	return one + "s"
}

// verb picks the form that agrees with n.
func verb[N int | uint64](n N, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// byteSize prints a count of bytes to three digits.
func byteSize(n uint64) string {
	if n < 1000 {
		return strconv.FormatUint(n, 10) + " B"
	}
	size := float64(n)
	unit := -1
	for size >= 999.5 && unit < 5 {
		size /= 1000
		unit++
	}
	precision := 0
	if size < 9.95 {
		precision = 1
	}
	return strconv.FormatFloat(size, 'f', precision, 64) + " " + "kMGTPE"[unit:unit+1] + "B"
}

func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04")
}

// percent prints a share so that only all of it reads as 100%, and only none as 0%.
func percent(part, whole uint64) string {
	if whole == 0 || part == whole {
		return "100%"
	}
	if part == 0 {
		return "0%"
	}
	share := float64(part) / float64(whole) * 100
	for precision := 1; ; precision++ {
		text := strconv.FormatFloat(share, 'f', max(precision, 2), 64)
		if value, err := strconv.ParseFloat(text, 64); err == nil && value > 0 && value < 100 || precision > 12 {
			return text + "%"
		}
	}
}

// named is how many peers a sentence names one by one.
const named = 3

// peersPhrase names peers: "shop/web", "20 workloads of a", "anywhere outside".
func peersPhrase(peers []policies.Peer) phrase {
	var inside, outside []policies.Peer
	for _, p := range peers {
		if p.IsOutside() {
			outside = append(outside, p)
		} else {
			inside = append(inside, p)
		}
	}
	var items []phrase
	switch namespaces := namespacesOf(inside); {
	case len(inside) <= named:
		for _, p := range inside {
			items = append(items, say(code(p.String())))
		}
	case len(namespaces) <= named && namespaces[0] != "":
		var names []phrase
		for _, n := range namespaces {
			names = append(names, say(code(n)))
		}
		items = append(items, say(counted(len(inside), noun(inside)), " of namespace", verb(len(names), "", "s"), " ", enumerate(names)))
	default:
		items = append(items, say(counted(len(inside), noun(inside)), " in ", counted(len(namespaces), "namespace")))
	}
	return enumerate(append(items, outsidePhrases(outside)...))
}

// noun names what peers are, where they are all alike.
func noun(peers []policies.Peer) string {
	all := func(is func(policies.Peer) bool) bool {
		return !slices.ContainsFunc(peers, func(p policies.Peer) bool { return !is(p) })
	}
	switch {
	case all(func(p policies.Peer) bool { return p.Pod != "" }):
		return "pod"
	case all(func(p policies.Peer) bool { return p.Kind == "Namespace" }):
		return "namespace"
	case all(func(p policies.Peer) bool { return p.Kind == "Node" }):
		return "node"
	}
	return "workload"
}

func outsidePhrases(outside []policies.Peer) []phrase {
	var v4, v6 bool
	var rest []phrase
	for _, p := range outside {
		switch {
		case !isWhole(p):
			rest = append(rest, say(code(p.String())))
		case p.CIDR.Addr().Is4():
			v4 = true
		default:
			v6 = true
		}
	}
	if len(rest) > named {
		rest = []phrase{say(counted(len(rest), "range"), " outside")}
	}
	switch {
	case v4 && v6:
		rest = append([]phrase{say("anywhere outside")}, rest...)
	case v4:
		rest = append([]phrase{say("anywhere outside (", code("0.0.0.0/0"), ")")}, rest...)
	case v6:
		rest = append([]phrase{say("anywhere outside (", code("::/0"), ")")}, rest...)
	}
	return rest
}

// isWhole reports whether p is all addresses of a family.
func isWhole(p policies.Peer) bool { return p.IsOutside() && p.CIDR.Bits() == 0 && len(p.Except) == 0 }

// longestPorts is how many characters a list of ports may have in a sentence.
const longestPorts = 60

func portsText(p netset.Ports) string {
	text := p.String()
	if len(text) <= longestPorts {
		return text
	}
	n := 0
	for range p.Ranges() {
		n++
	}
	cut := text[:strings.LastIndexAny(text[:longestPorts-20], ", ")]
	return fmt.Sprintf("%s … (%s)", cut, counted(n, "range"))
}

func portsPhrase(p netset.Ports) phrase {
	if text := portsText(p); text != "any" {
		return say(code(text))
	}
	return say("any port")
}

// everyPortPhrase is portsPhrase where a sentence is about each port.
func everyPortPhrase(p netset.Ports) phrase {
	if p.String() == "any" {
		return say("every port")
	}
	return portsPhrase(p)
}

func portPhrase(p netset.Protocol, port uint16) phrase {
	if isRecorded(p, port) {
		return say(code(portText(p, port)))
	}
	return say(portText(p, port))
}

// isRecorded reports whether a record says which port it is about.
func isRecorded(p netset.Protocol, port uint16) bool { return p != 0 && (port != 0 || !p.HasPorts()) }

func portText(p netset.Protocol, port uint16) string {
	switch {
	case p == 0:
		return "port unknown"
	case !p.HasPorts() && port == 0:
		return p.String()
	case !p.HasPorts():
		return netset.PortSpan(p, port, port).String()
	case port == 0:
		return p.String() + " port unknown"
	}
	return p.String() + "/" + strconv.Itoa(int(port))
}

// askedText names the ports that a decision is about.
func askedText(d *policies.Decision) string {
	if d.Ports.Minus(netset.PortSpan(d.Protocol, d.Port, d.Port)).IsEmpty() {
		return portText(d.Protocol, d.Port)
	}
	return portsText(d.Ports)
}

// sentence is one thing that a change does, for people.
type sentence struct {
	Rule  string // invariants, breaks, opens, adds, removes, unknown or drift, as --fail-on names them
	Level string // error, warning or note
	Lead  phrase // "Opens to the internet:"
	Body  phrase
	At    policies.Place
	// AtBase is set when At is a place in the base. AtHead is then one in the
	// head that decides now, if there is one.
	AtBase bool
	AtHead policies.Place
	// Declared is where the invariant stands that the sentence is about, if At is
	// another place.
	Declared policies.Place
	key      string // what the sentence is about, without places
}

// AtPhrase adds the place to a sentence's end.
func (s sentence) AtPhrase() phrase {
	if s.At.File == "" {
		return nil
	}
	if s.AtBase {
		return say(" — ", code(s.At.String()), " in the base")
	}
	return say(" — ", code(s.At.String()))
}

// moveSentence says what happens to the pairs of a move.
func moveSentence(m *move) sentence {
	s := sentence{Rule: string(m.class), Level: "note", At: m.at, AtBase: m.atBase, AtHead: m.atHead}
	from, to, ports := peersPhrase(m.from), peersPhrase(m.to), portsPhrase(m.ports)
	s.key = strings.Join([]string{from.plain(), to.plain(), m.ports.String()}, " ")
	whole := slices.ContainsFunc(slices.Concat(m.from, m.to), isWhole)
	switch {
	case m.danger() == 0 && whole:
		s.Level, s.Lead = "warning", say("Opens to the internet:")
	case m.danger() == 0:
		s.Level, s.Lead = "warning", say("Opens to addresses outside:")
	case m.danger() == 1 && whole:
		s.Level, s.Lead = "warning", say("Opens the way out:")
	case m.danger() == 1:
		s.Level, s.Lead = "warning", say("Opens a way out:")
	case m.class == adds:
		s.Lead = say("Opens:")
	case m.class == removes:
		s.Lead = say("Closes:")
	default:
		s.Level, s.Lead = "warning", say("Uncertain:")
	}
	switch {
	case m.class == unknown:
		s.Body = uncertainBody(m, from, to, ports)
	case m.pairs > named*named && !m.outside():
		s.Body = say(pairsPhrase(m), " from ", from, " to ", to, map[class]string{adds: " gain ", removes: " lose "}[m.class], everyPortPhrase(m.ports))
	case m.class == removes && m.fromOutside():
		s.Body = say(to, verb(len(m.to), " no longer accepts ", " no longer accept "), ports, " from ", from)
	case m.class == removes:
		s.Body = say(from, " can no longer reach ", to, " on ", ports)
	case m.fromOutside():
		s.Body = say(to, verb(len(m.to), " accepts ", " accept "), ports, " from ", from)
	default:
		s.Body = say(from, " can now reach ", to, " on ", ports)
	}
	if m.some && m.class != unknown && m.outside() {
		s.Body = say(s.Body, " (", counted(m.pairs, "pair"), ", not all with the same ports)")
	}
	if m.class == removes && m.because != "" && !m.atBase && !m.some {
		s.Body = say(s.Body, ", ", m.exampleText(), "because ", m.because)
	}
	return s
}

// pairsPhrase counts the pairs of a move, which are all or only some of those
// between its ends.
func pairsPhrase(m *move) string {
	if m.some {
		return grouped(m.pairs) + " pairs"
	}
	return "All " + grouped(m.pairs) + " pairs"
}

func uncertainBody(m *move, from, to, ports phrase) phrase {
	subject := say("whether ", from, verb(len(m.from), " reaches ", " reach "), to, " on ", ports)
	if m.after == policies.Unknown {
		body := say(subject, " can no longer be told; it was ", verdictPast(m.before))
		if m.because != "" {
			body = say(body, " (", m.exampleText(), m.because, ")")
		}
		return body
	}
	return say(subject, " could not be told before; now it is ", verdictPast(m.after))
}

func verdictPast(v policies.Verdict) string {
	return [...]string{"without an answer", "allowed", "denied", "unknown"}[v]
}

// rowSentence says what the change, or the model, does to a recorded flow.
func rowSentence(r *simulator.Row) sentence {
	s := sentence{Rule: "breaks", Level: "error"}
	because, at, policy, atBase := causeOf(&r.Decision, &r.Base)
	s.At, s.AtBase, s.AtHead = at, atBase, placeOf(&r.Decision)
	flow := say(peersPhrase([]policies.Peer{r.From}), " → ", peersPhrase([]policies.Peer{r.To}), " ", portPhrase(r.Protocol, r.Port))
	s.key = flow.plain()
	flows := counted(r.Flows, "recorded flow")
	if seen := moment(r.Last); seen != "" {
		flow = say(flow, ", last seen ", seen)
	}
	reason := phrase{}
	if because != "" {
		reason = say(" because ", because)
	} else if policy != nil {
		reason = say(" by ", code(policy.String()))
	}
	switch r.Outcome {
	case simulator.Breaks:
		s.Lead = say("Breaks ", flows, ":")
		s.Body = say(flow, "; denied after the change", reason)
	case simulator.Opens:
		s.Rule, s.Level = "opens", "warning"
		s.Lead = say("Lets through ", flows, " that ", verb(r.Flows, "was", "were"), " denied:")
		s.Body = say(flow, "; allowed after the change", reason)
	case simulator.Drifts:
		s.Rule, s.Level = "drift", "note"
		s.Lead = say("Drift in ", flows, ":")
		s.Body = say(flow, "; recorded as ", verdictPast(r.Recorded), ", but the base says ", verdictPast(r.Before), reason)
	default:
		s.Rule, s.Level = "unknown", "note"
		s.Lead = say("Cannot tell about ", flows, ":")
		s.Body = flow
		if r.Cause != "" {
			s.Body = say(flow, "; ", r.Cause)
		}
	}
	return s
}

// sentences returns what a pull request does, worst first: opens to outside,
// breaks and opens recorded flows, opens, uncertain, closes, drift.
func sentences(p *Preview) []sentence {
	said := invariantSentences(p)
	moves := movesOf(p.Change)
	inner := slices.IndexFunc(moves, func(m move) bool { return m.danger() > 1 })
	if inner < 0 {
		inner = len(moves)
	}
	for i := range moves[:inner] {
		said = append(said, moveSentence(&moves[i]))
	}
	for _, outcome := range []simulator.Outcome{simulator.Breaks, simulator.Opens} {
		for row := range p.rowsOf(outcome) {
			said = append(said, rowSentence(&row))
		}
	}
	saidByFlows := p.saidByFlows(moves[inner:])
	for i := range moves[inner:] {
		if m := &moves[inner+i]; !saidByFlows(m) {
			said = append(said, moveSentence(m))
		}
	}
	for row := range p.rowsOf(simulator.Drifts) {
		said = append(said, rowSentence(&row))
	}
	return said
}

// changing returns the sentences about what the change does: all but drift.
func changing(p *Preview) []sentence {
	return slices.DeleteFunc(sentences(p), func(s sentence) bool { return s.Rule == "drift" })
}

// foremost returns at most n sentences in their order, and no more than n/2 of
// a kind where that hides another kind.
func foremost(said []sentence, n int) []sentence {
	if len(said) <= n {
		return said
	}
	kinds := map[string]int{}
	var first, rest []int
	for i, s := range said {
		kind := s.Rule + s.Level
		if kinds[kind]++; kinds[kind] <= n/2 {
			first = append(first, i)
		} else {
			rest = append(rest, i)
		}
	}
	taken := slices.Concat(first, rest)[:n]
	slices.Sort(taken)
	var chosen []sentence
	for _, i := range taken {
		chosen = append(chosen, said[i])
	}
	return chosen
}

// headline is the verdict on a pull request, in one line.
func headline(p *Preview) phrase {
	t := tallyOf(p.Change)
	var parts []phrase
	add := func(n int, one, many string) {
		noun := ""
		if len(parts) == 0 {
			noun = verb(n, " connection", " connections")
		}
		if n > 0 {
			parts = append(parts, say(grouped(n), noun, " ", verb(n, one, many)))
		}
	}
	add(p.rows().Count(simulator.Breaks), "in use would break", "in use would break")
	add(t.opensIn, "opens to outside", "open to outside")
	add(t.opensOut, "opens a way out", "open a way out")
	add(p.rows().Count(simulator.Opens), "recorded as denied would open", "recorded as denied would open")
	add(t.opensInside, "opens inside", "open inside")
	add(t.unknown, "is or was uncertain", "are or were uncertain")
	moves := movesOf(p.Change)
	saidByFlows := p.saidByFlows(moves)
	for i := range moves {
		if saidByFlows(&moves[i]) {
			t.removed--
		}
	}
	add(t.removed, "closes", "close")
	said := say("No connection changes.")
	if len(parts) > 0 {
		said = say(enumerate(parts), ".")
	}
	if broken := invariantsHeadline(p); broken != nil {
		return say(broken, " ", said)
	}
	return said
}

// fidelity says how far the model explains what was recorded; empty without
// flows.
func fidelity(p *Preview) phrase {
	if p.Replay == nil {
		return nil
	}
	if p.Replay.Flows == 0 {
		return say("No recorded flow was read, so nothing is known about connections in use.")
	}
	text := say("The model explains ", percent(p.Replay.Explained, p.Replay.Counted()), " of ", counted(p.Replay.Counted(), "recorded flow"))
	if first, last := moment(p.Replay.First), moment(p.Replay.Last); first != "" && last != "" {
		text = say(text, " (", first, " to ", last, " UTC)")
	}
	switch p.Replay.Paired {
	case 0:
	case 1:
		text = say(text, "; 1 of them was reported by the other side too")
	default:
		text = say(text, "; ", grouped(p.Replay.Paired), " of them were reported by the other side too")
	}
	return say(text, ".")
}

// stagedPhrase names a staged policy and, where it would only remove another,
// says so.
func stagedPhrase(s policies.Staged) phrase {
	text := say(s.Ref.Kind, " ", code(s.Ref.String()))
	if s.Deletes {
		text = say(text, " (a deletion)")
	}
	return text
}

// stagedAction is what a staged policy does once it is enforced.
func stagedAction(s policies.Staged) string {
	if s.Deletes {
		return "delete"
	}
	return "set"
}

// madeOf says what was compared.
func madeOf(p *Preview) phrase {
	text := say("Compared ", revisionPhrase(p.Base), " with ", revisionPhrase(p.Head))
	switch n := len(p.Staged); n {
	case 0:
	case 1:
		text = say("Compared ", revisionPhrase(p.Base), " with the same where ", stagedPhrase(p.Staged[0]), " is enforced")
	default:
		text = say("Compared ", revisionPhrase(p.Base), " with the same where ", grouped(n), " staged policies are enforced")
	}
	if p.Replay != nil {
		text = say(text, "; replayed ", counted(p.Replay.Counted(), "recorded flow"), " in ", counted(p.Replay.Questions, "question"))
	}
	return say(text, ".")
}

func revisionPhrase(r Revision) phrase {
	switch {
	case r.Commit == "":
		return say(code(r.Name))
	case strings.HasPrefix(r.Commit, r.Name) || r.Name == "":
		return say(code(short(r.Commit)))
	}
	return say(code(r.Name), " (", code(short(r.Commit)), ")")
}

func short(commit string) string { return commit[:min(len(commit), 10)] }

// mostProblems is how many lines that could not be read are named.
const mostProblems = 10

// readingPhrases says what was left out of a replay. What begins with a space
// belongs to the phrase before it.
func readingPhrases(r FlowReading) []phrase {
	var said []phrase
	if r.Bad > 0 {
		text := say(counted(r.Bad, "line"), " could not be read")
		switch n := min(len(r.Problems), mostProblems); {
		case uint64(n) == r.Bad:
			text = say(text, ":")
		case n > 0:
			text = say(text, ", the first of them:")
		}
		said = append(said, text)
		for _, p := range r.Problems[:min(len(r.Problems), mostProblems)] {
			said = append(said, say("  ", code(p)))
		}
	}
	for _, c := range r.LeftOut {
		said = append(said, say(counted(c.Flows, "record"), " left out: ", c.Text))
	}
	if r.Lost > 0 {
		said = append(said, say(counted(r.Lost, "event"), " lost by the recorder itself"))
	}
	return said
}

// clip cuts text after n characters.
func clip(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:n-1]) + "…"
}

// exposurePhrases says how many workloads face outside, before and after, and
// which of them are new or gone.
func exposurePhrases(p *Preview) []phrase {
	span := func(s Span, means string) phrase {
		text := say(counted(s.After, "workload"), " ", means, ", ")
		if s.Before == s.After && len(s.New)+len(s.Gone) == 0 {
			return say(text, "as before")
		}
		var moved []phrase
		if n := len(s.New); n > 0 {
			moved = append(moved, say(peersPhrase(s.New), verb(n, " is new", " are new")))
		}
		if len(s.Gone) > 0 {
			moved = append(moved, say(peersPhrase(s.Gone), " no longer can"))
		}
		text = say(text, grouped(s.Before), " before")
		if len(moved) > 0 {
			text = say(text, ": ", enumerate(moved))
		}
		return text
	}
	return []phrase{
		span(p.Exposure.Reachable, "can be reached from outside"),
		span(p.Exposure.Reaching, "can reach outside"),
	}
}
