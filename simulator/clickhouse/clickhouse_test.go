package clickhouse

import (
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

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
	evil := "x'--"
	ends := strings.Join([]string{evil + "/*", "shop/" + evil, evil + "/" + evil + "/" + evil, evil + "/pod/" + evil, "10.0.0.0/9", "world"}, " ")
	f := question{
		either: ends, from: ends, to: ends, ports: "80", verdicts: "deny unknown",
		hits:  evil + " " + evil + "/" + evil + " " + evil + "/" + evil + "/" + evil + " tier:" + evil,
		since: time.Unix(1, 0), until: time.Unix(2, 0),
	}.filter(t)
	f.Formats = []string{evil}
	for _, modern := range []bool{false, true} {
		s := &Store{schema: schema{modern: modern}}
		c := s.conditions(f)
		if strings.Contains(c.text, evil) {
			t.Error(c.text)
		}
		if got := strings.Count(c.text, "?"); got != len(c.arguments) {
			t.Errorf("%d question marks and %d arguments", got, len(c.arguments))
		}
	}
	for _, test := range []struct {
		fact string
		question
		want []any
	}{
		{"nothing asked", question{}, nil},
		{"all of one of two", question{either: "world 10.0.0.0/8", ports: "any"}, []any{
			"TCP", uint16(1), uint16(65535), "UDP", uint16(1), uint16(65535), "SCTP", uint16(1), uint16(65535),
			uint32(0x0a000000), uint32(0x0affffff), uint32(0x0a000000), uint32(0x0affffff),
		}},
		{"half a network", question{from: "10.128.0.0/9"}, []any{uint32(0x0a800000), uint32(0x0affffff)}},
		{"half a network of IPv6", question{to: "2001:db8::/33"}, []any{"20010DB8000000000000000000000000", "20010DB87FFFFFFFFFFFFFFFFFFFFFFF"}},
		{"all networks", question{to: "0.0.0.0/0"}, []any{uint32(0), uint32(0xffffffff)}},
		{"unknown or not said", question{verdicts: "unknown"}, []any{"unknown", ""}},
	} {
		c := (&Store{}).conditions(test.filter(t))
		if diff := gocmp.Diff(test.want, c.arguments); diff != "" {
			t.Errorf("%s: %s", test.fact, diff)
		}
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
		r := &recorded{Store: &Store{}, Range: test.Range}
		got := each(r.parts(always), func(p part) string {
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
