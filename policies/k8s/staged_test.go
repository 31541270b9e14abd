package k8s_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
)

// manifest is a policy as it is written, staged or enforced.
type manifest struct {
	kind, name, spec string
	staged, deletes  bool
}

var stagedKinds = map[string]string{
	"NetworkPolicy": "StagedKubernetesNetworkPolicy", "CalicoNetworkPolicy": "StagedNetworkPolicy", "GlobalNetworkPolicy": "StagedGlobalNetworkPolicy",
}

func (m manifest) text() string {
	group, kind, spec := "projectcalico.org/v3", strings.TrimPrefix(m.kind, "Calico"), m.spec
	switch {
	case m.deletes:
		kind, spec = stagedKinds[m.kind], "{stagedAction: Delete}"
	case m.staged:
		kind = stagedKinds[m.kind]
	case m.kind == "NetworkPolicy":
		group = "networking.k8s.io/v1"
	}
	namespace := ", namespace: shop"
	if m.kind == "GlobalNetworkPolicy" {
		namespace = ""
	}
	return fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: %s%s}\nspec: %s\n", group, kind, m.name, namespace, spec)
}

// anyManifest is one of a few policies, so that many have the name of another.
func anyManifest(staged bool) *rapid.Generator[manifest] {
	return rapid.Custom(func(t *rapid.T) manifest {
		m := manifest{
			kind:   rapid.SampledFrom([]string{"NetworkPolicy", "CalicoNetworkPolicy", "GlobalNetworkPolicy"}).Draw(t, "kind"),
			name:   rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name"),
			staged: staged, deletes: staged && rapid.Bool().Draw(t, "deletes"),
		}
		if m.kind == "NetworkPolicy" {
			m.spec = "{podSelector: {matchLabels: {app: " + rapid.SampledFrom([]string{"web", "db"}).Draw(t, "app") + "}}, ingress: [{}]}"
			return m
		}
		m.spec = fmt.Sprintf("{tier: %s, %sselector: app == '%s', ingress: [{action: %s}]}",
			rapid.SampledFrom([]string{"default", "security", "nowhere"}).Draw(t, "tier"),
			rapid.SampledFrom([]string{"", "order: 1, ", "order: 2.5, ", "order: 1000, "}).Draw(t, "order"),
			rapid.SampledFrom([]string{"web", "db"}).Draw(t, "app"),
			rapid.SampledFrom([]string{"Allow", "Deny", "Pass"}).Draw(t, "action"))
		return m
	})
}

// TestEnforcingIsWritingDown holds a model with all its staged policies enforced
// against the model of manifests in which somebody has done just that.
func TestEnforcingIsWritingDown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		identity := func(m manifest) string { return m.kind + "/" + m.name }
		enforced := rapid.SliceOfNDistinct(anyManifest(false), 0, 8, identity).Draw(t, "enforced")
		staged := rapid.SliceOfNDistinct(anyManifest(true), 0, 8, identity).Draw(t, "staged")
		var done []manifest
		for _, m := range staged {
			if !m.deletes {
				done = append(done, manifest{kind: m.kind, name: m.name, spec: m.spec})
			}
		}
		for _, m := range enforced {
			if !slices.ContainsFunc(staged, func(s manifest) bool { return identity(s) == identity(m) }) {
				done = append(done, m)
			}
		}
		m := readManifests(t, slices.Concat(enforced, staged))
		var all []int
		for i := range m.Staged {
			all = append(all, i)
		}
		one := m
		for range all { // one after the other is all together
			one = one.Enforce(0)
		}
		want := inOrder(readManifests(t, done))
		if d := cmp.Diff(want, inOrder(m.Enforce(all...))); d != "" {
			t.Errorf("all together (-written down +enforced):\n%s", d)
		}
		if d := cmp.Diff(want, inOrder(one)); d != "" {
			t.Errorf("one after the other (-written down +enforced):\n%s", d)
		}
	})
}

func readManifests(t *rapid.T, manifests []manifest) *policies.Model {
	text := "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: security}\nspec: {order: 100}\n"
	for _, m := range manifests {
		text += "---\n" + m.text()
	}
	docs, err := k8s.Parse("a.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	m, err := k8s.Read(docs, k8s.Options{})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return m
}

// inOrder prints the policies of each tier in the order of their evaluation, those
// of one priority on one line.
func inOrder(m *policies.Model) []string {
	var lines []string
	for _, tier := range m.Tiers {
		last := -1
		for i := range m.Policies {
			p := &m.Policies[i]
			if p.Tier != tier.Name {
				continue
			}
			text := fmt.Sprintf("%s %s %s", p.Ref.What(), p.Ref, p.Subject)
			for _, r := range p.Rules[policies.Ingress] {
				text += " " + r.Action.String()
			}
			if p.Priority == last {
				lines[len(lines)-1] += ", " + text
			} else {
				lines = append(lines, tier.Name+": "+text)
			}
			last = p.Priority
		}
	}
	return lines
}
