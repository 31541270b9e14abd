package report

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/weir-policy/weir/policies"
)

// mostResults is how many results the forges show of one run.
const mostResults = 5000

type sarifLog struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool struct {
		Driver sarifDriver `json:"driver"`
	} `json:"tool"`
	ColumnKind string        `json:"columnKind"`
	Results    []sarifResult `json:"results"`
	Properties struct {
		Headline string `json:"headline,omitempty"`
		LeftOut  int    `json:"leftOut,omitempty"`
	} `json:"properties"`
}

type sarifDriver struct {
	Name           string      `json:"name"`
	InformationURI string      `json:"informationUri"`
	Rules          []sarifRule `json:"rules"`
}

type sarifRule struct {
	ID               string       `json:"id"`
	Name             string       `json:"name"`
	ShortDescription sarifMessage `json:"shortDescription"`
	FullDescription  sarifMessage `json:"fullDescription"`
	Help             sarifMessage `json:"help"`
	HelpURI          string       `json:"helpUri,omitempty"`
	Default          struct {
		Level string `json:"level"`
	} `json:"defaultConfiguration"`
}

type sarifMessage struct {
	Text string `json:"text"`
}

type sarifResult struct {
	RuleID       string            `json:"ruleId"`
	RuleIndex    int               `json:"ruleIndex"`
	Level        string            `json:"level"`
	Message      sarifMessage      `json:"message"`
	Locations    []sarifLocation   `json:"locations,omitempty"`
	Related      []sarifLocation   `json:"relatedLocations,omitempty"`
	Suppressions []sarifWaiver     `json:"suppressions,omitempty"`
	Fingerprints map[string]string `json:"partialFingerprints"`
}

type sarifWaiver struct {
	Kind          string `json:"kind"`
	Justification string `json:"justification"`
}

type sarifLocation struct {
	Message  *sarifMessage `json:"message,omitempty"`
	Physical struct {
		Artifact struct {
			URI       string `json:"uri"`
			URIBaseID string `json:"uriBaseId,omitempty"`
		} `json:"artifactLocation"`
		Region *sarifRegion `json:"region,omitempty"`
	} `json:"physicalLocation"`
}

type sarifRegion struct {
	StartLine   int `json:"startLine"`
	StartColumn int `json:"startColumn,omitempty"`
}

var sarifRules = []struct{ id, name, level, short, full, help string }{
	{
		"breaks", "BreaksRecordedFlow", "error", "A connection in use would break",
		"Flows that were recorded as allowed, and that the policies of the base allow, would be denied.",
		"Allow the connection in the policy named, or make sure that nothing needs it any more.",
	},
	{
		"opens", "OpensRecordedFlow", "warning", "A connection that was denied would open",
		"Flows that were recorded as denied, and that the policies of the base deny, would be allowed.",
		"Make sure that the connection is wanted: something already tries it.",
	},
	{
		"adds", "AddsConnection", "note", "A connection becomes possible",
		"A connection that was denied, or whose end did not exist, is allowed after the change.",
		"Narrow the rule named, if the connection is not wanted.",
	},
	{
		"removes", "RemovesConnection", "note", "A connection becomes impossible",
		"A connection that was allowed is denied after the change, or its end is gone.",
		"Allow the connection in the policy named, if it is wanted.",
	},
	{
		"unknown", "UncertainConnection", "warning", "A connection cannot be told",
		"Whether a connection is allowed cannot be told before or after the change: something that decides it is not in the input.",
		"Give the world what is missing, or narrow the rule so that it does not depend on it.",
	},
	{
		"drift", "RecordedVerdictDiffers", "note", "A recorded verdict is not what the model says",
		"What was recorded and what the policies of the base say disagree: something else decides, or the record is older than the policies.",
		"Find what else decides, for the preview cannot speak for this connection.",
	},
	{
		"invariants", "BreaksInvariant", "error", "A declared invariant breaks",
		"An invariant that holds in the base, or that the change declares, does not hold after it.",
		"Narrow or add the rule named, or talk to the owner of the invariant about a waiver.",
	},
}

const projectURI = "https://github.com/weir-policy/weir"

// newSARIF returns a log of version 2.1.0 with one run.
func newSARIF() *sarifLog {
	log := &sarifLog{Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: make([]sarifRun, 1)}
	run := &log.Runs[0]
	run.Tool.Driver = sarifDriver{Name: "weir", InformationURI: projectURI}
	run.ColumnKind = "unicodeCodePoints"
	run.Results = []sarifResult{}
	return log
}

func (l *sarifLog) write(out *bufio.Writer) {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(l) // structs of strings and numbers always encode, and out keeps its error for Flush
}

// fingerprints tell results apart by what they are about, not by where they
// stand, so that forges know them again after an edit.
type fingerprints map[string]int

func (f fingerprints) of(rule, key string) string {
	sum := sha256.Sum256([]byte(rule + "\x00" + key))
	mark := hex.EncodeToString(sum[:16])
	f[mark]++
	return mark + ":" + grouped(f[mark])
}

func previewSARIF(out *bufio.Writer, p *Preview) {
	log := newSARIF()
	run := &log.Runs[0]
	run.Properties.Headline = headline(p).plain()
	index := map[string]int{}
	for i, r := range sarifRules {
		rule := sarifRule{ID: "weir/" + r.id, Name: r.name, ShortDescription: sarifMessage{r.short}, FullDescription: sarifMessage{r.full}, Help: sarifMessage{r.help}}
		rule.Default.Level = r.level
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, rule)
		index[r.id] = i
	}
	edited, removed := editedPlace(p, true), editedPlace(p, false)
	said := sentences(p)
	if len(said) > mostResults {
		run.Properties.LeftOut = len(said) - mostResults
		said = said[:mostResults]
	}
	seen := fingerprints{}
	for _, s := range said {
		result := sarifResult{
			RuleID: "weir/" + s.Rule, RuleIndex: index[s.Rule], Level: s.Level,
			Message: sarifMessage{s.Lead.plain() + " " + s.Body.plain() + "."},
		}
		at := s.At
		if s.AtBase {
			at = cmp.Or(s.AtHead, edited)
			if was, ok := locationOf(s.At); ok && at.File != "" {
				was.Message = &sarifMessage{"where it stood in the base"}
				result.Related = []sarifLocation{was}
			}
		}
		if at.File == "" {
			at = cmp.Or(edited, s.At, removed)
			if s.AtBase && at == s.At {
				result.Message.Text += " The place is one of the base."
			}
		}
		if location, ok := locationOf(at); ok {
			result.Locations = []sarifLocation{location}
		}
		if location, ok := locationOf(s.Declared); ok {
			location.Message = &sarifMessage{"where the invariant is declared"}
			result.Related = append(result.Related, location)
		}
		result.Fingerprints = map[string]string{"weirConnection/v1": seen.of(s.Rule, s.key)}
		run.Results = append(run.Results, result)
	}
	log.write(out)
}

// editedPlace is where what has no rule of its own is shown: the first policy
// that was edited and is still there, or else that was removed.
func editedPlace(p *Preview, there bool) policies.Place {
	for _, c := range p.Change.Policies {
		if c.At.File != "" && there == (c.What != "removed") {
			return c.At
		}
	}
	return policies.Place{}
}

func locationOf(at policies.Place) (sarifLocation, bool) {
	var l sarifLocation
	if at.File == "" || at.File == "-" {
		return l, false
	}
	path := filepath.ToSlash(at.File)
	l.Physical.Artifact.URI = (&url.URL{Path: strings.TrimPrefix(path, "./")}).String()
	if !filepath.IsAbs(at.File) {
		l.Physical.Artifact.URIBaseID = "%SRCROOT%"
	}
	if at.Line > 0 {
		l.Physical.Region = &sarifRegion{at.Line, at.Column}
	}
	return l, true
}
