package k8s

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/rego"
)

func readInvariants(text string) ([]invariant.Invariant, error) {
	docs, err := Parse("i.yaml", []byte(text))
	if err != nil {
		return nil, err
	}
	return ReadInvariants(docs, rego.Program)
}

const sound = `
apiVersion: weir.dev/v1alpha1
kind: Invariant
metadata: {name: db}
spec:
  description: only payments reaches the database
  owner: team-payments
  links: [https://runbooks.example.com/payments]
  severity: warn
  adopt: true
  only:
    from: [{namespaceSelector: {matchLabels: {team: payments}}, not: {podSelector: {matchLabels: {app: web}}}}]
    to: [{namespaceSelector: {matchLabels: {team: payments}}, podSelector: {matchLabels: {app: db}}, serviceAccounts: [db]}]
    ports: [5432, UDP/53, metrics]
  waivers:
  - {reason: migration, owner: ann, until: 2027-01-31, from: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}, {set: ops/legacy}, {set: legacy}]}
---
kind: List
items:
- apiVersion: weir.dev/v1alpha1
  kind: Invariant
  metadata: {name: isolated}
  spec: {isolated: {pods: [{namespaceSelector: {}}], directions: [ingress]}}
- apiVersion: weir.dev/v1alpha1
  kind: Invariant
  metadata: {name: expression}
  spec: {cel: 'policies.all(p, p.name != "")'}
- apiVersion: weir.dev/v1alpha1
  kind: Invariant
  metadata: {name: program}
  spec: {rego: 'deny contains p.name if { some p in data.weir.world.pods; not p.ingressIsolated }'}
- apiVersion: weir.dev/v1alpha1
  kind: Invariant
  metadata: {name: quiet}
  spec: {severity: audit, only: {from: [{podSelector: {matchLabels: {app: web}}}], to: [{anyone: true}, {not: {outside: true}}, {nodes: {}}], direction: egress}}
---
apiVersion: v1
kind: Namespace
metadata: {name: payments}
`

func TestReadInvariants(t *testing.T) {
	all, err := readInvariants(sound)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	texts := func(matches []policies.Match) string {
		var all []string
		for _, m := range matches {
			all = append(all, m.String())
		}
		return strings.Join(all, " | ")
	}
	for _, i := range all {
		line := i.Ref.Name + " " + i.Severity.String() + " " + i.Form.String() + " at " + i.FormPlace.String() + ": " + texts(i.From) + " -> " + texts(i.To)
		for _, p := range i.Ports {
			line += " " + p.Name + p.Ports.String()
		}
		for _, w := range i.Waivers {
			line += "; waived for " + w.Reason + " by " + w.Owner + " until " + w.Until.Format("2 Jan 2006") + " " + texts(w.From) + texts(w.To) + " at " + w.Place.String()
		}
		got = append(got, line)
	}
	const outside = "except all pods in all namespaces and all nodes"
	want := []string{
		"db warn only at i.yaml:12:5: all pods in namespaces team=payments except pods app=web in all namespaces -> pods app=db in namespaces team=payments among endpoints projectcalico.org/serviceaccount == \"db\"" +
			" TCP/5432 UDP/53 metricsnone; waived for migration by ann until 31 Jan 2027 10.0.0.0/8 except 10.1.0.0/16 " + outside + " | NetworkSet ops/legacy " + outside + " | GlobalNetworkSet legacy " + outside + " at i.yaml:16:5",
		"isolated deny isolated at i.yaml:23:20: all pods in all namespaces -> ",
		"expression deny cel at i.yaml:27:15:  -> ",
		"program deny rego at i.yaml:31:16:  -> ",
		"quiet audit only at i.yaml:35:33: pods app=web in all namespaces -> all pods in all namespaces or 0.0.0.0/0 or ::/0 " + outside +
			" | all pods in all namespaces or 0.0.0.0/0 or ::/0 " + outside + " except 0.0.0.0/0 or ::/0 " + outside + " | all nodes",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestInvariantProblems(t *testing.T) {
	const head = "apiVersion: weir.dev/v1alpha1\nkind: Invariant\nmetadata: {name: a}\n"
	const peers = "from: [{anyone: true}], to: [{podSelector: {}}]"
	for _, row := range []struct{ name, text, want string }{
		{"no spec", head, `i.yaml:1:1: Invariant needs spec; write the sentence there`},
		{"no form", head + "spec: {owner: me}", `i.yaml:4:7: an Invariant needs one of never, always, only, isolated, exists, cel, rego`},
		{"two forms", head + "spec: {never: {" + peers + "}, always: {" + peers + "}}", `i.yaml:4:66: an Invariant takes exactly one of never, always, only, isolated, exists, cel, rego, not never and always; make an Invariant of each`},
		{"a misspelt form", head + "spec: {nevr: {" + peers + "}}", `i.yaml:4:8: spec has no field "nevr"; did you mean "never"?`},
		{"an empty form", head + "spec: {never: }", `i.yaml:4:8: never is empty; say what it is about`},
		{"a severity", head + "spec: {severity: dney, never: {" + peers + "}}", `i.yaml:4:18: severity "dney" is none of deny, warn, audit; did you mean "deny"?`},
		{"a peer that is nobody", head + "spec: {never: {from: [{}], to: []}}", `i.yaml:4:23: a peer describes nobody; give it namespaceSelector, podSelector, serviceAccounts, cidr, outside, set, nodes, anyone
i.yaml:4:32: to is empty; it takes at least one item`},
		{"one end is missing", head + "spec: {exists: {from: [{anyone: true}]}}", `i.yaml:4:16: exists needs to; say where the connections lead; anyone: true is everywhere`},
		{"bits behind the prefix", head + "spec: {never: {from: [{cidr: 10.0.0.7/8, except: [\"fd00::1/8\"]}], to: [{anyone: true}]}}", `i.yaml:4:30: CIDR 10.0.0.7/8 has bits set behind its prefix; write 10.0.0.0/8, or 10.0.0.7/32 for the one address
i.yaml:4:51: CIDR fd00::1/8 has bits set behind its prefix; write fd00::/8, or fd00::1/128 for the one address`},
		{"two kinds of peer", head + "spec: {never: {from: [{podSelector: {}, cidr: 10.0.0.0/8}], to: [{anyone: true}]}}", `i.yaml:4:47: a peer takes podSelector or cidr, not both; make two peers of it`},
		{
			"a selector", head + "spec: {never: {from: [{podSelector: {matchLabel: {a: b}}}], to: [{namespaceSelector: {matchExpressions: [{key: a, operator: Is}]}}]}}",
			`i.yaml:4:38: podSelector has no field "matchLabel"; did you mean "matchLabels"?
i.yaml:4:125: operator "Is" is none of In, NotIn, Exists, DoesNotExist`,
		},
		{
			"a nested not", head + "spec: {never: {from: [{not: {not: {anyone: true}}}], to: [{anyone: false}]}}",
			`i.yaml:4:30: not has no field "not"; it takes namespaceSelector, podSelector, serviceAccounts, cidr, outside, set, nodes, anyone, except
i.yaml:4:68: anyone takes true only; leave it out otherwise`,
		},
		{
			"ports", head + "spec: {never: {" + peers + ", ports: [70000, TCP/9-8, \"\", []]}}",
			`i.yaml:4:73: port "70000": 70000 is not between 1 and 65535
i.yaml:4:80: port "TCP/9-8": the range ends before it begins
i.yaml:4:89: the port is empty: give 5432, UDP/53, TCP/8000-8100, a port's name, or any
i.yaml:4:93: an item of ports wants text, found a list`,
		},
		{
			"an isolation of addresses", head + "spec: {isolated: {pods: [{outside: true}], directions: [in]}}",
			`i.yaml:4:27: isolated is about pods, and outside describes others; describe pods by their labels
i.yaml:4:57: an item of directions "in" is none of egress, ingress`,
		},
		{
			"waivers", head + "spec: {never: {" + peers + "}, waivers: [{reason: '', until: tomorrow}, {reason: x, owner: me, until: 2027-02-30, too: 1}]}",
			`i.yaml:4:76: a waiver needs owner; say who asked for it
i.yaml:4:85: reason is empty; a waiver needs one
i.yaml:4:96: until "tomorrow" is not a day such as 2027-01-31
i.yaml:4:137: until "2027-02-30" is not a day such as 2027-01-31
i.yaml:4:149: a waiver has no field "too"; did you mean "to"?`,
		},
		{
			"a namespace", "apiVersion: weir.dev/v1alpha1\nkind: Invariant\nmetadata: {name: a, namespace: b}\nspec: {never: {" + peers + "}}",
			`i.yaml:3:32: an Invariant is cluster-wide; leave out the namespace, and name it in a namespaceSelector`,
		},
		{"a kind", "apiVersion: weir.dev/v1alpha1\nkind: Invarient\nmetadata: {name: a}", `i.yaml:2:7: kind Invarient is not of weir.dev/v1alpha1; did you mean "Invariant"?`},
		{"a version", "apiVersion: weir.dev/v1\nkind: Invariant\nmetadata: {name: a}", `i.yaml:1:13: Invariant is not of weir.dev/v1; write "apiVersion: weir.dev/v1alpha1"`},
		{"the same name", head + "spec: {never: {" + peers + "}}\n---\n" + head + "spec: {never: {" + peers + "}}", `i.yaml:6:1: Invariant a is given twice, first at i.yaml:1:1; remove one`},
		{"an expression on one line", head + "spec:\n  cel: polices.all(p, true)", `i.yaml:5:8: cel: there is no value polices; did you mean policies?`},
		{"an expression in quotes", head + "spec: {cel: 'pods.all(p, p.labls == {})'}", `i.yaml:4:28: cel: no field labls in Pod; did you mean labels?`},
		{"an expression in a block", head + "spec:\n    cel: |\n      pods.all(p,\n        p.nam == 'a')\n", `i.yaml:7:11: cel: no field nam in Pod; did you mean name?`},
		{"an expression in a folded block", head + "spec:\n    cel: >-\n      pods.all(p,\n      p.nam == 'a')\n", `i.yaml:7:9: cel: no field nam in Pod; did you mean name?`},
		{"Rego in a block", head + "spec:\n  rego: |\n    package a\n\n    deny contains msg if true\n", `i.yaml:8:19: rego: var msg is unsafe`},
		{
			"Rego without a package", head + "spec:\n    rego: |-\n      deny contains \"x\" if true\n      deny contains \"y\" if http.send({}).x\n",
			`i.yaml:7:28: rego: http.send is not for invariants: they ask about the world that is checked, and nothing else`,
		},
		{"Rego on one line", head + "spec: {rego: 'deny contains x'}", `i.yaml:4:29: rego: var x is unsafe`},
		{"Rego that does not parse", head + "spec:\n  rego: |\n    package a\n\n    deny contains if {\n", `i.yaml:8:19: rego: unexpected if keyword
i.yaml:9:5: rego: unexpected eof token`},
		{"Rego that asks nothing", head + "spec: {rego: 'package a'}", `i.yaml:4:15: rego: there is no rule deny or violation; say what breaks the invariant, as in: deny contains "…" if { … }`},
		{"no Rego", head + "spec: {rego: ''}", `i.yaml:4:14: rego is empty; write a module with a rule deny`},
		{"too much Rego", head + "spec: {rego: '" + strings.Repeat("#", 17000) + "'}", `i.yaml:4:14: rego has 17000 characters, more than the 16384 that the API server takes; shorten it`},
		{"an expression that is a number", head + "spec: {cel: size(pods)}", `i.yaml:4:13: cel is a int; it must be a bool, or a list of the Connections or texts that break the invariant`},
		{"an expression about flows", head + "spec:\n  cel: flows.all(f, true)", `i.yaml:5:8: cel uses flows, which no invariant is about: what was recorded changes from day to day`},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := readInvariants(row.text)
			if err == nil {
				t.Fatal("no problem")
			}
			var got []string
			for _, line := range strings.Split(err.Error(), "\n") {
				if !strings.HasPrefix(line, "    ") { // the expression itself
					got = append(got, line)
				}
			}
			if diff := cmp.Diff(row.want, strings.Join(got, "\n")); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func FuzzReadInvariants(f *testing.F) {
	f.Add([]byte(sound))
	f.Add([]byte("apiVersion: weir.dev/v1alpha1\nkind: Invariant\nmetadata: {name: a}\nspec: {cel: >\n\n  a\n  b, never: {from: {}, to: [1, ~, {not: []}]}, waivers: [[]], isolated: {pods: 1}}"))
	f.Add([]byte("apiVersion: weir.dev/v1alpha1\nkind: Invariant\nmetadata: {name: a}\nspec:\n  cel: |\n\n   pods.x\n  only: {from: [{set: a/b/c, cidr: 1, serviceAccounts: [A, A]}]}"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		docs, _ := Parse("i.yaml", data)
		_, _ = ReadInvariants(docs, rego.Program)
	})
}
