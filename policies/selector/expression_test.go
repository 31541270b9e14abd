package selector

import "testing"

func TestExpressions(t *testing.T) {
	web, old, hasTier := Label("app", "web"), Where("rev", StartsWith, "old-"), Where("tier", Exists)
	for _, tt := range []struct {
		name     string
		selector Selector
		prints   string
		matches  []map[string]string
		not      []map[string]string
	}{
		{
			"or", Or(web, hasTier), `app == "web" || has(tier)`,
			[]map[string]string{{"app": "web"}, {"tier": ""}},
			[]map[string]string{nil, {"app": "db"}},
		},
		{
			"not or", Not(Or(web, hasTier)), `app notin (web),!tier`,
			[]map[string]string{nil, {"app": "db"}},
			[]map[string]string{{"app": "web"}, {"tier": ""}},
		},
		{
			"and of or", And(Or(web, hasTier), Not(old)), `!rev starts with "old-" && (app == "web" || has(tier))`,
			[]map[string]string{{"app": "web"}, {"app": "web", "rev": "new"}},
			[]map[string]string{{"app": "web", "rev": "old-1"}},
		},
		{"same twice", Or(web, web), `app=web`, []map[string]string{{"app": "web"}}, []map[string]string{nil}},
		{"nothing", And(web, Selector{}), `nothing`, nil, []map[string]string{nil, {"app": "web"}}},
		{"in nothing", Or(Where("a", In), Selector{}), `nothing`, nil, []map[string]string{nil, {"a": ""}}},
		{"everything", Or(web, Everything()), `all`, []map[string]string{nil}, nil},
		{"a value with a comma", Label("a", "x,b"), `a == "x,b"`, []map[string]string{{"a": "x,b"}}, []map[string]string{{"a": "x", "b": ""}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.selector.String(); got != tt.prints {
				t.Errorf("prints %s, want %s", got, tt.prints)
			}
			for _, labels := range tt.matches {
				if !tt.selector.Matches(labels) {
					t.Errorf("does not match %v", labels)
				}
			}
			for _, labels := range tt.not {
				if tt.selector.Matches(labels) {
					t.Errorf("matches %v", labels)
				}
			}
		})
	}
}
