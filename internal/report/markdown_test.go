package report

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/diff"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator"
)

func drawName(t *rapid.T) string {
	if rapid.IntRange(0, 9).Draw(t, "hostile") == 0 {
		return rapid.SampledFrom(hostile).Draw(t, "name")
	}
	return rapid.StringMatching(`[a-z]{1,8}(-[a-z0-9]{1,40}){0,5}`).Draw(t, "name")
}

func drawPeers(t *rapid.T) []policies.Peer {
	var peers []policies.Peer
	for range rapid.IntRange(1, 12).Draw(t, "peers") {
		if rapid.IntRange(0, 5).Draw(t, "outside") == 0 {
			peers = append(peers, addresses(rapid.SampledFrom([]string{"0.0.0.0/0", "::/0", "10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"}).Draw(t, "cidr")))
			continue
		}
		peers = append(peers, policies.Peer{Namespace: drawName(t), Name: drawName(t), Kind: "Deployment"})
	}
	return peers
}

func drawPorts(t *rapid.T) netset.Ports {
	ports := tcp(443)
	for range rapid.IntRange(0, 30).Draw(t, "ranges") {
		first := rapid.Uint16Range(1, 65000).Draw(t, "first")
		ports = ports.Union(netset.PortSpan(rapid.SampledFrom(netset.Transports[:]).Draw(t, "protocol"), first, first+uint16(rapid.IntRange(0, 90).Draw(t, "more"))))
	}
	return ports
}

func drawSide(t *rapid.T) *policies.Side {
	return side(policies.Allow, drawName(t)+"/"+drawName(t), drawName(t), 0, place(drawName(t)+".yaml", 1, 1))
}

// drawPreview draws a few things, and repeats them up to an absurd size.
func drawPreview(t *rapid.T) *Preview {
	times := rapid.SampledFrom([]int{0, 1, 3, 40, 700}).Draw(t, "times")
	verdicts := []policies.Verdict{policies.Allow, policies.Deny, policies.Unknown}
	change := &diff.Change{}
	replay := &simulator.Result{Flows: 10, Explained: 7, Outcomes: map[simulator.Outcome]uint64{}}
	var rows []simulator.Row
	for range rapid.IntRange(0, 3).Draw(t, "different") {
		g := diff.Group{
			From: drawPeers(t), To: drawPeers(t), Ports: drawPorts(t),
			Before: rapid.SampledFrom(verdicts).Draw(t, "before"), After: rapid.SampledFrom(verdicts).Draw(t, "after"),
		}
		g.Pairs = len(g.From) * len(g.To)
		g.Is = decision(g.From[0], g.To[0], 443, policies.Allow, drawSide(t), drawSide(t))
		row := simulator.Row{
			Outcome: rapid.SampledFrom(simulator.Outcomes[:]).Draw(t, "outcome"), From: g.From[0], To: g.To[0], Protocol: netset.TCP, Port: 443,
			Flows: rapid.Uint64().Draw(t, "flows"), Bytes: rapid.Uint64().Draw(t, "bytes"),
			First: time.Unix(0, 0), Last: time.Unix(1_800_000_000, 0), Decision: g.Is, Cause: drawName(t),
			Example: policies.Flow{Record: place(drawName(t), 3, 0)},
		}
		warning := policies.Warning{Place: place(drawName(t), 1, 2), Message: strings.Repeat(drawName(t)+" ", rapid.IntRange(0, 100).Draw(t, "words"))}
		policy := diff.PolicyChange{Ref: policies.Ref{Kind: "NetworkPolicy", Namespace: drawName(t), Name: drawName(t)}, What: "changed", At: place(drawName(t), 1, 1)}
		for i := range times {
			g, warning, policy := g, warning, policy
			g.From = []policies.Peer{workload(fmt.Sprintf("copy-%d/of", i))}
			g.From = append(g.From, g.To[:len(g.To)/2]...)
			warning.Place.Line += i
			policy.Ref.Name += fmt.Sprint(i)
			change.Groups = append(change.Groups, g)
			change.Policies = append(change.Policies, policy)
			change.Warnings = append(change.Warnings, warning)
			rows = append(rows, row)
			replay.Causes = append(replay.Causes, simulator.Cause{Text: drawName(t), Flows: 3})
		}
	}
	replay.Rows = simulator.RowsOf(rows...)
	p := &Preview{Base: Revision{Name: drawName(t)}, Head: Revision{Name: drawName(t)}, Change: withDifferences(change), Failed: []string{"adds"}}
	if rapid.Bool().Draw(t, "flows") {
		p.Replay = replay
	}
	return p
}

var codeSpans = regexp.MustCompile("`[^`\n]*`")

// checkMarkdown reports what is wrong with a comment.
func checkMarkdown(text string) []string {
	var wrong []string
	if n := characters(text); n > MarkdownLimit {
		wrong = append(wrong, fmt.Sprintf("%d characters", n))
	}
	if !strings.HasPrefix(text, MarkdownMarker+"\n") {
		wrong = append(wrong, "no marker")
	}
	depth, cells, fenced := 0, 0, false
	var previous string
	for n, line := range strings.Split(text, "\n") {
		complain := func(what string) { wrong = append(wrong, fmt.Sprintf("line %d %s: %s", n+1, what, line)) }
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
			continue
		}
		if fenced {
			continue
		}
		prose := codeSpans.ReplaceAllString(line, "")
		opened, closed := strings.Count(prose, "<details>"), strings.Count(prose, "</details>")
		if depth += opened - closed; depth < 0 || depth > 1 {
			complain("folds amiss")
		}
		if strings.Contains(prose, "<script") || strings.Contains(prose, "`") {
			complain("has markup of a name")
		}
		if strings.Contains(strings.ReplaceAll(prose, "@\u200b", ""), "@") {
			complain("mentions someone")
		}
		switch here := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|"); {
		case !strings.HasPrefix(line, "|"):
			if cells > 0 && line != "" {
				complain("follows a table without an empty line")
			}
			cells = 0
		case cells == 0:
			cells = here
			if previous != "" {
				complain("begins a table without an empty line")
			}
		case here != cells:
			complain(fmt.Sprintf("has %d bars, not %d", here, cells))
		}
		previous = line
	}
	if depth != 0 || fenced {
		wrong = append(wrong, "something is left open")
	}
	return wrong
}

func TestMarkdownAlwaysFitsAndIsWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := previewMarkdown(drawPreview(t))
		if wrong := checkMarkdown(text); len(wrong) > 0 {
			t.Fatalf("%s\n\n%s", strings.Join(wrong[:min(len(wrong), 5)], "\n"), text)
		}
	})
}

func TestMarkdownOfAnEnormousChangeSaysWhatItLeavesOut(t *testing.T) {
	p := pullRequest()
	rows := slices.Collect(p.Replay.Rows.All())
	for i := range 5000 {
		r := rows[0]
		r.From = workload(fmt.Sprintf("namespace-with-a-long-name-%04d/workload-with-a-long-name", i))
		rows = append(rows, r)
	}
	p.Replay.Rows = simulator.RowsOf(rows...)
	text := previewMarkdown(p)
	if wrong := checkMarkdown(text); len(wrong) > 0 {
		t.Error(wrong)
	}
	if n := characters(text); n < MarkdownLimit*9/10 {
		t.Errorf("%d characters: room is left although rows were left out", n)
	}
	for _, part := range []string{
		"## 5,001 connections in use would break", "more left out here; the json and html reports have them all", "```mermaid", "### What was edited", "Compared `main`",
	} {
		if !strings.Contains(text, part) {
			t.Errorf("it lacks %q", part)
		}
	}
}
