package flowlog

import (
	"encoding/json"
	"testing"

	"github.com/weir-policy/weir/policies"
)

func TestPolicyHits(t *testing.T) {
	hit := func(tier, kind, namespace, name string, action policies.Action, rule int) policies.Hit {
		h := policies.Hit{Tier: tier, Policy: policies.Ref{Kind: kind, Namespace: namespace, Name: name}, Action: action, Rule: rule}
		switch kind {
		case "StagedNetworkPolicy", "StagedGlobalNetworkPolicy", "StagedKubernetesNetworkPolicy":
			h.Staged = true
			h.Policy.Group = policies.CalicoGroup
		case "GlobalNetworkPolicy", "Profile":
			h.Policy.Group = policies.CalicoGroup
		}
		return h
	}
	calico := func(h policies.Hit) policies.Hit {
		h.Policy.Group = policies.CalicoGroup
		return h
	}
	const allow, deny, pass = policies.ActionAllow, policies.ActionDeny, policies.ActionPass
	rows := []struct {
		text string
		want policies.Hit
	}{
		// Before Calico 3.32.
		{"0|security|security.dns|allow|0", hit("security", "GlobalNetworkPolicy", "", "security.dns", allow, 0)},
		{"4|security|shop/security.db|pass|2", calico(hit("security", "NetworkPolicy", "shop", "security.db", pass, 2))},
		{"1|default|shop/knp.default.db|deny|-1", hit("default", "NetworkPolicy", "shop", "db", deny, policies.EndOfTier)},
		{"1|default|shop/staged:knp.default.db|deny|0", hit("default", "StagedKubernetesNetworkPolicy", "shop", "db", deny, 0)},
		{"1|security|security.staged:dns|deny|0", hit("security", "StagedGlobalNetworkPolicy", "", "security.dns", deny, 0)},
		{"1|security|security.staged:security.dns|deny|0", hit("security", "StagedGlobalNetworkPolicy", "", "security.dns", deny, 0)},
		{"1|security|staged:security.dns|deny|0", hit("security", "StagedGlobalNetworkPolicy", "", "security.dns", deny, 0)},
		{"1|security|shop/security.staged:db|deny|-1", hit("security", "StagedNetworkPolicy", "shop", "security.db", deny, policies.EndOfTier)},
		{"2|adminnetworkpolicy|kanp.adminnetworkpolicy.base|pass|1", hit("adminnetworkpolicy", "AdminNetworkPolicy", "", "base", pass, 1)},
		{"2|baselineadminnetworkpolicy|kbanp.baselineadminnetworkpolicy.default|deny|1", hit("baselineadminnetworkpolicy", "BaselineAdminNetworkPolicy", "", "default", deny, 1)},
		{"1|__PROFILE__|__PROFILE__.kns.shop|allow|0", hit("", "Profile", "", "kns.shop", allow, 0)},
		{"0|__PROFILE__|__PROFILE__.__NO_MATCH__|deny|0", policies.Hit{Action: deny, Rule: policies.EndOfTier}},
		{"0|security|security.__NO_MATCH__|deny|0", policies.Hit{Tier: "security", Action: deny, Rule: policies.EndOfTier}},
		{"1|default|shop/default.db|allow|-", calico(hit("default", "NetworkPolicy", "shop", "default.db", allow, policies.UnknownRule))},
		// Since.
		{"0|security|gnp:dns|allow|0", hit("security", "GlobalNetworkPolicy", "", "dns", allow, 0)},
		{"0|security|np:shop/db.with.dots|allow|-2", calico(hit("security", "NetworkPolicy", "shop", "db.with.dots", allow, policies.UnknownRule))},
		{"0|security|sgnp:dns|deny|10", hit("security", "StagedGlobalNetworkPolicy", "", "dns", deny, 10)},
		{"0|security|snp:shop/db|deny|-1", hit("security", "StagedNetworkPolicy", "shop", "db", deny, policies.EndOfTier)},
		{"0|default|sknp:shop/db|deny|0", hit("default", "StagedKubernetesNetworkPolicy", "shop", "db", deny, 0)},
		{"0|default|knp:shop/db|allow|0", hit("default", "NetworkPolicy", "shop", "db", allow, 0)},
		{"0|kube-admin|kcnp:base|pass|4", hit("kube-admin", "ClusterNetworkPolicy", "", "base", pass, 4)},
		{"1|__PROFILE__|pro:kns.shop|allow|0", hit("", "Profile", "", "kns.shop", allow, 0)},
		{"0|__PROFILE__|pro:__NO_MATCH__|deny|0", policies.Hit{Action: deny, Rule: policies.EndOfTier}},
		{"1|default|eot:|deny|-1", policies.Hit{Tier: "default", Action: deny, Rule: policies.EndOfTier}},
	}
	for _, row := range rows {
		trace, err := json.Marshal(map[string][]string{"enforced_policies": {row.text}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := readTrace(trace)
		if err != nil {
			t.Errorf("%s: %v", row.text, err)
			continue
		}
		equal(t, got, []policies.Hit{row.want})
	}
}

func TestBadPolicyHits(t *testing.T) {
	rows := []struct{ text, want string }{
		{"0|default|gnp:dns|allow|0|more", "it has 6 parts, and not index|tier|name|action|rule"},
		{"0|default|gnp:dns|allow", "it has 4 parts, and not index|tier|name|action|rule"},
		{"", "it has 1 parts, and not index|tier|name|action|rule"},
		{"x|default|gnp:dns|allow|0", `index "x" is no whole number`},
		{"-1|default|gnp:dns|allow|0", `index "-1" is no whole number`},
		{"0||gnp:dns|allow|0", `"" is no tier`},
		{"0|de_fault|gnp:dns|allow|0", `"de_fault" is no tier`},
		{"0|__PROFILE__|gnp:dns|allow|0", `"__PROFILE__" is no tier`},
		{"0|default|pro:kns.shop|allow|0", `"default" is no tier`},
		{"0|default|gnp:|allow|0", `"" is no name of a policy`},
		{"0|default|gnp:a@b|allow|0", `"a@b" is no name of a policy`},
		{"0|default|shop/|allow|0", `"" is no name of a policy`},
		{"0|default|np:dns|allow|0", `"" is no namespace, and CalicoNetworkPolicy has one`},
		{"0|default|np:sh op/dns|allow|0", `"sh op" is no namespace, and CalicoNetworkPolicy has one`},
		{"0|default|gnp:shop/dns|allow|0", `GlobalNetworkPolicy has no namespace, and this one has "shop"`},
		{"0|default|xnp:dns|allow|0", `"xnp" is no kind of policy`},
		{"0|default|:dns|allow|0", `"" is no kind of policy`},
		{"0|__PROFILE__|kns.shop|allow|0", `"" is no kind of policy`},
		{"0|default|gnp:dns|log|0", `action "log" is none of allow, deny, pass`},
		{"0|default|gnp:dns||0", `action "" is none of allow, deny, pass`},
		{"0|default|gnp:dns|allow|x", `rule "x" is no number`},
		{"0|default|gnp:dns|allow|", `rule "" is no number`},
		{"0|default|gnp:dns|allow|-3", `rule -3 is below -2`},
	}
	for _, row := range rows {
		trace, err := json.Marshal([]string{row.text})
		if err != nil {
			t.Fatal(err)
		}
		_, err = readTrace(trace)
		want := `policy "` + row.text + `": ` + row.want
		if err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %s", row.text, err, want)
		}
	}
}

// A trace is in the order of its indices; what is staged comes last, and once.
func TestPolicyTrace(t *testing.T) {
	rows := []struct {
		name, trace string
		want        []string
	}{
		{"in order", `{"enforced_policies":["1|default|knp:shop/db|allow|0","0|security|gnp:dns|pass|0"]}`, []string{"dns", "shop/db"}},
		{"enforced rather than all", `{"all_policies":["0|a|gnp:all|allow|0"],"enforced_policies":["0|a|gnp:enforced|allow|0"]}`, []string{"enforced"}},
		{"all where that is all", `{"all_policies":["0|a|gnp:all|allow|0"],"enforced_policies":[],"pending_policies":null}`, []string{"all"}},
		{"on the way", `{"enforced_policies":["0|a|gnp:b|allow|0"],"transit_policies":["0|a|gnp:way|allow|0"]}`, []string{"b", "way"}},
		{"pending are those that are staged", `{"enforced_policies":["0|a|gnp:b|allow|0"],"pending_policies":["0|a|sgnp:new|deny|0","1|a|gnp:b|allow|0"]}`, []string{"b", "new"}},
		{"and no others", `{"all_policies":["0|a|sgnp:new|deny|0","1|a|gnp:b|allow|0"],"pending_policies":["0|a|sgnp:new|deny|0"]}`, []string{"new", "b"}},
		{"none", `{}`, nil},
		{"a list", `["0|a|gnp:b|allow|0"]`, []string{"b"}},
		{"Goldmane's, zero where absent", `{"enforced":[{"kind":"GlobalNetworkPolicy","tier":"a","name":"b","action":"Allow"}]}`, []string{"b"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			hits, err := readTrace([]byte(row.trace))
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, h := range hits {
				names = append(names, h.Policy.String())
			}
			equal(t, names, row.want)
		})
	}
	for trace, want := range map[string]string{
		`{"enforced":[{"kind":"GlobalNetworkPolicy","tier":"a","name":"b","namespace":"c","action":1}]}`: `policy "b": GlobalNetworkPolicy has no namespace, and this one has "c"`,
		`{"enforced":[{"kind":99,"tier":"a","name":"b","action":1}]}`:                                    `policy "b": "99" is no kind of policy`,
		`{"enforced":[{"kind":2,"tier":"a","name":"b"}]}`:                                                `policy "b": action "" is none of allow, deny, pass`,
		`{"enforced":[{"kind":2,"tier":"a","name":"b","action":1,"rule_index":"x"}]}`:                    `rule_index "x" is no rule's number`,
		`{"enforced":[7]}`: `field enforced cannot be a number`,
		`"x"`:              `field policies cannot be a string`,
	} {
		if _, err := readTrace([]byte(trace)); err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %s", trace, err, want)
		}
	}
}
