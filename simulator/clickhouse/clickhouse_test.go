package clickhouse

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator/flowrow"
)

func TestAddresses(t *testing.T) {
	t.Setenv(PasswordVariable, "from the environment")
	for _, test := range []struct {
		text, name, password string
		schema               schema
		settings             int
	}{
		{"clickhouse://host", "clickhouse://host:9000/default", "from the environment", schema{database: "default"}, 0},
		{"clickhouse://u:p@a:1,b/flows?cluster=main&ttl=30d", "clickhouse://a:1,b:9000/flows", "p", schema{database: "flows", cluster: "main", keep: 30 * 24 * time.Hour}, 0},
		{"clickhouse://[::1]:9000/flows?ttl=12h&insert_quorum=2", "clickhouse://[::1]:9000/flows", "from the environment", schema{database: "flows", keep: 12 * time.Hour}, 1},
	} {
		a, err := parseAddress(test.text)
		if err != nil {
			t.Errorf("%s: %v", test.text, err)
			continue
		}
		if a.name != test.name || a.options.Auth.Password != test.password || a.schema != test.schema || len(a.options.Settings) != test.settings {
			t.Errorf("%s: got %s, %+v, %v", test.text, a.name, a.schema, a.options.Settings)
		}
	}
	for _, text := range []string{
		"clickhouse://u:secret@host/flows?ttl=soon", "clickhouse://u:secret@host/a'b", "clickhouse://u:secret@host/flows?cluster=a%60b",
		"clickhouse://u:secret@", "clickhouse://u:secret@ho st:x/flows", "clickhouse://u:secret@host/flows?ttl=%zz",
	} {
		if _, err := parseAddress(text); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// What a user says never becomes part of a statement.
func TestConditions(t *testing.T) {
	evil := "x' OR '1'='1"
	who := flowrow.Who{Namespace: evil, Kind: evil, Name: evil, Pod: evil, Labels: map[string]string{evil: evil}, Addresses: netip.MustParsePrefix("10.0.0.0/9")}
	f := flowrow.Filter{
		From: who, To: who, Either: who, Protocol: netset.TCP, FirstPort: 80, LastPort: 90,
		Verdicts: []policies.Verdict{policies.Deny, policies.Undecided}, Policy: policies.Ref{Kind: evil, Namespace: evil, Name: evil},
	}
	for _, modern := range []bool{false, true} {
		s := &Store{schema: schema{modern: modern}}
		c := s.conditions(&f)
		text := strings.Join(c.terms, " AND ")
		if strings.Contains(text, "OR '1'") {
			t.Error(text)
		}
		if got := strings.Count(text, "?"); got != len(c.arguments) {
			t.Errorf("%d question marks and %d arguments", got, len(c.arguments))
		}
	}
	s := &Store{}
	c := s.conditions(&flowrow.Filter{From: flowrow.Who{Addresses: netip.MustParsePrefix("10.128.0.0/9")}, To: flowrow.Who{Addresses: netip.MustParsePrefix("2001:db8::/33")}})
	want := []any{int64(-1 << 63), int64(1<<63 - 1), uint32(0x0a800000), uint32(0x0affffff), "20010DB8000000000000000000000000", "20010DB87FFFFFFFFFFFFFFFFFFFFFFF"}
	if diff := gocmp.Diff(want, c.arguments); diff != "" {
		t.Error(diff)
	}
}

// Whole hours are asked of the tuples, the rest of the flows.
func TestParts(t *testing.T) {
	at := func(hour, minute int) time.Time { return time.Date(2026, 11, 2, hour, minute, 0, 0, time.UTC) }
	for _, test := range []struct {
		fact string
		flowrow.Range
		want []string
	}{
		{"all", flowrow.Range{}, []string{"tuples"}},
		{"since a whole hour", flowrow.Range{Since: at(3, 0)}, []string{"tuples"}},
		{"since some minute", flowrow.Range{Since: at(3, 1)}, []string{"tuples", "flows"}},
		{"both bounds amid hours", flowrow.Range{Since: at(3, 1), Until: at(5, 1)}, []string{"tuples", "flows", "flows"}},
		{"less than an hour", flowrow.Range{Since: at(3, 1), Until: at(3, 2)}, []string{"flows"}},
		{"parts of two hours", flowrow.Range{Since: at(3, 1), Until: at(4, 2)}, []string{"flows"}},
	} {
		r := &recorded{&Store{}, test.Range}
		got := each(r.parts(), func(p part) string {
			if p.rolled {
				return "tuples"
			}
			return "flows"
		})
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", test.fact, got, test.want)
		}
	}
}
