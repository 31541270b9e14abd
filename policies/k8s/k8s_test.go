package k8s

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
)

// read makes a model of text, which must be good.
func read(t *testing.T, text string) *policies.Model {
	t.Helper()
	return readWith(t, text, Options{})
}

func readWith(t *testing.T, text string, o Options) *policies.Model {
	t.Helper()
	docs, err := Parse("a.yaml", []byte(text))
	if err != nil {
		t.Fatalf("parse: %v", err)
	}
	m, err := Read(docs, o)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return m
}

// problems returns every problem of a file, in the order in which they are told.
func problems(t testing.TB, file string, data []byte) []policies.Problem {
	t.Helper()
	docs, parseErr := Parse(file, data)
	_, readErr := Read(docs, Options{})
	var all []policies.Problem
	for _, err := range []error{parseErr, readErr} {
		if err == nil {
			continue
		}
		joined, ok := err.(interface{ Unwrap() []error })
		if !ok {
			t.Fatalf("the error does not join problems: %v", err)
		}
		for _, e := range joined.Unwrap() {
			var p policies.Problem
			if !errors.As(e, &p) {
				t.Fatalf("not a problem: %v", e)
			}
			all = append(all, p)
		}
	}
	return all
}

var equateValues = cmp.Options{
	cmp.Comparer(func(a, b selector.Selector) bool { return a.String() == b.String() }),
	cmp.Comparer(netset.Ports.Equal),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// Each file in testdata/bad says on its lines what is wrong with them, and with
// no others: # want "part of the message".
func TestBadInput(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	quoted := regexp.MustCompile(`"((?:[^"\\]|\\.)*)"`)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			wants := map[int][]string{}
			for i, line := range strings.Split(string(data), "\n") {
				_, after, _ := strings.Cut(line, "# want ")
				for _, m := range quoted.FindAllStringSubmatch(after, -1) {
					wants[i+1] = append(wants[i+1], strings.ReplaceAll(m[1], `\"`, `"`))
				}
			}
			for _, p := range problems(t, file, data) {
				open := wants[p.Place.Line]
				i := slices.IndexFunc(open, func(w string) bool { return strings.Contains(p.Message, w) })
				if i < 0 {
					t.Errorf("unexpected: %v", p)
					continue
				}
				wants[p.Place.Line] = slices.Delete(open, i, i+1)
			}
			for line, left := range wants {
				for _, w := range left {
					t.Errorf("%s:%d: no problem with %q", file, line, w)
				}
			}
		})
	}
}

func TestProblemsOfAllFilesInOrder(t *testing.T) {
	var docs []Document
	for _, file := range []string{"b.yaml", "a.yaml"} {
		d, err := Parse(file, []byte("apiVersion: v1\nkind: Pod\n---\nkind: Pod\n"))
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, d...)
	}
	m, err := Read(docs, Options{})
	want := `a.yaml:1:1: Pod has no metadata.name; give it one
a.yaml:4:7: kind Pod without an apiVersion; write "apiVersion: v1"
b.yaml:1:1: Pod has no metadata.name; give it one
b.yaml:4:7: kind Pod without an apiVersion; write "apiVersion: v1"`
	if m != nil || err == nil || err.Error() != want {
		t.Errorf("got model %v and\n%v\nwant\n%s", m, err, want)
	}
}

func TestDuplicatesNameBothPlaces(t *testing.T) {
	object := "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n"
	a, _ := Parse("a.yaml", []byte(object))
	b, _ := Parse("b.yaml", []byte("\n"+object))
	_, err := Read(slices.Concat(a, b), Options{})
	want := "b.yaml:2:1: Pod default/a is given twice, first at a.yaml:1:1; remove one"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, err := Read(slices.Concat(a, mustParse(t, "c.yaml", strings.Replace(object, "name: a", "name: a, namespace: other", 1))), Options{}); err != nil {
		t.Errorf("the same name in two namespaces: %v", err)
	}
}

func mustParse(t testing.TB, file, text string) []Document {
	t.Helper()
	docs, err := Parse(file, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

func TestIgnored(t *testing.T) {
	for _, row := range []struct{ what, text string }{
		{"nothing", ""},
		{"comments", "# one\n---\n# two\n"},
		{"a list", "- op: replace\n  path: /spec\n"},
		{"a scalar", "hello\n"},
		{"no kind", "replicas: 3\nimage: web\n"},
		{"a ConfigMap", "apiVersion: v1\nkind: ConfigMap\ndata: {a: 1}\n"},
		{"a custom resource", "apiVersion: example.com/v1\nkind: Service\nspec: 5\n"},
		{"a Job of another project", "apiVersion: batch.volcano.sh/v1alpha1\nkind: Job\n"},
		{"a rule about policies", "apiVersion: constraints.gatekeeper.sh/v1beta1\nkind: K8sRequireNetworkPolicy\nmetadata: {name: a}\n"},
		{"an empty List", "apiVersion: v1\nkind: List\nitems: []\n"},
	} {
		m := read(t, row.text)
		if diff := cmp.Diff(&policies.Model{Tiers: tiers()}, m, equateValues); diff != "" {
			t.Errorf("%s: %s", row.what, diff)
		}
	}
}

func TestPolicyWithoutKind(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"apiVersion: projectcalico.org/v3\nmetadata: {name: p}\n", "a.yaml:1:13: an object of projectcalico.org/v3 needs a kind; write one"},
		{"apiVersion: networking.k8s.io/v1\nkind: [NetworkPolicy]\n", "a.yaml:2:7: an object of networking.k8s.io/v1 needs a kind; write one"},
		{"apiVersion: kustomize.config.k8s.io/v1beta1\nresources: [a.yaml]\n", ""},
		{"apiVersion: v2\nname: chart\n", ""},
	} {
		_, err := Read(mustParse(t, "a.yaml", row.text), Options{})
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != row.want {
			t.Errorf("%s\n got %s\nwant %s", row.text, got, row.want)
		}
	}
}

func TestLists(t *testing.T) {
	pod := `{"metadata":{"name":"%s"}}`
	full := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"%s"}}`
	list := func(kind, version string, items ...string) string {
		return fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"items":[%s]}`, version, kind, strings.Join(items, ","))
	}
	a, b := fmt.Sprintf(full, "a"), fmt.Sprintf(full, "b")
	for _, row := range []struct{ what, text, want string }{
		{"a List", list("List", "v1", a, b), "default/a default/b"},
		{"a typed list", list("PodList", "v1", fmt.Sprintf(pod, "a"), b), "default/a default/b"},
		{"lists in lists", list("List", "v1", list("PodList", "v1", fmt.Sprintf(pod, "a")), list("List", "v1", b)), "default/a default/b"},
		{"values without separator", a + "\n" + b, "default/a default/b"},
		{"YAML between", a + "\n---\n" + b, "default/a default/b"},
		{"a list of others", list("ConfigMapList", "v1", `{}`), ""},
		{"a ResourceList", list("ResourceList", "config.kubernetes.io/v1", a), "default/a"},
	} {
		var names []string
		for _, p := range read(t, row.text).Pods {
			names = append(names, p.Ref.String())
		}
		if got := strings.Join(names, " "); got != row.want {
			t.Errorf("%s: got %q, want %q", row.what, got, row.want)
		}
	}
}

func TestNamespaces(t *testing.T) {
	m := readWith(t, `
apiVersion: v1
kind: Namespace
metadata:
  name: shop
  labels: {team: a, kubernetes.io/metadata.name: wrong}
---
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: ""}}
---
{apiVersion: v1, kind: Service, metadata: {name: c, namespace: bank}}
---
{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: d, namespace: cave}}
---
{apiVersion: v1, kind: Node, metadata: {name: node, namespace: nowhere}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: zoo}}
`, Options{Namespace: "home"})
	implied := func(name string) policies.Namespace {
		return policies.Namespace{Name: name, Labels: map[string]string{policies.NameLabel: name}, Implied: true}
	}
	want := []policies.Namespace{
		implied("bank"), implied("cave"), implied("home"),
		{
			Name: "shop", Labels: map[string]string{"team": "a", policies.NameLabel: "shop"},
			Place: policies.Place{File: "a.yaml", Line: 2, Column: 1},
		},
		{
			Name: "zoo", Labels: map[string]string{policies.NameLabel: "zoo"},
			Place: policies.Place{File: "a.yaml", Line: 18, Column: 1},
		},
	}
	if diff := cmp.Diff(want, m.Namespaces); diff != "" {
		t.Error(diff)
	}
}

func TestKeyTwiceInALongMapping(t *testing.T) {
	text := "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels:\n"
	for i := range 40 {
		text += fmt.Sprintf("    key-%d: a\n", i)
	}
	got := fmt.Sprint(problems(t, "a.yaml", []byte(text+"    key-3: b\n")))
	if want := `[a.yaml:46:5: key "key-3" is given twice, first at a.yaml:9:5; remove one]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestProblemsQuoteTheBeginningOfWhatIsLong(t *testing.T) {
	text := fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {app: %s}}\n", strings.Repeat("ä", 50_000))
	got := fmt.Sprint(problems(t, "a.yaml", []byte(text)))
	if want := `[a.yaml:3:35: label value "` + strings.Repeat("ä", 50) + `…" is not valid`; !strings.HasPrefix(got, want) || len(got) > 500 {
		t.Errorf("got %.200s, want %s", got, want)
	}
}

func TestNodes(t *testing.T) {
	m := readWith(t, `
apiVersion: v1
kind: Node
metadata: {name: n2}
spec: {podCIDR: 10.1.0.0/24, podCIDRs: [10.1.0.0/24, "fd00::/64"]}
status:
  addresses:
  - {type: Hostname, address: n2}
  - {type: InternalIP, address: 192.0.2.2}
  - {type: ExternalIP, address: 198.51.100.2}
---
{apiVersion: v1, kind: Node, metadata: {name: n1}}
`, Options{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}})
	got := fmt.Sprint(m.Nodes[0].Name, m.Nodes[0].Addresses, m.Nodes[1].Name, m.Nodes[1].Addresses, m.PodCIDRs)
	if want := "n1[]n2[192.0.2.2 198.51.100.2] [10.0.0.0/16 10.1.0.0/24 fd00::/64]"; strings.ReplaceAll(got, " n", "n") != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestOrderMakesNoDifference(t *testing.T) {
	docs := mustParse(t, "world.yaml", string(generate(20, 20)))
	want, err := Read(docs, Options{})
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 5 {
		random.Shuffle(len(docs), func(i, j int) { docs[i], docs[j] = docs[j], docs[i] })
		got, err := Read(docs, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, equateValues); diff != "" {
			t.Fatal(diff)
		}
	}
}

func TestWithWorldOf(t *testing.T) {
	first := read(t, `
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a}}
`)
	second := read(t, `
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: q}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b}}
`)
	m := WithWorldOf(first, second)
	if got := fmt.Sprint(len(m.Tiers), m.Policies[0].Ref, m.Pods[0].Ref, len(m.Policies), len(m.Pods), len(m.Warnings)); got != "3 default/p default/b 1 1 2" {
		t.Error(got)
	}
}

// shared returns the path of data that lies beside the project; the test is over
// where there is none.
func shared(t *testing.T, path string) string {
	t.Helper()
	path = filepath.Join("..", "..", "..", "shared", path)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no data beside the project: %v", err)
	}
	return path
}

func TestOnlineBoutique(t *testing.T) {
	root := shared(t, "real/online-boutique")
	var docs []Document
	for _, pattern := range []string{"base/*.yaml", "components/*/*.yaml"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			docs = append(docs, mustParse(t, file, string(data))...)
		}
	}
	m, err := Read(docs, Options{})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%d policies, %d pods, %d services, %d warnings", len(m.Policies), len(m.Pods), len(m.Services), len(m.Warnings))
	if want := "13 policies, 12 pods, 12 services, 0 warnings"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, s := range m.Services {
		if len(s.Pods) != 1 {
			t.Errorf("service %s has %d pods, not 1", s.Ref, len(s.Pods))
		}
	}
}

func TestSuiteWorldsRead(t *testing.T) {
	file, err := os.Open(shared(t, "suites/networkpolicy/cases.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(unzipped)
	lines.Buffer(nil, 16<<20)
	count := 0
	for lines.Scan() {
		var c struct {
			Case  string
			World json.RawMessage
		}
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		count++
		m, err := Read(mustParse(t, c.Case, string(c.World)), Options{})
		if err != nil {
			t.Errorf("case %s: %v", c.Case, err)
			continue
		}
		if len(m.Pods) < 9 {
			t.Errorf("case %s: only %d pods", c.Case, len(m.Pods))
		}
	}
	if lines.Err() != nil || count != 256 {
		t.Errorf("%d cases, not 256: %v", count, lines.Err())
	}
}

// generate writes a world of policies and Deployments with their Services.
func generate(policyCount, deployments int) []byte {
	var b bytes.Buffer
	for i := range policyCount {
		fmt.Fprintf(&b, `---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: policy-%d
  namespace: ns-%d
spec:
  podSelector:
    matchLabels:
      app: web-%d
  policyTypes:
    - Ingress
    - Egress
  ingress:
    - from:
        - podSelector:
            matchLabels:
              app: web-%d
        - namespaceSelector:
            matchLabels:
              team: shop
      ports:
        - protocol: TCP
          port: 8080
`, i, i%10, i, i+1)
	}
	for i := range deployments {
		fmt.Fprintf(&b, `---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web-%d
  namespace: ns-%d
spec:
  replicas: 3
  selector:
    matchLabels:
      app: web-%d
  template:
    metadata:
      labels:
        app: web-%d
        tier: front
    spec:
      containers:
        - name: web
          image: registry.example/web:1.%d
          env:
            - name: PORT
              value: "8080"
          ports:
            - name: http
              containerPort: 8080
          resources:
            limits: {cpu: 200m, memory: 128Mi}
---
apiVersion: v1
kind: Service
metadata:
  name: web-%d
  namespace: ns-%d
spec:
  selector:
    app: web-%d
  ports:
    - port: 80
      targetPort: http
`, i, i%10, i, i, i, i, i%10, i)
	}
	return b.Bytes()
}

func BenchmarkRead(b *testing.B) {
	data := generate(5000, 1000)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		docs, err := Parse("world.yaml", data)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Read(docs, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(generate(1, 1))
	f.Add([]byte(`{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}]}`))
	for _, object := range []struct{ kind, spec string }{
		{"NetworkPolicy", "{selector: has(a), order: 2.5, egress: [{action: Log, protocol: ICMP, icmp: {type: 8}}, {action: Pass, destination: {services: {name: s}}}]}"},
		{"GlobalNetworkPolicy", "{tier: t, doNotTrack: true, applyOnForward: true, ingress: [{action: Deny, source: {namespaceSelector: global(), notNets: [10.0.0.0/8]}}]}"},
		{"StagedNetworkPolicy", "{stagedAction: Delete}"},
		{"StagedKubernetesNetworkPolicy", "{podSelector: {}}"},
		{"Tier", "{order: 5, defaultAction: Pass}"},
		{"GlobalNetworkSet", "{nets: [10.0.0.1, 10.0.0.0/8]}"},
		{"HostEndpoint", "{node: n1, interfaceName: '*', profiles: [p, kns.a]}"},
		{"Profile", "{labelsToApply: {a: b}, ingress: [{action: Pass}]}"},
	} {
		f.Add([]byte(calicoObject(object.kind, "x", object.spec)))
	}
	f.Add([]byte("a: &a [*a]\nb: {<<: *a}\n"))
	f.Add([]byte("---\nkind: [\n---\n? {a: b}\n: *x\n"))
	files, _ := filepath.Glob("testdata/bad/*")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		docs, parseErr := Parse("f", data)
		m, readErr := Read(docs, Options{})
		againDocs, againParse := Parse("f", data)
		again, againRead := Read(againDocs, Options{})
		if fmt.Sprint(parseErr, readErr) != fmt.Sprint(againParse, againRead) {
			t.Fatalf("first %v, %v, then %v, %v", parseErr, readErr, againParse, againRead)
		}
		if diff := cmp.Diff(m, again, equateValues); diff != "" {
			t.Fatal(diff)
		}
		if m != nil {
			complete(t, docs, m)
		}
	})
}

// complete reports a policy of Kubernetes at the root of a document of which the
// model knows nothing.
func complete(t *testing.T, docs []Document, m *policies.Model) {
	t.Helper()
	for _, d := range docs {
		v := value{&reader{}, d.File, d.Node, ""}
		kind := v.field("kind")
		if !kind.present() || !strings.HasSuffix(kind.node.Value, "NetworkPolicy") || kinds[kind.node.Value].read == nil && calicoKinds[kind.node.Value].read == nil {
			continue
		}
		known := slices.ContainsFunc(m.Policies, func(p policies.Policy) bool { return p.Place == v.place() }) ||
			slices.ContainsFunc(m.Staged, func(s policies.Staged) bool { return s.Policy.Place == v.place() })
		if warned := slices.ContainsFunc(m.Warnings, func(w policies.Warning) bool { return w.Place == v.place() }); !known && !warned {
			t.Fatalf("a %s at %s was passed over", kind.node.Value, v.place())
		}
	}
}
