package report

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/query"
)

// hidden is the answer about two rules that never decide.
func hidden() *query.Answer {
	first, second := 0, 1
	policy := func(name string) *policies.Ref {
		return &policies.Ref{Kind: "NetworkPolicy", Namespace: "payments", Name: name}
	}
	by := query.Rule{Policy: *policy("api"), Direction: "ingress", Rule: &first, At: place("api.yaml", 9, 5)}
	return &query.Answer{Question: query.Shadowed, Rows: []query.Row{
		{
			What: "never decides", Tier: "default", Policy: policy("db"), Direction: "ingress", Rule: &second, Action: policies.ActionAllow,
			Because: "ingress rule 1 of payments/api allows all that it matches", By: []query.Rule{by}, At: place("db.yaml", 14, 7),
		},
		{
			What: "never decides", Tier: "default", Policy: policy("old, and odd\x1b"), Direction: "egress", Rule: &first, Action: policies.ActionAllow,
			Because: "2 rules before it settle together all that it matches", By: []query.Rule{by, {Policy: *policy("db"), Direction: "egress"}},
		},
	}}
}

// everything is a row that says all that a row can.
func everything() query.Row {
	web, outside := workload("storefront/web"), addresses("10.0.0.0/8", "10.1.0.0/16")
	row := hidden().Rows[0]
	row.Verdict, row.Peer, row.Other, row.Pods = policies.Allow, &web, &outside, 3
	row.Ports, row.Perhaps = tcp(80), udp(53)
	row.Flows, row.Last = 12, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return row
}

func TestEveryQuestionHasItsColumns(t *testing.T) {
	schema := testkit.Schema(t, "answer")
	for question := range columnsOf {
		if nothing[question] == "" {
			t.Errorf("an answer to %s without rows says nothing", question)
		}
		could := everything()
		could.Other, could.Could = nil, "any pod of a new namespace"
		logs := everything()
		logs.Action = policies.ActionLog
		a := &query.Answer{Question: question, Rows: []query.Row{everything(), could, logs}}
		var text, table, object bytes.Buffer
		for format, w := range map[Format]io.Writer{Text: &text, CSV: &table, JSON: &object} {
			if err := WriteAnswer(w, format, a, nil, Style{}); err != nil {
				t.Fatal(err)
			}
		}
		columns := strings.Split(strings.TrimSpace(strings.SplitN(table.String(), "\r\n", 2)[0]), ",")
		if got := len(strings.Fields(strings.SplitN(text.String(), "\n", 2)[0])); got != len(columns) || got != len(columnsOf[question]) {
			t.Errorf("%s: text has %d columns, csv %d", question, got, len(columns))
		}
		answer, err := jsonschema.UnmarshalJSON(&object)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(answer); err != nil {
			t.Errorf("%s: %v", question, err)
		}
	}
}
