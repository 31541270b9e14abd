package report

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/diff"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator"
)

func peerList(names ...string) []policies.Peer {
	var peers []policies.Peer
	for _, n := range names {
		if c := n[0]; c >= '0' && c <= '9' || c == ':' {
			peers = append(peers, addresses(n))
		} else {
			peers = append(peers, workload(n))
		}
	}
	return peers
}

// many returns n workloads of each namespace.
func many(n int, namespaces ...string) []policies.Peer {
	var peers []policies.Peer
	for _, namespace := range namespaces {
		for i := range n {
			peers = append(peers, workload(fmt.Sprintf("%s/w%03d", namespace, i)))
		}
	}
	return peers
}

func TestPeersPhrase(t *testing.T) {
	node := policies.Peer{Kind: "Node", Name: "n1"}
	pod := policies.Peer{Namespace: "shop", Name: "web", Kind: "Deployment", Pod: "web-1"}
	for _, c := range []struct {
		peers []policies.Peer
		want  string
	}{
		{peerList("shop/web"), "shop/web"},
		{peerList("shop/db", "shop/web"), "shop/db and shop/web"},
		{peerList("a/x", "a/y", "b/z"), "a/x, a/y and b/z"},
		{many(20, "a"), "20 workloads of namespace a"},
		{many(20, "a", "b"), "40 workloads of namespaces a and b"},
		{many(1, "a", "b", "c", "d", "e"), "5 workloads in 5 namespaces"},
		{many(1500, "a"), "1,500 workloads of namespace a"},
		{[]policies.Peer{pod}, "shop/web (pod web-1)"},
		{[]policies.Peer{pod, pod, pod, pod}, "4 pods of namespace shop"},
		{[]policies.Peer{node, node, node, node}, "4 nodes in 1 namespace"},
		{peerList("0.0.0.0/0", "::/0"), "anywhere outside"},
		{peerList("0.0.0.0/0"), "anywhere outside (0.0.0.0/0)"},
		{peerList("::/0"), "anywhere outside (::/0)"},
		{[]policies.Peer{addresses("0.0.0.0/0", "10.0.0.0/8")}, "0.0.0.0/0 except 10.0.0.0/8"},
		{peerList("10.0.0.0/8", "192.0.2.0/24"), "10.0.0.0/8 and 192.0.2.0/24"},
		{peerList("10.0.0.0/8", "192.0.2.0/24", "192.0.3.0/24", "192.0.5.0/24"), "4 ranges outside"},
		{peerList("shop/web", "0.0.0.0/0"), "shop/web and anywhere outside (0.0.0.0/0)"},
	} {
		if got := peersPhrase(c.peers).plain(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestMoveSentences(t *testing.T) {
	const allow, deny, unknown, nothing = policies.Allow, policies.Deny, policies.Unknown, policies.Undecided
	group := func(from, to []policies.Peer, ports netset.Ports, before, after policies.Verdict) diff.Group {
		return diff.Group{From: from, To: to, Ports: ports, Before: before, After: after, Pairs: len(from) * len(to)}
	}
	because := func(g diff.Group, side *policies.Side) diff.Group {
		g.Is = decision(g.From[0], g.To[0], 80, side.Verdict, nil, side)
		return g
	}
	web, api, db := peerList("shop/web"), peerList("shop/api"), peerList("shop/db")
	world := peerList("0.0.0.0/0", "::/0")
	for _, c := range []struct {
		group diff.Group
		want  string
	}{
		{group(world, db, tcp(5432), deny, allow), "warning adds: Opens to the internet: shop/db accepts TCP/5432 from anywhere outside"},
		{group(peerList("10.0.0.0/8"), db, tcp(5432), deny, allow), "warning adds: Opens to addresses outside: shop/db accepts TCP/5432 from 10.0.0.0/8"},
		{group(world, peerList("shop/api", "shop/db"), tcp(80), deny, allow), "warning adds: Opens to the internet: shop/api and shop/db accept TCP/80 from anywhere outside"},
		{group(web, world, netset.TransportPorts(), deny, allow), "warning adds: Opens the way out: shop/web can now reach anywhere outside on any port"},
		{group(web, peerList("192.0.2.0/24"), tcp(443), deny, allow), "warning adds: Opens a way out: shop/web can now reach 192.0.2.0/24 on TCP/443"},
		{group(web, api, tcp(80).Union(udp(53)), deny, allow), "note adds: Opens: shop/web can now reach shop/api on TCP/80 UDP/53"},
		{group(web, api, tcp(80), nothing, allow), "note adds: Opens: shop/web can now reach shop/api on TCP/80"},
		{
			because(group(web, api, tcp(80), allow, deny), side(deny, "shop/api", "no rule of shop/api allows it", -1, place("api.yaml", 3, 1))),
			"note removes: Closes: shop/web can no longer reach shop/api on TCP/80, because no rule of shop/api allows it — api.yaml:3:1",
		},
		{group(world, db, tcp(80), allow, deny), "note removes: Closes: shop/db no longer accepts TCP/80 from anywhere outside"},
		{group(web, api, tcp(80), allow, unknown), "warning unknown: Uncertain: whether shop/web reaches shop/api on TCP/80 can no longer be told; it was allowed"},
		{group(web, api, tcp(80), unknown, deny), "warning unknown: Uncertain: whether shop/web reaches shop/api on TCP/80 could not be told before; now it is denied"},
		{group(many(20, "a"), many(200, "b"), tcp(80), allow, deny), "note removes: Closes: All 4,000 pairs from 20 workloads of namespace a to 200 workloads of namespace b lose TCP/80"},
		{
			because(group(many(20, "a"), many(200, "b"), netset.TransportPorts(), allow, deny), side(deny, "b/deny", "b/deny has no ingress rule", -1, place("b.yaml", 3, 1))),
			"note removes: Closes: All 4,000 pairs from 20 workloads of namespace a to 200 workloads of namespace b lose every port, for example because b/deny has no ingress rule — b.yaml:3:1",
		},
		{group(many(20, "a"), many(200, "b"), tcp(80), deny, allow), "note adds: Opens: All 4,000 pairs from 20 workloads of namespace a to 200 workloads of namespace b gain TCP/80"},
	} {
		moves := movesOf(&diff.Change{Groups: []diff.Group{c.group}})
		s := moveSentence(&moves[0])
		got := s.Level + " " + s.Rule + ": " + s.Lead.plain() + " " + s.Body.plain() + s.AtPhrase().plain()
		if got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestManyGroupsReadAsAFewSentences(t *testing.T) {
	c := &diff.Change{}
	for i := range 500 {
		c.Groups = append(c.Groups, diff.Group{
			From: peerList(fmt.Sprintf("a/x%03d", i)), To: many(8, "b"), Ports: tcp(uint16(1000 + i%3)), Before: policies.Allow, After: policies.Deny, Pairs: 8,
		})
	}
	said := sentences(&Preview{Change: withDifferences(c)})
	want := "4,000 pairs from 500 workloads of namespace a to 8 workloads of namespace b lose TCP/1000-1002"
	if len(said) != 1 || said[0].Body.plain() != want {
		t.Errorf("got %d sentences, the first %q; want %q", len(said), said[0].Body.plain(), want)
	}
}

func TestTheCauseIsTheSideThatTurned(t *testing.T) {
	web, db := workload("shop/web"), workload("shop/db")
	egress := side(policies.Allow, "shop/web", "egress allows", 0, place("web.yaml", 9, 5))
	ingress := side(policies.Allow, "shop/db", "ingress allows", 0, place("db.yaml", 9, 5))
	refused := side(policies.Deny, "shop/db", "ingress denies", -1, place("db.yaml", 3, 1))
	for _, c := range []struct {
		name     string
		now, was policies.Decision
		want     string
	}{
		{"ingress turned", decision(web, db, 80, policies.Allow, egress, ingress), decision(web, db, 80, policies.Deny, egress, refused), "ingress allows db.yaml:9:5 false"},
		{"denied at ingress", decision(web, db, 80, policies.Deny, egress, refused), decision(web, db, 80, policies.Allow, egress, ingress), "ingress denies db.yaml:3:1 false"},
		{"the other side's policy is gone", decision(web, db, 80, policies.Allow, egress, nil), decision(web, db, 80, policies.Deny, egress, refused), "no policy selects it db.yaml:3:1 true"},
		{"the policy is gone", decision(web, db, 80, policies.Allow, nil, nil), decision(web, db, 80, policies.Deny, nil, refused), "no policy selects it db.yaml:3:1 true"},
		{"nothing is known", policies.Decision{}, policies.Decision{}, "  false"},
	} {
		because, at, _, atBase := causeOf(&c.now, &c.was)
		if got := fmt.Sprint(because, " ", at, " ", atBase); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestAFlowThatOpensStandsAtTheRuleThatOpensIt(t *testing.T) {
	web, db := workload("shop/web"), workload("shop/db")
	egress := side(policies.Allow, "shop/web", "egress allows", 0, place("web.yaml", 9, 5))
	ingress := side(policies.Allow, "shop/db", "ingress allows", 0, place("db.yaml", 9, 5))
	refused := side(policies.Deny, "shop/db", "ingress denies", -1, place("db.yaml", 3, 1))
	s := rowSentence(&simulator.Row{
		Outcome: simulator.Opens, From: web, To: db, Protocol: netset.TCP, Port: 80, Flows: 1,
		Decision: decision(web, db, 80, policies.Allow, egress, ingress),
		Base:     decision(web, db, 80, policies.Deny, egress, refused),
	})
	want := "shop/web → shop/db TCP/80; allowed after the change because ingress allows — db.yaml:9:5"
	if got := s.Body.plain() + s.AtPhrase().plain(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestHeadlines(t *testing.T) {
	group := func(from, to []policies.Peer, before, after policies.Verdict) diff.Group {
		return diff.Group{From: from, To: to, Ports: tcp(80), Before: before, After: after, Pairs: len(from) * len(to)}
	}
	breaks := &simulator.Result{Rows: simulator.RowsOf(simulator.Row{Outcome: simulator.Breaks}, simulator.Row{Outcome: simulator.Drifts})}
	used := &simulator.Result{Rows: simulator.RowsOf(simulator.Row{
		Outcome: simulator.Breaks, From: workload("shop/web"), To: workload("shop/db"), Protocol: netset.TCP, Port: 80,
	})}
	opensIn := group(peerList("0.0.0.0/0"), peerList("shop/db"), policies.Deny, policies.Allow)
	for _, c := range []struct {
		groups []diff.Group
		replay *simulator.Result
		want   string
	}{
		{nil, nil, "No connection changes."},
		{nil, breaks, "1 connection in use would break."},
		{[]diff.Group{opensIn}, breaks, "1 connection in use would break and 1 opens to outside."},
		{[]diff.Group{opensIn, opensIn}, nil, "1 connection opens to outside."},
		{[]diff.Group{group(peerList("shop/web"), peerList("shop/db"), policies.Allow, policies.Deny)}, used, "1 connection in use would break."},
		{[]diff.Group{group(peerList("shop/api"), peerList("shop/db"), policies.Allow, policies.Deny)}, used, "1 connection in use would break and 1 closes."},
		{[]diff.Group{group(many(20, "a"), many(200, "b"), policies.Allow, policies.Deny)}, nil, "4,000 connections close."},
		{[]diff.Group{group(many(3, "a"), many(3, "a"), policies.Deny, policies.Allow)}, nil, "6 connections open inside."},
	} {
		if got := headline(&Preview{Change: withDifferences(&diff.Change{Groups: c.groups}), Replay: c.replay}).plain(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestExposureNamesWhoIsNewAndWhoIsGone(t *testing.T) {
	for _, c := range []struct {
		span Span
		want string
	}{
		{Span{Before: 3, After: 3}, "3 workloads can be reached from outside, as before"},
		{Span{Before: 3, After: 4, New: peerList("shop/web")}, "4 workloads can be reached from outside, 3 before: shop/web is new"},
		{Span{Before: 1, After: 1, New: peerList("shop/web"), Gone: peerList("shop/db")}, "1 workload can be reached from outside, 1 before: shop/web is new and shop/db no longer can"},
		{Span{After: 20, New: many(20, "a")}, "20 workloads can be reached from outside, 0 before: 20 workloads of namespace a are new"},
	} {
		if got := exposurePhrases(&Preview{Exposure: Exposure{Reachable: c.span}})[0].plain(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestCausesOfFewFlowsAreCounted(t *testing.T) {
	var causes []simulator.Cause
	for i := range 83 {
		causes = append(causes, simulator.Cause{Text: fmt.Sprintf("namespace n%d is not in the world", i), Flows: 2})
	}
	first, rest := foremostCauses(causes)
	if want := "73 other causes; the json report has them all"; len(first) != 10 || rest.Text != want || rest.Flows != 146 {
		t.Errorf("%d causes and %+v; want 10 and %q", len(first), rest, want)
	}
	if first, rest = foremostCauses(causes[:10]); len(first) != 10 || rest != nil {
		t.Errorf("%d causes of 10 and %v", len(first), rest)
	}
}

func TestTheFirstLinesThatCouldNotBeReadAreNamed(t *testing.T) {
	said := readingPhrases(FlowReading{Bad: 12, Problems: []string{"f:1: a", "f:2: b"}})
	var got []string
	for _, s := range said {
		got = append(got, s.plain())
	}
	if want := []string{"12 lines could not be read, the first of them:", "  f:1: a", "  f:2: b"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestColumnsWithoutAnythingAreLeftOut(t *testing.T) {
	slim := table{
		Columns: []string{"", "Bytes", "Flows"}, Numbers: []int{1, 2},
		Rows: [][]phrase{{say("+"), nil, say("3")}, {nil, say(""), say("4")}},
	}.withoutEmpty()
	if !slices.Equal(slim.Columns, []string{"", "Flows"}) || !slices.Equal(slim.Numbers, []int{1}) || slim.Rows[1][1].plain() != "4" {
		t.Errorf("got %+v", slim)
	}
}

func TestNumbersInWords(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{grouped(0), "0"},
		{grouped(999), "999"},
		{grouped(1000), "1,000"},
		{grouped(uint64(1204331)), "1,204,331"},
		{counted(1, "flow"), "1 flow"},
		{counted(0, "flow"), "0 flows"},
		{counted(2, "policy"), "2 policies"},
		{byteSize(999), "999 B"},
		{byteSize(1000), "1.0 kB"},
		{byteSize(9_960), "10 kB"},
		{byteSize(999_600), "1.0 MB"},
		{byteSize(88_123_456_789), "88 GB"},
		{byteSize(1<<64 - 1), "18 EB"},
		{percent(1_204_095, 1_204_331), "99.98%"},
		{percent(5, 5), "100%"},
		{percent(0, 5), "0%"},
		{percent(999_999_999, 1_000_000_000), "99.9999999%"},
		{percent(1, 1_000_000), "0.0001%"},
		{percent(0, 0), "100%"},
		{moment(time.Time{}), ""},
		{moment(time.Date(2026, 3, 10, 23, 58, 1, 0, time.UTC)), "2026-03-10 23:58"},
		{portsText(tcp(80)), "TCP/80"},
		{portsText(netset.TransportPorts()), "any"},
		{portText(netset.ICMP, 8<<8), "ICMP/8/0"},
		{portText(netset.ICMP, 0), "ICMP"},
		{portText(netset.UDP, 53), "UDP/53"},
		{portText(netset.TCP, 0), "TCP port unknown"},
		{portText(0, 0), "port unknown"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	var ports netset.Ports
	for i := range uint16(100) {
		ports = ports.Union(tcp(1000 + 2*i))
	}
	if got, want := portsText(ports), "TCP/1000,1002,1004,1006,1008,1010,1012 … (100 ranges)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
