package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/diff"
	"github.com/weir-policy/weir/policies/lint"
	"github.com/weir-policy/weir/simulator"
)

func sarifOf(t *testing.T, p *Preview) sarifLog {
	t.Helper()
	var text bytes.Buffer
	if err := WritePreview(&text, SARIF, p, Style{}); err != nil {
		t.Fatal(err)
	}
	var log sarifLog
	decoder := json.NewDecoder(&text)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&log); err != nil {
		t.Fatal(err)
	}
	return log
}

// The standard asks for version, runs, a driver with a name, and a message for
// each result; forges also for a rule that exists, a relative address, and
// lines and columns from 1.
func TestSARIFHasWhatTheStandardAndTheForgesAskFor(t *testing.T) {
	for name, p := range map[string]*Preview{"sample": pullRequest(), "nothing": {Change: &diff.Change{}}} {
		log := sarifOf(t, p)
		if log.Version != "2.1.0" || len(log.Runs) != 1 || log.Runs[0].Tool.Driver.Name != "weir" || log.Runs[0].Results == nil {
			t.Errorf("%s: not a log of version 2.1.0 with one run", name)
		}
		rules := log.Runs[0].Tool.Driver.Rules
		for i, r := range rules {
			if r.ShortDescription.Text == "" || r.FullDescription.Text == "" || r.Help.Text == "" ||
				slices.IndexFunc(rules, func(o sarifRule) bool { return o.ID == r.ID }) != i {
				t.Errorf("%s: rule %s is not whole, or there twice", name, r.ID)
			}
		}
		for _, r := range log.Runs[0].Results {
			if r.RuleIndex < 0 || r.RuleIndex >= len(rules) || rules[r.RuleIndex].ID != r.RuleID {
				t.Errorf("%s: result of rule %s has index %d", name, r.RuleID, r.RuleIndex)
			}
			if r.Message.Text == "" || !slices.Contains([]string{"error", "warning", "note"}, r.Level) || len(r.Locations) != 1 {
				t.Errorf("%s: result is not whole: %+v", name, r)
				continue
			}
			at := r.Locations[0].Physical
			if uri := at.Artifact.URI; uri == "" || strings.HasPrefix(uri, "/") || strings.Contains(uri, "\\") || at.Artifact.URIBaseID != "%SRCROOT%" {
				t.Errorf("%s: place %q is not relative", name, uri)
			}
			if at.Region == nil || at.Region.StartLine < 1 {
				t.Errorf("%s: result has no line: %+v", name, r)
			}
		}
	}
}

// A forge can only show places that the head has.
func TestWhatStoodInTheBaseIsShownWhereTheHeadDecides(t *testing.T) {
	web, db := workload("shop/web"), workload("shop/db")
	was := decision(web, db, 80, policies.Deny, nil, side(policies.Deny, "shop/deny", "", -1, place("deny.yaml", 3, 1)))
	out := side(policies.Allow, "shop/web", "", 0, place("web.yaml", 9, 5))
	edited := []diff.PolicyChange{
		{Ref: policies.Ref{Kind: "NetworkPolicy", Namespace: "shop", Name: "deny"}, What: "removed", At: place("deny.yaml", 3, 1)},
		{Ref: policies.Ref{Kind: "NetworkPolicy", Namespace: "shop", Name: "other"}, What: "changed", At: place("other.yaml", 1, 1)},
	}
	for _, c := range []struct {
		name    string
		is      policies.Decision
		edited  []diff.PolicyChange
		at      string
		related string
	}{
		{"a policy decides now", decision(web, db, 80, policies.Allow, out, nil), edited, "web.yaml", "deny.yaml"},
		{"another policy was edited", decision(web, db, 80, policies.Allow, nil, nil), edited, "other.yaml", "deny.yaml"},
		{"the head has no place", decision(web, db, 80, policies.Allow, nil, nil), edited[:1], "deny.yaml", ""},
	} {
		r := sarifOf(t, &Preview{Change: withDifferences(&diff.Change{
			Policies: c.edited,
			Groups:   []diff.Group{{From: []policies.Peer{web}, To: []policies.Peer{db}, Ports: tcp(80), Before: policies.Deny, After: policies.Allow, Pairs: 1, Was: was, Is: c.is}},
		})}).Runs[0].Results[0]
		related := ""
		if len(r.Related) > 0 {
			related = r.Related[0].Physical.Artifact.URI
		}
		if at := r.Locations[0].Physical.Artifact.URI; at != c.at || related != c.related {
			t.Errorf("%s: at %q, related %q; want %q, %q", c.name, at, related, c.at, c.related)
		}
	}
}

func TestFingerprintsDoNotDependOnPlaces(t *testing.T) {
	fingerprints := func(p *Preview) (all []string) {
		for _, r := range sarifOf(t, p).Runs[0].Results {
			all = append(all, r.Fingerprints["weirConnection/v1"])
		}
		return all
	}
	moved := pullRequest()
	for i := range moved.Change.Groups {
		for d := range moved.Change.Groups[i].Is.Sides {
			moved.Change.Groups[i].Is.Sides[d].At.Line += 7
		}
	}
	before, after := fingerprints(pullRequest()), fingerprints(moved)
	if !slices.Equal(before, after) {
		t.Errorf("they moved with the lines:\n%v\n%v", before, after)
	}
	slices.Sort(before)
	if len(slices.Compact(before)) != len(after) {
		t.Error("two results share one")
	}
}

func TestSARIFOfAnEnormousRunKeepsTheWorst(t *testing.T) {
	r := checked()
	for i := range mostResults {
		f := r.Findings[1]
		f.Message = fmt.Sprint("note ", i)
		r.Findings = append(r.Findings[:1:1], append([]lint.Finding{f}, r.Findings[1:]...)...)
	}
	var text bytes.Buffer
	if err := WriteCheckRun(&text, SARIF, r, Style{}); err != nil {
		t.Fatal(err)
	}
	var log sarifLog
	if err := json.Unmarshal(text.Bytes(), &log); err != nil {
		t.Fatal(err)
	}
	run := log.Runs[0]
	if len(run.Results) != mostResults || run.Properties.LeftOut != 4 || run.Results[0].Level != "error" || run.Results[1].Level != "warning" {
		t.Errorf("%d results, the first %s, and %d left out", len(run.Results), run.Results[0].Level, run.Properties.LeftOut)
	}
}

func TestSARIFOfAnEnormousChangeIsCut(t *testing.T) {
	p := pullRequest()
	rows := slices.Collect(p.Replay.Rows.All())
	for i := range mostResults {
		r := rows[0]
		r.From = workload(fmt.Sprintf("a/w%d", i))
		rows = append(rows, r)
	}
	p.Replay.Rows = simulator.RowsOf(rows...)
	run := sarifOf(t, p).Runs[0]
	if len(run.Results) != mostResults || run.Properties.LeftOut != 7 {
		t.Errorf("%d results and %d left out", len(run.Results), run.Properties.LeftOut)
	}
}
