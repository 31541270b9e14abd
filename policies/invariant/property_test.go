package invariant_test

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/rego"
)

var today = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// thing is whatever can be at one end of a connection, as the test made it.
type thing struct {
	namespace, name, app, account string
	kind                          string // Pod, Deployment, Node, or "" for outside
	replicas                      int
	host                          bool // on its node's network
	http                          uint16
	address                       netip.Addr
}

// peer is a description of things, with how an invariant writes it.
type peer struct {
	text string
	is   func(t *thing) bool
}

func (t *thing) isPod() bool { return (t.kind == "Pod" || t.kind == "Deployment") && !t.host }

var (
	everyPod = peer{"namespaceSelector: {}", (*thing).isPod}
	plain    = []peer{
		everyPod,
		{"podSelector: {matchLabels: {app: web}}", func(t *thing) bool { return t.isPod() && t.app == "web" }},
		{"namespaceSelector: {matchLabels: {team: a}}", func(t *thing) bool { return t.isPod() && t.namespace == "a" }},
		{"namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}", func(t *thing) bool { return t.isPod() && t.namespace == "b" && t.app != "web" }},
		{"serviceAccounts: [robot]", func(t *thing) bool { return t.isPod() && t.account == "robot" }},
		{"podSelector: {matchLabels: {app: gone}}", func(*thing) bool { return false }},
		{"outside: true", func(t *thing) bool { return t.kind == "" }},
		{"cidr: 10.0.0.0/8, except: [10.9.0.0/16]", func(t *thing) bool {
			return t.kind == "" && netip.MustParsePrefix("10.0.0.0/8").Contains(t.address) && !netip.MustParsePrefix("10.9.0.0/16").Contains(t.address)
		}},
		{"nodes: {}", func(t *thing) bool { return t.kind == "Node" || t.host }},
		{"anyone: true", func(t *thing) bool { return t.isPod() || t.kind == "" }},
	}
)

func drawPeer(t *rapid.T) peer {
	p := rapid.SampledFrom(plain).Draw(t, "peer")
	switch rapid.IntRange(0, 5).Draw(t, "not") {
	case 0:
		not := rapid.SampledFrom(plain).Draw(t, "but")
		return peer{p.text + ", not: {" + not.text + "}", func(t *thing) bool { return p.is(t) && !not.is(t) }}
	case 1:
		return peer{"not: {" + p.text + "}", func(t *thing) bool { return (t.isPod() || t.kind == "") && !p.is(t) }}
	}
	return p
}

// drawPeers returns one or two peers and what describes any of them.
func drawPeers(t *rapid.T, name string) peer {
	a := drawPeer(t)
	if rapid.IntRange(0, 2).Draw(t, name+"s") > 0 {
		return peer{"[{" + a.text + "}]", a.is}
	}
	b := drawPeer(t)
	return peer{"[{" + a.text + "}, {" + b.text + "}]", func(t *thing) bool { return a.is(t) || b.is(t) }}
}

// scene is a small random world with its manifests.
type scene struct {
	things []thing
	text   string
}

func drawScene(t *rapid.T) *scene {
	s := &scene{}
	var b strings.Builder
	add := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n---\n", args...) }
	for _, n := range []string{"a", "b"} {
		add("{apiVersion: v1, kind: Namespace, metadata: {name: %s, labels: {team: %s}}}", n, n)
	}
	for _, n := range []string{"n1", "n2"} {
		address := map[string]string{"n1": "192.168.0.1", "n2": "192.168.0.2"}[n]
		add("{apiVersion: v1, kind: Node, metadata: {name: %s}, status: {addresses: [{type: InternalIP, address: %s}]}}", n, address)
		s.things = append(s.things, thing{name: n, kind: "Node", replicas: 1})
	}
	for i := range rapid.IntRange(1, 5).Draw(t, "pods") {
		x := thing{name: fmt.Sprintf("p%d", i), kind: "Pod", replicas: 1}
		x.namespace = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "namespace")
		x.app = rapid.SampledFrom([]string{"web", "db"}).Draw(t, "app")
		x.account = rapid.SampledFrom([]string{"default", "robot"}).Draw(t, "account")
		x.http = rapid.SampledFrom([]uint16{0, 80, 443}).Draw(t, "http")
		container := "containers: [{name: c}]"
		if x.http > 0 {
			container = fmt.Sprintf("containers: [{name: c, ports: [{name: http, containerPort: %d}]}]", x.http)
		}
		if rapid.IntRange(0, 3).Draw(t, "deployment") == 0 {
			x.kind, x.replicas = "Deployment", rapid.IntRange(1, 3).Draw(t, "replicas")
			add("{apiVersion: apps/v1, kind: Deployment, metadata: {name: %s, namespace: %s}, spec: {replicas: %d, selector: {matchLabels: {id: %[1]s}}, template: {metadata: {labels: {id: %[1]s, app: %[4]s}}, spec: {serviceAccountName: %s, %s}}}}",
				x.name, x.namespace, x.replicas, x.app, x.account, container)
		} else {
			x.host = rapid.IntRange(0, 5).Draw(t, "host") == 0
			node := rapid.SampledFrom([]string{"n1", "n2"}).Draw(t, "node")
			ip := fmt.Sprintf("10.1.0.%d", i+1)
			if x.host {
				ip, x.http = map[string]string{"n1": "192.168.0.1", "n2": "192.168.0.2"}[node], 0
				container = "containers: [{name: c}]"
			}
			add("{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: %s, labels: {app: %s}}, spec: {hostNetwork: %t, nodeName: %s, serviceAccountName: %s, %s}, status: {podIPs: [{ip: %s}]}}",
				x.name, x.namespace, x.app, x.host, node, x.account, container, ip)
		}
		s.things = append(s.things, x)
	}
	for _, a := range []string{"1.2.3.4", "10.2.3.4", "10.9.0.1", "203.0.113.7"} {
		s.things = append(s.things, thing{address: netip.MustParseAddr(a), replicas: 1})
	}
	rule := func(field string) string {
		who := rapid.SampledFrom([]string{"", "namespaceSelector: {matchLabels: {team: a}}", "podSelector: {matchLabels: {app: db}}", "ipBlock: {cidr: 10.0.0.0/8, except: [10.9.0.0/16]}", "ipBlock: {cidr: 203.0.113.0/24}"}).Draw(t, "who")
		port := rapid.SampledFrom([]string{"", "port: 80", "port: http", "port: 443, endPort: 8080", "port: 53, protocol: UDP"}).Draw(t, "port")
		var parts []string
		if who != "" {
			parts = append(parts, field+": [{"+who+"}]")
		}
		if port != "" {
			parts = append(parts, "ports: [{"+port+"}]")
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "policies") {
		spec := "podSelector: " + rapid.SampledFrom([]string{"{}", "{matchLabels: {app: web}}"}).Draw(t, "subject")
		spec += ", policyTypes: " + rapid.SampledFrom([]string{"[Ingress]", "[Egress]", "[Ingress, Egress]"}).Draw(t, "types")
		if rapid.Bool().Draw(t, "ingress") {
			spec += ", ingress: [" + rule("from") + "]"
		}
		if rapid.Bool().Draw(t, "egress") {
			spec += ", egress: [" + rule("to") + "]"
		}
		add("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: n%d, namespace: %s}, spec: {%s}}", i, rapid.SampledFrom([]string{"a", "b"}).Draw(t, "in"), spec)
	}
	s.text = b.String()
	return s
}

// point is traffic to ask about: at and beside all ports that the worlds mention.
type point struct {
	protocol netset.Protocol
	port     uint16
}

var points = func() []point {
	var all []point
	for _, port := range []uint16{1, 52, 53, 54, 79, 80, 81, 442, 443, 444, 8080, 8081, 65535} {
		for _, p := range netset.Transports {
			all = append(all, point{p, port})
		}
	}
	return all
}()

// sentence is an invariant as the test made it.
type sentence struct {
	form     string
	from, to peer
	ports    []string
	egress   bool
	waivers  [][2]peer
	expired  []bool
	text     string
}

func drawSentence(t *rapid.T) *sentence {
	s := &sentence{form: rapid.SampledFrom([]string{"never", "always", "only", "exists"}).Draw(t, "form")}
	s.from, s.to = drawPeers(t, "from"), drawPeers(t, "to")
	s.ports = rapid.SampledFrom([][]string{nil, {"80"}, {"http"}, {"UDP/53", "http"}, {"TCP/80-443"}}).Draw(t, "ports")
	s.text = "apiVersion: weir.dev/v1alpha1\nkind: Invariant\nmetadata: {name: i}\nspec:\n  " + s.form + ":\n    from: " + s.from.text + "\n    to: " + s.to.text + "\n"
	if s.ports != nil {
		s.text += "    ports: [" + strings.Join(s.ports, ", ") + "]\n"
	}
	if s.form == "only" && rapid.Bool().Draw(t, "egress") {
		s.egress = true
		s.text += "    direction: egress\n"
	}
	if s.form == "exists" {
		return s
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "waivers") {
		if i == 0 {
			s.text += "  waivers:\n"
		}
		w := [2]peer{drawPeers(t, "waived from"), drawPeers(t, "waived to")}
		expired := rapid.IntRange(0, 3).Draw(t, "expired") == 0
		s.waivers, s.expired = append(s.waivers, w), append(s.expired, expired)
		s.text += fmt.Sprintf("  - {reason: r, owner: o, until: %s, from: %s, to: %s}\n", map[bool]string{true: "2026-05-31", false: "2026-06-01"}[expired], w[0].text, w[1].text)
	}
	return s
}

// means reports whether the sentence is about traffic to a thing.
func (s *sentence) means(to *thing, p point) bool {
	for _, text := range s.ports {
		q, err := policies.ParsePort(text)
		switch {
		case err != nil:
			panic(err)
		case q.Name != "" && to.http == p.port && p.port > 0 && p.protocol == netset.TCP, q.Name == "" && q.Ports.Contains(p.protocol, p.port):
			return true
		}
	}
	return s.ports == nil
}

// found is what the naive evaluation comes to.
type found struct {
	broken, waived, unknown int  // pairs
	ranges                  bool // addresses outside play a part, which are not pairs
}

// naive asks about every pair on every port.
func (s *sentence) naive(j *reach.Judge, things []thing) found {
	var f found
	isFrom, isTo := s.from.is, s.to.is
	others := func(is func(*thing) bool) func(*thing) bool {
		return func(t *thing) bool { return (t.isPod() || t.kind == "") && !is(t) }
	}
	switch {
	case s.form == "only" && s.egress:
		isTo = others(isTo)
	case s.form == "only":
		isFrom = others(isFrom)
	}
	breaking := policies.Allow
	if s.form == "always" {
		breaking = policies.Deny
	}
	for a := range things {
		for b := range things {
			from, to := &things[a], &things[b]
			if !isFrom(from) || !isTo(to) || from.kind == "" && to.kind == "" {
				continue
			}
			f.ranges = f.ranges || from.kind == "" || to.kind == ""
			pairs := from.replicas * to.replicas
			if a == b {
				pairs -= from.replicas
			}
			if pairs == 0 {
				continue
			}
			var breaks, may bool
			for _, p := range points {
				if !s.means(to, p) {
					continue
				}
				v := j.Verdict(endOf(j, from), endOf(j, to), p.protocol, p.port)
				breaks = breaks || v == breaking
				may = may || v == policies.Unknown
			}
			waived := false
			for w := range s.waivers {
				waived = waived || !s.expired[w] && s.waivers[w][0].is(from) && s.waivers[w][1].is(to)
			}
			switch {
			case breaks && waived:
				f.waived += pairs
			case breaks:
				f.broken += pairs
			}
			if may && !waived {
				f.unknown += pairs
			}
		}
	}
	return f
}

func (f found) state(form string) invariant.State {
	if form == "exists" {
		switch {
		case f.broken > 0:
			return invariant.Holds
		case f.unknown > 0:
			return invariant.Unknown
		}
		return invariant.Broken
	}
	switch {
	case f.broken > 0:
		return invariant.Broken
	case f.unknown > 0:
		return invariant.Unknown
	case f.waived > 0:
		return invariant.Waived
	}
	return invariant.Holds
}

func endOf(j *reach.Judge, t *thing) reach.End {
	m := j.Model()
	switch t.kind {
	case "":
		return j.Outside(t.address)
	case "Node":
		return j.Node(slices.IndexFunc(m.Nodes, func(n policies.Node) bool { return n.Name == t.name }))
	}
	return j.Pod(slices.IndexFunc(m.Pods, func(p policies.Pod) bool { return p.Workload.Name == t.name }))
}

func TestCheckIsWhatEveryPairSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		world, s := drawScene(t), drawSentence(t)
		docs, err := k8s.Parse("w.yaml", []byte(world.text+s.text))
		if err != nil {
			t.Fatal(err)
		}
		m, err := k8s.Read(docs, k8s.Options{})
		if err != nil {
			t.Fatal(err)
		}
		all, err := k8s.ReadInvariants(docs, rego.Program)
		if err != nil {
			t.Fatalf("%v\n%s", err, s.text)
		}
		j := reach.New(m, invariant.Apart(reach.Options{}, all...))
		set, err := invariant.Prepare(j, all)
		if err != nil {
			t.Fatal(err)
		}
		results, err := set.Check(context.Background(), today)
		if err != nil {
			t.Fatal(err)
		}
		got, want := results[0], s.naive(j, world.things)
		if got.State != want.state(s.form) {
			t.Fatalf("%s, want %s (%+v)\n%s\n%s", got.State, want.state(s.form), want, s.text, world.text)
		}
		if s.form != "exists" && !want.ranges && (got.Broken != want.broken || got.Waived != want.waived) {
			t.Fatalf("%d broken and %d waived, want %+v\n%s\n%s", got.Broken, got.Waived, want, s.text, world.text)
		}
		for _, x := range got.Counterexamples {
			if !x.Ports.IsEmpty() && (x.Decision.Verdict != breaking(all[0].Form) || !x.Ports.Contains(x.Protocol, x.Port)) {
				t.Fatalf("counterexample %+v\n%s\n%s", x, s.text, world.text)
			}
		}
	})
}

// breaking is what is decided about a counterexample.
func breaking(f invariant.Form) policies.Verdict {
	if f == invariant.Always || f == invariant.Exists {
		return policies.Deny
	}
	return policies.Allow
}

// What is found of an edited model, of the invariants that the edit touches, is what
// is found of it from the beginning; and of the others what was found before.
func TestRecheckIsCheck(t *testing.T) {
	again := 0
	rapid.Check(t, func(t *rapid.T) {
		world, other := drawScene(t), drawScene(t)
		var text strings.Builder
		for i := range 4 {
			text.WriteString(strings.ReplaceAll(drawSentence(t).text, "{name: i}", fmt.Sprintf("{name: i%d}", i)) + "---\n")
		}
		text.WriteString("apiVersion: weir.dev/v1alpha1\nkind: Invariant\nmetadata: {name: isolated}\nspec: {isolated: {pods: [{" + rapid.SampledFrom(plain[:5]).Draw(t, "isolated").text + "}]}}")
		docs, err := k8s.Parse("w.yaml", []byte(world.text+text.String()))
		if err != nil {
			t.Fatal(err)
		}
		all, err := k8s.ReadInvariants(docs, rego.Program)
		if err != nil {
			t.Fatal(err)
		}
		m := model(t, world.text)
		o := invariant.Apart(reach.Options{Lasting: true}, all...)
		j := reach.New(m, o)
		set, found := checkAll(t, j, all)
		for range rapid.IntRange(1, 3).Draw(t, "edits") {
			var edit reach.Edit
			for _, p := range model(t, other.text).Policies {
				if rapid.Bool().Draw(t, "put") {
					edit.Put = append(edit.Put, p)
				}
			}
			for _, p := range j.Model().Policies {
				if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
					edit.Delete = append(edit.Delete, p.Ref)
				}
			}
			if rapid.Bool().Draw(t, "move") {
				edit.World = &model(t, drawScene(t).text).World
				for _, p := range slices.Concat(edit.World.Pods, j.Model().Pods) {
					edit.Pods = append(edit.Pods, p.Ref)
				}
			}
			head, change := j.With(edit)
			next, checked, err := set.Recheck(context.Background(), head, change, today)
			if err != nil {
				t.Fatal(err)
			}
			for i := range checked {
				checked[i].Result = *checked[i].Explained()
				found[checked[i].Index] = checked[i].Result
			}
			again += len(all) - len(checked)
			_, same := checkAll(t, head, all)
			for _, c := range checked {
				got, want := c.Result, same[c.Index]
				if len(got.Counterexamples) == 0 != (len(want.Counterexamples) == 0) || (got.Doubt == nil) != (want.Doubt == nil) {
					t.Fatalf("%d counterexamples and doubt %v, want %d and %v", len(got.Counterexamples), got.Doubt, len(want.Counterexamples), want.Doubt)
				}
				for _, x := range got.Counterexamples {
					if !x.Ports.IsEmpty() && x.Decision.Verdict != breaking(all[c.Index].Form) {
						t.Fatalf("counterexample %+v", x)
					}
				}
				got.Counterexamples, got.Doubt, want.Counterexamples, want.Doubt = nil, nil, nil, nil
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("checked again it is\n%+v\nwant\n%+v\nof\n%s\n%s\n%+v", got, want, text.String(), world.text, edit)
				}
			}
			fresh := *head.Model()
			_, want := checkAll(t, reach.New(&fresh, o), all)
			known := map[string]bool{}
			for i := range head.Model().Pods {
				peer := head.Peer(head.Pod(i))
				known[peer.String()] = true
			}
			for k := range all {
				for _, x := range found[k].Counterexamples {
					for _, p := range []policies.Peer{x.From, x.To} {
						if p.Namespace != "" && !known[p.String()] {
							t.Fatalf("%s is shown of %s, and not there", p.String(), all[k].Ref.Name)
						}
					}
				}
				got, want := &found[k], &want[k]
				// Ranges of addresses are as the judge happens to tell them apart.
				outside := all[k].Form == invariant.Only || slices.ContainsFunc(slices.Concat(all[k].From, all[k].To), func(m policies.Match) bool {
					return strings.Contains(m.String(), "/")
				})
				if got.State == want.State && (outside || all[k].Form == invariant.Exists) { // of which one crossing is shown
					continue
				}
				if got.State != want.State || got.Broken != want.Broken || got.Waived != want.Waived || got.Unknown != want.Unknown {
					t.Fatalf("%s %d %d %d, want %s %d %d %d of %s\n%s\n%s\n%+v", got.State, got.Broken, got.Waived, got.Unknown, want.State, want.Broken, want.Waived, want.Unknown, all[k].Ref.Name, text.String(), world.text, edit)
				}
			}
			j, set = head, next
		}
	})
	if again == 0 {
		t.Error("every edit touched every invariant, so nothing was saved")
	}
}

func model(t *rapid.T, text string) *policies.Model {
	docs, err := k8s.Parse("w.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	m, err := k8s.Read(docs, k8s.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func checkAll(t *rapid.T, j *reach.Judge, all []invariant.Invariant) (*invariant.Set, []invariant.Result) {
	set, err := invariant.Prepare(j, all)
	if err != nil {
		t.Fatal(err)
	}
	results, err := set.Check(context.Background(), today)
	if err != nil {
		t.Fatal(err)
	}
	return set, results
}

// breaks returns the ports on which traffic from one thing to another breaks the
// sentence and is not waived.
func (s *sentence) breaks(j *reach.Judge, from, to *thing) map[point]bool {
	isFrom, isTo := s.from.is, s.to.is
	others := func(is func(*thing) bool) func(*thing) bool {
		return func(t *thing) bool { return (t.isPod() || t.kind == "") && !is(t) }
	}
	breaking := policies.Allow
	switch {
	case s.form == "only" && s.egress:
		isTo = others(isTo)
	case s.form == "only":
		isFrom = others(isFrom)
	case s.form == "always":
		breaking = policies.Deny
	}
	on := map[point]bool{}
	if !isFrom(from) || !isTo(to) || from.kind == "" && to.kind == "" || *from == *to && from.replicas == 1 {
		return on
	}
	for w := range s.waivers {
		if !s.expired[w] && s.waivers[w][0].is(from) && s.waivers[w][1].is(to) {
			return on
		}
	}
	for _, p := range points {
		if s.means(to, p) && j.Verdict(endOf(j, from), endOf(j, to), p.protocol, p.port) == breaking {
			on[p] = true
		}
	}
	return on
}

// worse reports whether anything breaks the sentence that did not before.
func (s *sentence) worse(before, after *reach.Judge, were, are []thing) bool {
	was := func(t *thing) *thing {
		i := slices.IndexFunc(were, func(w thing) bool {
			return w.kind == t.kind && w.namespace == t.namespace && w.name == t.name && w.address == t.address
		})
		if i < 0 {
			return nil
		}
		return &were[i]
	}
	for a := range are {
		for b := range are {
			known := map[point]bool{}
			if from, to := was(&are[a]), was(&are[b]); from != nil && to != nil {
				known = s.breaks(before, from, to)
			}
			for p := range s.breaks(after, &are[a], &are[b]) {
				if !known[p] {
					return true
				}
			}
		}
	}
	return false
}

// Something makes it worse exactly where a pair breaks a sentence on a port that did
// not before, whether worlds differ or policies alone.
func TestWorseIsWhatEveryPairSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		world, other, s := drawScene(t), drawScene(t), drawSentence(t)
		if s.form == "exists" {
			return
		}
		docs, err := k8s.Parse("i.yaml", []byte(s.text))
		if err != nil {
			t.Fatal(err)
		}
		all, err := k8s.ReadInvariants(docs, rego.Program)
		if err != nil {
			t.Fatal(err)
		}
		was, is := model(t, world.text), model(t, other.text)
		o := invariant.Apart(reach.Options{}, all...)
		check := func(what string, before, after *reach.Judge, are []thing) {
			set, _ := checkAll(t, before, all)
			next, _ := checkAll(t, after, all)
			x := next.Worse(set, 0, today)
			if want := s.worse(before, after, world.things, are); (x != nil) != want {
				t.Fatalf("%s: %+v makes it worse, want %v\n%s\n%s\n%s", what, x, want, s.text, world.text, other.text)
			}
		}
		before, after := reach.Pair(was, is, o)
		check("another world", before, after, other.things)

		o.Lasting = true
		before = reach.New(was, o)
		after, _ = before.With(reach.Edit{Put: is.Policies, Delete: refs(was.Policies)})
		if after.Shares(before) {
			check("other policies", before, after, world.things)
		}
	})
}

func refs(all []policies.Policy) (refs []policies.Ref) {
	for i := range all {
		refs = append(refs, all[i].Ref)
	}
	return refs
}
