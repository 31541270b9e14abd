package k8s_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
)

type m = map[string]any

// likely draws one of these, the first most often.
func likely[T any](t *rapid.T, label string, of ...T) T {
	if rapid.IntRange(0, 2).Draw(t, label+"?") > 0 {
		return of[0]
	}
	return rapid.SampledFrom(of).Draw(t, label)
}

// draw makes objects of every kind that has a bearing on policy.
type draw struct{ *rapid.T }

func (t draw) one(of ...any) any { return rapid.SampledFrom(of).Draw(t.T, "one") }

func (t draw) name() string { return rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t.T, "name") }

func (t draw) labels() m {
	l := m{}
	for _, key := range []string{"app", "team", "pcns.team", "projectcalico.org/namespace"} {
		if rapid.IntRange(0, 3).Draw(t.T, "has") == 0 {
			l[key] = t.name()
		}
	}
	return l
}

func (t draw) calicoSelector() any {
	return t.one("all()", "app == 'x'", "team in {'x', 'y'}", "!has(app)", "")
}

func (t draw) owners() []any {
	if rapid.Bool().Draw(t.T, "bare") {
		return nil
	}
	return []any{m{"kind": t.one("Deployment", "ReplicaSet", "Job", "CronJob", "Foo"), "name": t.one("x", "y", "z", "x-h1"), "controller": true}}
}

func (t draw) podSpec() m {
	spec := m{"containers": []any{m{"ports": []any{m{"name": t.one("http", "db"), "containerPort": t.one(80, 5432)}}}}}
	if rapid.IntRange(0, 3).Draw(t.T, "host") == 0 {
		spec["hostNetwork"] = true
	}
	if rapid.Bool().Draw(t.T, "node") {
		spec["nodeName"] = t.name()
	}
	if rapid.Bool().Draw(t.T, "account") {
		spec["serviceAccountName"] = t.name()
	}
	return spec
}

func (t draw) spec(kind string) m {
	rules := []any{m{}}
	switch kind {
	case "Node":
		return m{"podCIDRs": []any{t.one("10.1.0.0/24", "10.2.0.0/24", "fd00::/64")}}
	case "Service":
		spec := m{"selector": t.one(m{"app": "x"}, m{"team": "y"}, nil), "ports": []any{m{"port": 80, "targetPort": t.one(8080, "http")}}}
		if rapid.IntRange(0, 4).Draw(t.T, "external") == 0 {
			spec["type"], spec["externalName"] = "ExternalName", "example.com"
		}
		return spec
	case "Pod":
		return t.podSpec()
	case "Deployment", "ReplicaSet", "Job":
		return m{"replicas": t.one(0, 1, 3), "template": m{"metadata": m{"labels": t.labels()}, "spec": t.podSpec()}}
	case "NetworkPolicy", "StagedKubernetesNetworkPolicy":
		return m{
			"podSelector": t.one(m{}, m{"matchLabels": m{"app": "x"}}), "policyTypes": []any{"Ingress", "Egress"},
			"ingress": t.one([]any{}, rules, []any{m{"from": []any{m{"namespaceSelector": m{"matchLabels": m{"team": "x"}}}}}}),
		}
	case "ClusterNetworkPolicy":
		return m{
			"tier": t.one("Admin", "Baseline"), "priority": t.one(1, 2, 2, 3), "subject": m{"namespaces": m{}},
			"ingress": []any{m{"action": t.one("Accept", "Deny", "Pass"), "from": []any{m{"namespaces": m{"matchLabels": m{"team": "x"}}}}}},
		}
	case "AdminNetworkPolicy":
		return m{
			"priority": t.one(1, 2, 2, 3), "subject": m{"namespaces": m{}},
			"ingress": []any{m{"action": t.one("Allow", "Deny", "Pass"), "from": []any{m{"namespaces": m{"matchLabels": m{"team": "x"}}}}}},
		}
	case "CalicoNetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy":
		spec := m{"selector": t.calicoSelector(), "order": t.one(nil, 1, 1, 2.5), "types": []any{"Ingress", "Egress"}}
		if tier := t.one("default", "default", "x", "y"); tier != "default" {
			spec["tier"] = tier
		}
		spec["egress"] = []any{
			m{"action": t.one("Allow", "Deny", "Pass", "Log"), "destination": m{"services": m{"name": t.name(), "namespace": t.name()}}},
			m{"action": "Allow", "destination": m{"selector": t.calicoSelector(), "namespaceSelector": t.one("team == 'x'", "all()")}},
		}
		if strings.Contains(kind, "Global") && rapid.IntRange(0, 2).Draw(t.T, "hook") == 0 {
			spec["applyOnForward"] = true
			spec[t.one("doNotTrack", "preDNAT").(string)] = true
			spec["types"], spec["egress"] = []any{"Ingress"}, nil
		}
		if strings.HasPrefix(kind, "Staged") && rapid.IntRange(0, 2).Draw(t.T, "delete") == 0 {
			return m{"stagedAction": "Delete", "tier": t.one("default", "x")}
		}
		return spec
	case "Tier":
		return m{"order": t.one(nil, 1, 2), "defaultAction": t.one("Deny", "Pass", nil)}
	case "NetworkSet", "GlobalNetworkSet":
		return m{"nets": []any{t.one("10.0.0.0/8", "192.0.2.1", "2001:db8::/32")}}
	case "HostEndpoint":
		return m{
			"node": t.name(), "interfaceName": t.one("*", "eth0"), "expectedIPs": []any{t.one("192.168.0.1", "192.168.0.9")},
			"profiles": []any{t.name(), "kns.x"},
		}
	case "Profile":
		return m{"labelsToApply": t.labels(), "ingress": []any{m{"action": "Allow"}}, "egress": []any{m{"action": "Deny"}}}
	}
	return m{}
}

// kinds are the apiVersions and kinds that are drawn, most of them several times.
var drawn = []struct {
	version, kind string
	namespaced    bool
}{
	{"v1", "Namespace", false},
	{"v1", "Node", false},
	{"v1", "Pod", true},
	{"v1", "Pod", true},
	{"v1", "Pod", true},
	{"v1", "Service", true},
	{"v1", "ServiceAccount", true},
	{"apps/v1", "Deployment", true},
	{"apps/v1", "ReplicaSet", true},
	{"batch/v1", "Job", true},
	{"v1", "Secret", true},
	{"networking.k8s.io/v1", "NetworkPolicy", true},
	{"networking.k8s.io/v1", "NetworkPolicy", true},
	{"policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", false},
	{"policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", false},
	{"cilium.io/v2", "CiliumNetworkPolicy", true},
	{"kuma.io/v1", "MeshTrafficPermission", true},
	{"k8s.cni.cncf.io/v1", "MultiNetworkPolicy", true},
	{"projectcalico.org/v3", "NetworkPolicy", true},
	{"projectcalico.org/v3", "GlobalNetworkPolicy", false},
	{"projectcalico.org/v3", "Tier", false},
	{"projectcalico.org/v3", "StagedNetworkPolicy", true},
	{"projectcalico.org/v3", "StagedGlobalNetworkPolicy", false},
	{"projectcalico.org/v3", "StagedKubernetesNetworkPolicy", true},
	{"projectcalico.org/v3", "NetworkSet", true},
	{"projectcalico.org/v3", "GlobalNetworkSet", false},
	{"projectcalico.org/v3", "HostEndpoint", false},
	{"crd.projectcalico.org/v1", "Profile", false},
	{"projectcalico.org/v3", "FelixConfiguration", false},
}

func (t draw) object(calico bool) m {
	all := drawn
	if !calico {
		all = slices.DeleteFunc(slices.Clone(all), func(k struct {
			version, kind string
			namespaced    bool
		},
		) bool {
			return strings.Contains(k.version, "calico")
		})
	}
	k := rapid.SampledFrom(all).Draw(t.T, "kind")
	meta := m{"name": t.name(), "labels": t.labels()}
	if k.namespaced {
		meta["namespace"] = t.name()
	}
	o := m{"apiVersion": k.version, "kind": k.kind, "metadata": meta}
	kind := k.kind
	if k.kind == "NetworkPolicy" && strings.Contains(k.version, "calico") {
		kind = "CalicoNetworkPolicy"
	}
	switch k.kind {
	case "NetworkSet", "GlobalNetworkSet":
		delete(meta["labels"].(m), "projectcalico.org/namespace")
	case "Pod", "ReplicaSet", "Job":
		meta["ownerReferences"] = t.owners()
		if k.kind == "Pod" && rapid.Bool().Draw(t.T, "hash") {
			meta["labels"].(m)["pod-template-hash"] = "h1"
		}
	}
	if k.kind == "Pod" {
		o["status"] = m{"phase": t.one("Running", "Running", "Pending", "Succeeded"), "podIP": t.one("10.1.0.1", "192.168.0.1", "")}
	}
	if k.kind == "Node" {
		o["status"] = m{"addresses": []any{m{"type": "InternalIP", "address": t.one("192.168.0.1", "192.168.0.2")}}}
	}
	if spec := t.spec(kind); len(spec) > 0 {
		o["spec"] = spec
	}
	return o
}

func document(t require, o m) k8s.Document {
	t.Helper()
	text, err := json.MarshalIndent(o, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	meta := o["metadata"].(m)
	docs, err := k8s.Parse(fmt.Sprintf("%s/%s/%v/%s", o["apiVersion"], o["kind"], meta["namespace"], meta["name"]), text)
	if err != nil || len(docs) != 1 {
		t.Fatal(len(docs), err)
	}
	return docs[0]
}

type require interface {
	Helper()
	Fatal(args ...any)
	Errorf(format string, args ...any)
}

func entry(t require, d k8s.Document, o k8s.Options) *k8s.Entry {
	t.Helper()
	e, err := k8s.ReadEntry(d, o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

var same = cmp.Options{
	cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}),
	cmp.Comparer(func(a, b netset.Ports) bool { return a.Equal(b) }),
	cmp.Comparer(func(a, b selector.Selector) bool { return a.Key() == b.Key() }),
}

// dense returns the model with priorities that have no gaps.
func dense(m *policies.Model) *policies.Model {
	ranks := map[string][]int{}
	all := slices.Clone(m.Policies)
	staged := slices.Clone(m.Staged)
	each := func(do func(p *policies.Policy)) {
		for i := range all {
			do(&all[i])
		}
		for i := range staged {
			do(&staged[i].Policy)
		}
	}
	each(func(p *policies.Policy) { ranks[p.Tier] = append(ranks[p.Tier], p.Priority) })
	for tier, of := range ranks {
		ranks[tier] = slices.Compact(slices.Sorted(slices.Values(of)))
	}
	each(func(p *policies.Policy) { p.Priority = slices.Index(ranks[p.Tier], p.Priority) })
	slices.SortFunc(all, policies.Policy.Compare)
	d := *m
	d.Policies, d.Staged = all, staged
	return &d
}

func TestStoreIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := k8s.Options{CalicoVersion: likely(t, "version", "", "3.29"), PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}}
		withCalico := rapid.Bool().Draw(t, "calico")
		s := k8s.NewStore(o)
		objects := map[k8s.Key]k8s.Document{}
		read := func() *policies.Model {
			want, err := k8s.Read(slices.Collect(maps.Values(objects)), o)
			if err != nil {
				t.Fatal(err)
			}
			return want
		}
		last := read()
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			d := document(t, draw{t}.object(withCalico))
			e := entry(t, d, o)
			if len(e.Problems()) > 0 {
				continue
			}
			before, had := objects[e.Key()]
			switch likely(t, "step", "put", "delete", "try", "model") {
			case "put":
				s.Put(e)
				objects[e.Key()] = d
			case "delete":
				s.Delete(e.Key())
				delete(objects, e.Key())
			case "try":
				objects[e.Key()] = d
				want := dense(read())
				s.Try([]*k8s.Entry{e}, nil, func(c k8s.Change, model func() *policies.Model) {
					checkChange(t, c, last, model())
					if diff := cmp.Diff(want, dense(model()), same); diff != "" {
						t.Errorf("tried: %s", diff)
					}
				})
				delete(objects, e.Key())
				want = dense(read())
				s.Try(nil, []k8s.Key{e.Key()}, func(c k8s.Change, model func() *policies.Model) {
					checkChange(t, c, last, model())
					if diff := cmp.Diff(want, dense(model()), same); diff != "" {
						t.Errorf("tried without: %s", diff)
					}
				})
				if had {
					objects[e.Key()] = before
				}
				continue
			}
			if rapid.Bool().Draw(t, "look") {
				got, c := s.Model()
				if diff := cmp.Diff(dense(read()), dense(got), same); diff != "" {
					t.Errorf("%s", diff)
				}
				checkChange(t, c, last, got)
				last = got
			}
		}
		got, c := s.Model()
		if diff := cmp.Diff(dense(read()), dense(got), same); diff != "" {
			t.Errorf("%s", diff)
		}
		checkChange(t, c, last, got)
		if again, c := s.Model(); again != got || !c.IsEmpty() {
			t.Errorf("a second model without a change between: %v", c)
		}
	})
}

// checkChange compares what a change tells with two models.
func checkChange(t require, c k8s.Change, old, now *policies.Model) {
	t.Helper()
	if c.Whole {
		return
	}
	told := map[string]bool{}
	for _, p := range c.Policies {
		told[p.Ref.Full()] = true
		if !slices.ContainsFunc(now.Policies, func(q policies.Policy) bool { return cmp.Equal(p, q, same) }) {
			t.Errorf("the change tells of %s, which is not so in the model", p.Ref.Full())
		}
	}
	for _, ref := range c.Gone {
		told[ref.Full()] = true
		if slices.ContainsFunc(now.Policies, func(q policies.Policy) bool { return ref == q.Ref }) {
			t.Errorf("%s is said to be gone", ref.Full())
		}
	}
	for _, pair := range [][2]*policies.Model{{old, now}, {now, old}} {
		for _, p := range pair[0].Policies {
			if !told[p.Ref.Full()] && !slices.ContainsFunc(pair[1].Policies, func(q policies.Policy) bool { return cmp.Equal(p, q, same) }) {
				t.Errorf("%s is different, and the change does not tell", p.Ref.Full())
			}
		}
		for _, p := range pair[0].Pods {
			is := slices.ContainsFunc(pair[1].Pods, func(q policies.Pod) bool { return cmp.Equal(p, q, same) })
			if is == slices.Contains(c.Pods, p.Ref) {
				t.Errorf("%s is the same: %v, and told of: %v", p.Ref.Full(), is, !is)
			}
		}
		for _, n := range pair[0].Namespaces {
			is := slices.ContainsFunc(pair[1].Namespaces, func(o policies.Namespace) bool { return cmp.Equal(n, o, same) })
			if !is && !slices.Contains(c.World, policies.Ref{Kind: "Namespace", Name: n.Name}) {
				t.Errorf("namespace %s is different, and the change does not tell", n.Name)
			}
		}
		for _, n := range pair[0].Nodes {
			is := slices.ContainsFunc(pair[1].Nodes, func(o policies.Node) bool { return cmp.Equal(n, o, same) })
			if !is && !slices.Contains(c.World, policies.Ref{Kind: "Node", Name: n.Name}) {
				t.Errorf("node %s is different, and the change does not tell", n.Name)
			}
		}
	}
}

// TestStoreKeepsWhatItCannotRead has one object each that Read refuses, in a
// store with others.
func TestStoreKeepsWhatItCannotRead(t *testing.T) {
	parse := func(text string) k8s.Document {
		docs, err := k8s.Parse("live", []byte(text))
		if err != nil || len(docs) != 1 {
			t.Fatal(len(docs), err)
		}
		return docs[0]
	}
	good := []string{
		"{apiVersion: v1, kind: Namespace, metadata: {name: shop}}",
		"{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {}}",
		"{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: web, namespace: shop}, spec: {podSelector: {}}}",
	}
	tests := []struct{ name, text, opaque, subject, warning string }{
		{
			"a field that is not known makes a policy opaque for its namespace",
			"{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: db, namespace: shop}, spec: {podSelektor: {}}}",
			`it cannot be read: spec has no field "podSelektor"`, "all pods in shop",
			"NetworkPolicy shop/db cannot be read, so answers about what it may apply to are unknown: ",
		},
		{
			"a policy of the whole cluster is opaque for all",
			"{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: db}, spec: {priority: 7}}",
			"it cannot be read: spec needs tier", "all pods in all namespaces", "ClusterNetworkPolicy db cannot be read",
		},
		{
			"one without a spec as well",
			"{apiVersion: policy.networking.k8s.io/v1alpha1, kind: AdminNetworkPolicy, metadata: {name: db}}",
			"it cannot be read: AdminNetworkPolicy db has no spec", "all pods in all namespaces", "AdminNetworkPolicy db cannot be read",
		},
		{
			"one of Calico is for its host endpoints, too",
			"{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: db}, spec: {selector: 'app ='}}",
			"it cannot be read: ", "all endpoints", "GlobalNetworkPolicy db cannot be read",
		},
		{
			"a staged one changes nothing",
			"{apiVersion: projectcalico.org/v3, kind: StagedNetworkPolicy, metadata: {name: db, namespace: shop}, spec: {selector: 'app ='}}",
			"", "", "StagedNetworkPolicy shop/db cannot be read, so it is left out: ",
		},
		{
			"of a pod, what was understood counts",
			"{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop, labels: {app: db}}, spec: {hostNetwork: perhaps}}",
			"", "", "Pod shop/db cannot be read, so what was understood of it counts: ",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := k8s.NewStore(k8s.Options{})
			for _, text := range good {
				s.Put(entry(t, parse(text), k8s.Options{}))
			}
			e := entry(t, parse(test.text), k8s.Options{})
			if len(e.Problems()) == 0 {
				t.Fatal("it has no problems")
			}
			if _, err := k8s.Read([]k8s.Document{parse(test.text)}, k8s.Options{}); err == nil {
				t.Fatal("Read takes it")
			}
			s.Put(e)
			m, _ := s.Model()
			if len(m.Warnings) == 0 || !strings.Contains(m.Warnings[0].Message, test.warning) {
				t.Errorf("warnings %v, want %s", m.Warnings, test.warning)
			}
			found := false
			for _, p := range m.Policies {
				if p.Opaque != "" {
					found = true
					if !strings.HasPrefix(p.Opaque, test.opaque) || p.Subject.String() != test.subject || p.Governs != [2]bool{true, true} {
						t.Errorf("%q for %s", p.Opaque, p.Subject)
					}
				}
			}
			if found != (test.opaque != "") {
				t.Errorf("policies %v", m.Policies)
			}
			s.Delete(e.Key())
			if m, _ := s.Model(); len(m.Warnings) > 0 || len(m.Policies) != 1 || len(m.Pods) != 1 {
				t.Errorf("without it: %v, %d policies, %d pods", m.Warnings, len(m.Policies), len(m.Pods))
			}
		})
	}
}

func TestReadEntryWantsOneObject(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"a list", "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Namespace, metadata: {name: a}}, {apiVersion: v1, kind: Namespace, metadata: {name: b}}]}", "live: 2 objects, want one"},
		{"something else", "{a: b}", "live: 0 objects, want one"},
		{"no name", "{apiVersion: v1, kind: Namespace, metadata: {}}", "Namespace has no metadata.name; give it one"},
		{"no kind", "{apiVersion: networking.k8s.io/v1, metadata: {name: a}}", "needs a kind"},
	}
	for _, test := range tests {
		docs, err := k8s.Parse("live", []byte(test.text))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k8s.ReadEntry(docs[0], k8s.Options{}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", test.name, err, test.want)
		}
	}
}

// Names of kinds leave out most groups, so that a name may be that of two policies.
func TestStoreTellsOfNamesakes(t *testing.T) {
	s := k8s.NewStore(k8s.Options{})
	ours := m{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": m{"name": "web", "namespace": "shop"}, "spec": m{"podSelector": m{}}}
	theirs := m{"apiVersion": "crd.antrea.io/v1beta1", "kind": "NetworkPolicy", "metadata": m{"name": "web", "namespace": "shop"}}
	s.Put(entry(t, document(t, ours), k8s.Options{}))
	_, _ = s.Model()
	foreign := entry(t, document(t, theirs), k8s.Options{})
	s.Put(foreign)
	if model, c := s.Model(); !c.Whole || len(model.Policies) != 2 {
		t.Errorf("one came: %+v", c)
	}
	s.Delete(foreign.Key())
	if model, c := s.Model(); !c.Whole || len(model.Policies) != 1 || model.Policies[0].Opaque != "" {
		t.Errorf("one went: %+v", c)
	}
}
