package snapshot_test

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/internal/snapshot"
	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/conntest"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/selector"
)

func parse(t testing.TB, text []byte) []k8s.Document {
	t.Helper()
	docs, err := k8s.Parse("world.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

func read(t *testing.T, text []byte) *policies.Model {
	t.Helper()
	m, err := k8s.Read(parse(t, text), k8s.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// trimmed returns the objects of a world that policies look at, as snapshots
// hold them.
func trimmed(t testing.TB, text []byte) []snapshot.Object {
	t.Helper()
	var all []snapshot.Object
	for _, d := range parse(t, text) {
		objects, err := snapshot.Decode(d.Node)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			all = append(all, snapshot.Trim(o))
		}
	}
	snapshot.Sort(all)
	return all
}

func write(t *testing.T, objects []snapshot.Object) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := snapshot.WriteYAML(&out, objects, []string{"missing: nothing\nat all"}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func world(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/world.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

var same = cmp.Options{
	cmpopts.IgnoreTypes(policies.Place{}), cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}),
	cmpopts.IgnoreFields(policies.Model{}, "Warnings"),
	cmp.Comparer(func(a, b netset.Ports) bool { return a.Equal(b) }),
	cmp.Comparer(func(a, b selector.Selector) bool { return a.String() == b.String() }),
}

// synthetic returns the manifests of a shape as one text.
func synthetic(shape worlds.Shape) []byte {
	var text []byte
	files := worlds.Files(shape.Model(1))
	for _, name := range slices.Sorted(maps.Keys(files)) {
		text = append(append(text, "---\n"...), files[name].Data...)
	}
	return text
}

func testWorlds(t *testing.T) map[string][]byte {
	return map[string][]byte{
		"of everything":      world(t),
		"of templates":       synthetic(worlds.Shape{Namespaces: 5, Workloads: 50, Policies: 50, Closed: true}),
		"of a crowd of pods": synthetic(worlds.Shape{Namespaces: 4, Workloads: 30, Pods: 200, Policies: 40, Closed: true}),
	}
}

func TestASnapshotMakesTheSameModel(t *testing.T) {
	for name, text := range testWorlds(t) {
		t.Run(name, func(t *testing.T) {
			objects, want := trimmed(t, text), read(t, text)
			asYAML := write(t, objects)
			if diff := cmp.Diff(want, read(t, asYAML), same); diff != "" {
				t.Error(diff)
			}
			var asJSON bytes.Buffer
			if err := snapshot.WriteJSON(&asJSON, objects, []string{"missing: nothing"}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, read(t, asJSON.Bytes()), same); diff != "" {
				t.Error(diff)
			}
			if again := write(t, trimmed(t, asYAML)); !bytes.Equal(asYAML, again) {
				t.Errorf("a snapshot of the snapshot differs:\n%s", cmp.Diff(string(asYAML), string(again)))
			}
			if bytes.Contains(asYAML, []byte("geheim")) {
				t.Error("it holds more than policies look at")
			}
		})
	}
}

// relation is what may be between the pods of a world, and between them and
// addresses outside: those under the grant that they have.
type relation struct {
	Pods    map[string]string
	Outside map[string]netset.Addresses
}

// relate lists what may be in a world, by what its things are called under other
// names.
func relate(m *policies.Model, peer func(policies.Peer) string, prefix func(netip.Prefix) netip.Prefix) relation {
	r := relation{map[string]string{}, map[string]netset.Addresses{}}
	addresses := func(p *policies.Peer) (all netset.Addresses) {
		for _, cidr := range (netset.Block{CIDR: *p.CIDR, Except: p.Except}).Addresses().CIDRs() {
			all = all.Union(netset.Prefix(prefix(cidr)))
		}
		return all
	}
	for c := range reach.New(m, reach.Options{}).Connections(reach.Listing{By: reach.ByPod}) {
		grant := fmt.Sprintf("%s, unknown %s", c.Allow, c.Unknown)
		switch {
		case c.From.IsOutside():
			key := "outside to " + peer(*c.To) + ": " + grant
			r.Outside[key] = r.Outside[key].Union(addresses(c.From))
		case c.To.IsOutside():
			key := peer(*c.From) + " to outside: " + grant
			r.Outside[key] = r.Outside[key].Union(addresses(c.To))
		default:
			r.Pods[peer(*c.From)+" to "+peer(*c.To)] = grant
		}
	}
	return r
}

func TestMadeUpNamesKeepEveryAnswer(t *testing.T) {
	for name, text := range testWorlds(t) {
		t.Run(name, func(t *testing.T) {
			objects, names := snapshot.Anonymize(trimmed(t, text), []byte("key"))
			hidden := write(t, objects)
			renamed := func(p policies.Peer) string {
				p.Namespace, p.Name, p.Pod = names.Name(p.Namespace), names.Name(p.Name), names.Name(p.Pod)
				return p.Kind + " " + p.String()
			}
			asIs := func(p policies.Peer) string { return p.Kind + " " + p.String() }
			want := relate(read(t, text), renamed, names.Prefix)
			got := relate(read(t, hidden), asIs, func(p netip.Prefix) netip.Prefix { return p })
			if len(want.Pods) == 0 || len(want.Outside) == 0 {
				t.Fatal("nothing is allowed")
			}
			if diff := cmp.Diff(want, got, cmp.Comparer(netset.Addresses.Equal)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMadeUpNamesKeepTests(t *testing.T) {
	run := func(text []byte) []string {
		docs := parse(t, text)
		suites, err := k8s.ReadTests(docs)
		if err != nil {
			t.Fatal(err)
		}
		results, err := conntest.Run(reach.New(read(t, text), reach.Options{}), suites)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, r := range results {
			all = append(all, fmt.Sprint(r.Passed))
		}
		return all
	}
	objects, _ := snapshot.Anonymize(trimmed(t, world(t)), []byte("key"))
	want, got := run(world(t)), run(write(t, objects))
	if diff := cmp.Diff(want, got); diff != "" || len(want) < 5 {
		t.Errorf("%d tests\n%s", len(want), diff)
	}
}

func TestMadeUpNamesTellNothing(t *testing.T) {
	before := trimmed(t, world(t))
	objects, names := snapshot.Anonymize(before, []byte("key"))
	text := string(write(t, objects))
	for _, word := range []string{
		"shop", "bank", "web", "api:", "nightly", "guest", "teller", "team", "many", "few", "tenant", "acme", "zone", "trust", "since", "2026",
		"n1", "grpc", "http", "sql", "probe", "admin", "agents", "l7", "clients", "who reaches", "agreed",
		"6d4cf56db6", "x2x7z", "203.0.113", "198.51.100", "192.168.7", "10.244", "10.96", "2001:db8", "fd00:1", "rates",
	} {
		if strings.Contains(text, word) {
			t.Errorf("it still says %s", word)
		}
	}
	for _, word := range []string{"kube-system", "app:", "kubernetes.io/os: linux", "169.254.169.254/32", "172.16.0.0/12", "10250", "cidr: 0.0.0.0/0"} {
		if !strings.Contains(text, word) {
			t.Errorf("it does not say %s any more", word)
		}
	}
	if names.Originals()[names.Name("shop")] != "shop" || names.Originals()[names.Policy("no-agents")] != "no-agents" {
		t.Error("the way back is lost")
	}
	again, _ := snapshot.Anonymize(before, []byte("key"))
	if string(write(t, again)) != text {
		t.Error("the same key gives other names")
	}
	other, _ := snapshot.Anonymize(before, []byte("another"))
	if string(write(t, other)) == text {
		t.Error("another key gives the same names")
	}
}

// TestPolicyNamesKeepTheirOrder matters where two have the same rank.
func TestPolicyNamesKeepTheirOrder(t *testing.T) {
	var objects []snapshot.Object
	old := []string{"allow-dns", "default.web", "knp.default.x", "lock", "z"}
	for _, name := range old {
		objects = append(objects, snapshot.Object{
			"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "metadata": map[string]any{"name": name},
			"spec": map[string]any{"tier": "tier of " + name},
		})
	}
	_, names := snapshot.Anonymize(objects, nil)
	var policyNames, tierNames []string
	for _, name := range old {
		policyNames, tierNames = append(policyNames, names.Policy(name)), append(tierNames, names.Tier("tier of "+name))
	}
	if !slices.IsSorted(policyNames) || !slices.IsSorted(tierNames) || policyNames[1] >= "knp." || policyNames[2] < "knp." {
		t.Errorf("%v, %v", policyNames, tierNames)
	}
}

// TestExpressions renames selectors of Calico in a world whose pods carry tier
// web and web-canary. What is in brackets is renamed.
func TestExpressions(t *testing.T) {
	pods := func(values ...string) (all []snapshot.Object) {
		for _, v := range values {
			all = append(all, snapshot.Object{
				"apiVersion": "v1", "kind": "Pod",
				"metadata": map[string]any{"name": v, "namespace": "shop", "labels": map[string]any{"tier": v}},
			})
		}
		return all
	}
	for _, row := range []struct{ old, want string }{
		{"all()", "all()"},
		{"", ""},
		{"tier == 'web'", `tier == "[web]"`},
		{`team!="web" && has( tier )`, `[team]!="[web]" && has( tier )`},
		{"!(tier in {'web', \"x\",})||global()", `!(tier in {"[web]", "[x]",})||global()`},
		{"tier not in { }", "tier not in { }"},
		{"tier notin{'x'}", `tier notin{"[x]"}`},
		{"tier starts with 'web-'", `tier in {"[web-canary]"}`},
		{"tier endswith'nary'", `tier in {"[web-canary]"}`},
		{"tier contains 'nothing of it'", `tier in {}`},
		{"in in {'in'}", `[in] in {"[in]"}`},
		{"has == 'all'", `[has] == "[all]"`},
		{"projectcalico.org/namespace == 'shop'", `projectcalico.org/namespace == "[shop]"`},
		{"projectcalico.org/namespace contains 'ho'", `projectcalico.org/namespace in {"[shop]"}`},
		{"pcns.team == 'a'", `pcns.[team] == "[a]"`},
		{"not a selector", "[not a selector]"},
		{"tier == 'open", "[tier == 'open]"},
	} {
		policy := snapshot.Object{
			"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
			"metadata": map[string]any{"name": "p", "namespace": "shop"}, "spec": map[string]any{"selector": row.old},
		}
		objects, names := snapshot.Anonymize(append(pods("web", "web-canary"), policy), []byte("key"))
		at := slices.IndexFunc(objects, func(o snapshot.Object) bool { return o["kind"] == "NetworkPolicy" })
		want := brackets.ReplaceAllStringFunc(row.want, func(s string) string { return names.Name(s[1 : len(s)-1]) })
		if got := objects[at]["spec"].(map[string]any)["selector"]; got != want {
			t.Errorf("%s: %s, want %s", row.old, got, want)
		}
	}
}

var brackets = regexp.MustCompile(`\[[^]]*\]`)

func TestAddressesKeepTheirRanges(t *testing.T) {
	_, names := snapshot.Anonymize(nil, []byte("key"))
	prefix := rapid.Custom(func(t *rapid.T) netip.Prefix {
		bytes := rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "IPv4")
		if rapid.Bool().Draw(t, "is IPv6") {
			bytes = append(bytes, rapid.SliceOfN(rapid.Byte(), 12, 12).Draw(t, "rest")...)
		}
		address, _ := netip.AddrFromSlice(bytes)
		return netip.PrefixFrom(address, rapid.IntRange(0, address.BitLen()).Draw(t, "bits")).Masked()
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := prefix.Draw(t, "a"), prefix.Draw(t, "b")
		newA, newB := names.Prefix(a), names.Prefix(b)
		if newA.Bits() != a.Bits() || newA != newA.Masked() || (newA == newB) != (a == b) || newA.Overlaps(newB) != a.Overlaps(b) {
			t.Errorf("%s and %s became %s and %s", a, b, newA, newB)
		}
		if old, now := a.Addr(), names.Address(a.Addr()); old.IsPrivate() != now.IsPrivate() || old.IsLoopback() != now.IsLoopback() ||
			old.IsMulticast() != now.IsMulticast() || old.IsLinkLocalUnicast() != now.IsLinkLocalUnicast() {
			t.Errorf("%s became %s", old, now)
		}
	})
}

func FuzzExpression(f *testing.F) {
	for _, seed := range []string{"all()", "a == 'b' && has(c)", "!(a in {'x','y'}) || b starts with \"z\"", "a contains''", "in in {}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, old string) {
		policy := snapshot.Object{
			"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
			"metadata": map[string]any{"name": "p", "namespace": "shop"}, "spec": map[string]any{"selector": old},
		}
		objects, _ := snapshot.Anonymize([]snapshot.Object{policy}, nil)
		if _, is := objects[0]["spec"].(map[string]any)["selector"].(string); !is {
			t.Error("no text")
		}
	})
}

func TestAnnotationsThatAreKept(t *testing.T) {
	all := map[string]any{
		"owner": "us", "weir.dev/waive": "w",
		"kubectl.kubernetes.io/last-applied-configuration": "{}", "projectcalico.org/metadata": "{}",
	}
	for _, row := range []struct {
		apiVersion, kind string
		want             map[string]any
	}{
		{"networking.k8s.io/v1", "NetworkPolicy", map[string]any{"owner": "us", "weir.dev/waive": "w"}},
		{"projectcalico.org/v3", "GlobalNetworkPolicy", map[string]any{"owner": "us", "weir.dev/waive": "w"}},
		{"cilium.io/v2", "CiliumNetworkPolicy", map[string]any{"owner": "us", "weir.dev/waive": "w"}},
		{"projectcalico.org/v3", "NetworkSet", map[string]any{"weir.dev/waive": "w"}},
		{"apps/v1", "Deployment", map[string]any{"weir.dev/waive": "w"}},
	} {
		o := snapshot.Trim(snapshot.Object{"apiVersion": row.apiVersion, "kind": row.kind, "metadata": map[string]any{"name": "a", "annotations": all}})
		if diff := cmp.Diff(row.want, o["metadata"].(map[string]any)["annotations"]); diff != "" {
			t.Errorf("%s: %s", row.kind, diff)
		}
	}
}
