package render_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/weir-policy/weir/internal/render"
	"github.com/weir-policy/weir/policies/k8s"
)

func treeOf(fsys fs.FS) render.Tree {
	return render.Tree{
		Files: fsys,
		Name:  func(path string) string { return path },
		Parse: func(path string) ([]k8s.Document, error) {
			data, err := fs.ReadFile(fsys, path)
			if err != nil {
				return nil, err
			}
			return k8s.Parse(path, data)
		},
	}
}

// files makes a tree of "path: content" pairs.
func files(pairs ...string) fstest.MapFS {
	m := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return m
}

func build(fsys fs.FS, dir string) ([]k8s.Document, error) {
	plan, err := render.NewPlan(treeOf(fsys), dir)
	if err != nil {
		return nil, err
	}
	return plan.Build()
}

func mustBuild(t *testing.T, fsys fs.FS, dir string) []k8s.Document {
	t.Helper()
	documents, err := build(fsys, dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k8s.Read(documents, k8s.Options{}); err != nil {
		t.Errorf("what was built is not fit to read: %v", err)
	}
	return documents
}

func fileOf(d k8s.Document, n *yaml.Node) string {
	if file, ok := d.Elsewhere[n]; ok {
		return file
	}
	return d.File
}

// show prints each scalar of the documents with its place:
// "db.yaml:4:9 metadata.name=db".
func show(documents []k8s.Document) string {
	var out strings.Builder
	for _, d := range documents {
		var walk func(at string, n *yaml.Node)
		walk = func(at string, n *yaml.Node) {
			switch n.Kind {
			case yaml.ScalarNode:
				fmt.Fprintf(&out, "%s:%d:%d %s=%s\n", fileOf(d, n), n.Line, n.Column, strings.TrimPrefix(at, "."), n.Value)
			case yaml.MappingNode:
				for i := 0; i < len(n.Content); i += 2 {
					walk(at+"."+n.Content[i].Value, n.Content[i+1])
				}
			default:
				for i, item := range n.Content {
					walk(fmt.Sprintf("%s[%d]", at, i), item)
				}
			}
		}
		walk("", d.Node)
	}
	return out.String()
}

const db = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: db
spec:
  podSelector:
    matchLabels: {app: db}
  ingress:
  - from:
    - podSelector: {matchLabels: {app: web}}
    ports:
    - port: 5432
`

func TestBuild(t *testing.T) {
	base := []string{"base/kustomization.yaml", "resources: [db.yaml]\n", "base/db.yaml", db}
	for _, row := range []struct {
		name  string
		files []string
		want  string
	}{
		{"an overlay with a namespace and a prefix", []string{"top/kustomization.yaml", "namespace: shop\nnamePrefix: prod-\nresources: [../base]\n"}, `
base/db.yaml:1:13 apiVersion=networking.k8s.io/v1
base/db.yaml:2:7 kind=NetworkPolicy
base/db.yaml:4:3 metadata.name=prod-db
base/db.yaml:1:1 metadata.namespace=shop
base/db.yaml:7:24 spec.podSelector.matchLabels.app=db
base/db.yaml:10:40 spec.ingress[0].from[0].podSelector.matchLabels.app=web
base/db.yaml:12:13 spec.ingress[0].ports[0].port=5432
`},
		{"a strategic merge patch replaces the list", []string{"top/kustomization.yaml", `
resources: [../base]
patches:
- path: more.yaml
`, "top/more.yaml", `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db}
spec:
  ingress:
  - from: [{podSelector: {}}]
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: 5433}]
`}, `
base/db.yaml:1:13 apiVersion=networking.k8s.io/v1
base/db.yaml:2:7 kind=NetworkPolicy
base/db.yaml:4:9 metadata.name=db
base/db.yaml:7:24 spec.podSelector.matchLabels.app=db
top/more.yaml:8:46 spec.ingress[1].from[0].podSelector.matchLabels.app=web
top/more.yaml:9:20 spec.ingress[1].ports[0].port=5433
`},
		{"a JSON6902 patch adds a rule", []string{"top/kustomization.yaml", `
resources: [../base]
patches:
- target: {kind: NetworkPolicy}
  patch: |
    - op: add
      path: /spec/ingress/0
      value: {from: [{ipBlock: {cidr: 10.0.0.0/8}}]}
`}, `
base/db.yaml:1:13 apiVersion=networking.k8s.io/v1
base/db.yaml:2:7 kind=NetworkPolicy
base/db.yaml:4:9 metadata.name=db
top/kustomization.yaml:8:39 spec.ingress[0].from[0].ipBlock.cidr=10.0.0.0/8
base/db.yaml:10:40 spec.ingress[1].from[0].podSelector.matchLabels.app=web
base/db.yaml:12:13 spec.ingress[1].ports[0].port=5432
base/db.yaml:7:24 spec.podSelector.matchLabels.app=db
`},
		{"labels, in selectors too", []string{"top/kustomization.yaml", `
resources: [../base]
labels: [{pairs: {team: shop}, includeSelectors: true}]
`}, `
base/db.yaml:1:13 apiVersion=networking.k8s.io/v1
base/db.yaml:2:7 kind=NetworkPolicy
base/db.yaml:4:9 metadata.name=db
base/db.yaml:1:1 metadata.labels.team=shop
base/db.yaml:7:24 spec.podSelector.matchLabels.app=db
base/db.yaml:1:1 spec.podSelector.matchLabels.team=shop
base/db.yaml:10:40 spec.ingress[0].from[0].podSelector.matchLabels.app=web
base/db.yaml:1:1 spec.ingress[0].from[0].podSelector.matchLabels.team=shop
base/db.yaml:12:13 spec.ingress[0].ports[0].port=5432
`},
		{"a transformer of its own", []string{"top/kustomization.yaml", "resources: [../base]\ntransformers: [ns.yaml]\n", "top/ns.yaml", `
apiVersion: builtin
kind: NamespaceTransformer
metadata: {name: ns, namespace: shop}
fieldSpecs: [{path: metadata/namespace, create: true}]
`}, `
base/db.yaml:1:13 apiVersion=networking.k8s.io/v1
base/db.yaml:2:7 kind=NetworkPolicy
base/db.yaml:4:9 metadata.name=db
base/db.yaml:1:1 metadata.namespace=shop
base/db.yaml:7:24 spec.podSelector.matchLabels.app=db
base/db.yaml:10:40 spec.ingress[0].from[0].podSelector.matchLabels.app=web
base/db.yaml:12:13 spec.ingress[0].ports[0].port=5432
`},
		{"a generator has only a file, and absent secrets are empty", []string{"top/kustomization.yaml", `
configMapGenerator: [{name: c, literals: [a=b]}]
secretGenerator: [{name: s, envs: [.env], files: [token=secret.txt]}]
generatorOptions: {disableNameSuffixHash: true}
`}, `
top/kustomization.yaml:0:0 apiVersion=v1
top/kustomization.yaml:0:0 kind=ConfigMap
top/kustomization.yaml:0:0 metadata.name=c
top/kustomization.yaml:0:0 data.a=b
top/kustomization.yaml:0:0 apiVersion=v1
top/kustomization.yaml:0:0 kind=Secret
top/kustomization.yaml:0:0 metadata.name=s
top/kustomization.yaml:0:0 type=Opaque
top/kustomization.yaml:0:0 data.token=
`},
		{"who asks for origins gets them", []string{"top/kustomization.yaml", "resources: [ns.yaml]\nbuildMetadata: [originAnnotations]\n", "top/ns.yaml", `kind: Namespace
apiVersion: v1
metadata: {name: a}
`}, `
top/ns.yaml:1:7 kind=Namespace
top/ns.yaml:2:13 apiVersion=v1
top/ns.yaml:3:18 metadata.name=a
top/ns.yaml:1:1 metadata.annotations.config.kubernetes.io/origin=path: ns.yaml

`},
		{"an item of a List, and one of two that are alike", []string{"top/kustomization.yaml", "nameSuffix: -x\nresources: [list.yaml]\n", "top/list.yaml", `apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: a}}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: web, namespace: a}}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: web, namespace: b}}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: web-2, namespace: b}}
`}, `
top/list.yaml:4:16 apiVersion=v1
top/list.yaml:4:26 kind=Namespace
top/list.yaml:4:54 metadata.name=a
top/list.yaml:5:16 apiVersion=v1
top/list.yaml:5:26 kind=ServiceAccount
top/list.yaml:5:53 metadata.name=web-x
top/list.yaml:5:75 metadata.namespace=a
top/list.yaml:6:16 apiVersion=v1
top/list.yaml:6:26 kind=ServiceAccount
top/list.yaml:6:53 metadata.name=web-x
top/list.yaml:6:75 metadata.namespace=b
top/list.yaml:7:16 apiVersion=v1
top/list.yaml:7:26 kind=ServiceAccount
top/list.yaml:7:53 metadata.name=web-2-x
top/list.yaml:7:77 metadata.namespace=b
`},
		{"a component, and a kustomization in JSON", []string{"top/Kustomization", `{"resources": ["../base/db.yaml"], "components": ["../part"]}`, "part/kustomization.yml", `
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
namespace: shop
`}, `
base/db.yaml:1:13 apiVersion=networking.k8s.io/v1
base/db.yaml:2:7 kind=NetworkPolicy
base/db.yaml:4:9 metadata.name=db
base/db.yaml:1:1 metadata.namespace=shop
base/db.yaml:7:24 spec.podSelector.matchLabels.app=db
base/db.yaml:10:40 spec.ingress[0].from[0].podSelector.matchLabels.app=web
base/db.yaml:12:13 spec.ingress[0].ports[0].port=5432
`},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := show(mustBuild(t, files(append(base, row.files...)...), "top"))
			if diff := cmp.Diff(strings.TrimPrefix(row.want, "\n"), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestPlan(t *testing.T) {
	fsys := files(
		"kustomization.yaml", "resources: [base, extra.yaml]\ncomponents: [part]\nsecretGenerator: [{name: s, files: [s.txt]}]\n",
		"extra.yaml", "{apiVersion: v1, kind: Namespace, metadata: {name: a}}",
		"base/kustomization.yaml", "resources: [db.yaml]\npatches: [{path: p.yaml, target: {kind: NetworkPolicy}}]\nconfigMapGenerator: [{name: c, files: [k=c.txt]}]\n",
		"base/db.yaml", db, "base/p.yaml", "[{op: test, path: /kind, value: NetworkPolicy}]", "base/c.txt", "c",
		"part/kustomization.yaml", "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nnamespace: shop\n",
	)
	plan, err := render.NewPlan(treeOf(fsys), ".")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"base", "part"}, plan.Dirs); diff != "" {
		t.Errorf("dirs (-want +got):\n%s", diff)
	}
	want := []string{"base/c.txt", "base/db.yaml", "base/kustomization.yaml", "base/p.yaml", "extra.yaml", "kustomization.yaml", "part/kustomization.yaml"}
	if diff := cmp.Diff(want, plan.Files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if len(plan.Warnings) != 1 || !strings.HasPrefix(plan.Warnings[0].String(), "kustomization.yaml:3:37: s.txt does not exist") {
		t.Errorf("warnings %v", plan.Warnings)
	}
	if plan.Component {
		t.Error("the whole is not a component")
	}
	if part, err := render.NewPlan(treeOf(fsys), "part"); err != nil || !part.Component {
		t.Errorf("part is a component (%v)", err)
	}
}

func TestProblems(t *testing.T) {
	for _, row := range []struct {
		name  string
		files []string
		want  string
	}{
		{"remote entries, all of them", []string{"kustomization.yaml", `
resources:
- https://example.com/a.yaml
- git@github.com:org/repo.git//base?ref=v1
- github.com/org/repo//base?ref=v1
- oci://registry.example.com/base
- ssh://git@example.com/repo
- git::https://example.com/repo
- me@example.com:repo
Components: [github.com/org/repo//part]
patches: [{path: "HTTPS://example.com/p.yaml"}]
patchesStrategicMerge: [http://example.com/p.yaml]
replacements: [{path: "https://example.com/r.yaml"}]
configMapGenerator: [{name: c, files: ["k=https://example.com/c"], envs: ["https://example.com/e"]}]
crds: ["https://example.com/crd.json"]
configurations: ["https://example.com/conf.yaml"]
openapi: {path: "https://example.com/schema.json"}
generators: ["https://example.com/g.yaml"]
transformers:
- |
  apiVersion: builtin
  kind: PatchTransformer
  metadata: {name: p}
  path: https://example.com/p.yaml
- plugin.yaml
validators: ["https://example.com/v.yaml"]
`, "plugin.yaml", `
apiVersion: builtin
kind: ConfigMapGenerator
metadata: {name: c}
files: ["a=https://example.com/a"]
`}, `
kustomization.yaml:3:3: https://example.com/a.yaml is remote
kustomization.yaml:4:3: git@github.com:org/repo.git//base?ref=v1 is remote
kustomization.yaml:5:3: github.com/org/repo//base?ref=v1 is remote
kustomization.yaml:6:3: oci://registry.example.com/base is remote
kustomization.yaml:7:3: ssh://git@example.com/repo is remote
kustomization.yaml:8:3: git::https://example.com/repo is remote
kustomization.yaml:9:3: me@example.com:repo is remote
kustomization.yaml:10:14: github.com/org/repo//part is remote
kustomization.yaml:11:18: HTTPS://example.com/p.yaml is remote
kustomization.yaml:12:25: http://example.com/p.yaml is remote
kustomization.yaml:13:23: https://example.com/r.yaml is remote
kustomization.yaml:14:40: k=https://example.com/c is remote
kustomization.yaml:14:75: https://example.com/e is remote
kustomization.yaml:15:8: https://example.com/crd.json is remote
kustomization.yaml:16:18: https://example.com/conf.yaml is remote
kustomization.yaml:17:17: https://example.com/schema.json is remote
kustomization.yaml:18:14: https://example.com/g.yaml is remote
kustomization.yaml:20:3: https://example.com/p.yaml is remote
plugin.yaml:5:9: a=https://example.com/a is remote
kustomization.yaml:26:14: https://example.com/v.yaml is remote
`},
		{"what is missing, at every depth", []string{"kustomization.yaml", `
resources: [gone.yaml, base, empty, /etc/hosts, ../above.yaml]
components: [base/db.yaml]
configMapGenerator: [{name: c, files: [base]}]
`, "base/kustomization.yaml", "resources: [away.yaml]\npatches: [{path: p.yaml}]\n", "base/db.yaml", db, "empty/readme.md", ""}, `
kustomization.yaml:2:13: gone.yaml does not exist
base/kustomization.yaml:1:13: away.yaml does not exist
base/kustomization.yaml:2:18: p.yaml does not exist
kustomization.yaml:2:30: empty is a folder without a kustomization.yaml
kustomization.yaml:2:37: /etc/hosts is an absolute path
kustomization.yaml:2:49: ../above.yaml is outside of the repository
kustomization.yaml:3:14: base/db.yaml is a file
kustomization.yaml:4:40: base is a folder
`},
		{"charts and programs", []string{
			"kustomization.yaml", `
helmCharts: [{name: minecraft}]
generators: [exec.yaml, chart.yaml, folder]
`, "exec.yaml", "apiVersion: example.com/v1\nkind: Exec\nmetadata: {name: x}\n",
			"chart.yaml", "apiVersion: builtin\nkind: HelmChartInflationGenerator\nmetadata: {name: x}\n",
			"folder/kustomization.yaml", "resources: [../exec.yaml]\nnamePrefix: a\n",
		}, `
kustomization.yaml:2:1: Weir renders no Helm charts
exec.yaml:1:1: only Kustomize's built-in plugins
chart.yaml:2:7: Weir renders no Helm charts
exec.yaml:1:1: only Kustomize's built-in plugins
folder/kustomization.yaml:2:1: a folder of plugin configurations may only list resources
`},
		{"a folder both of objects and of plugins", []string{
			"kustomization.yaml", "resources: [a]\ntransformers: [a]\n", "a/kustomization.yaml", "resources: [a.yaml]\n",
			"a/a.yaml", "{apiVersion: builtin, kind: PatchTransformer, metadata: {name: a}, path: 'https://example.com/p.yaml'}",
		}, "a/a.yaml:1:74: https://example.com/p.yaml is remote\n"},
		{"no kustomization", nil, ".: . is a folder without a kustomization.yaml\n"},
		{"malformed", []string{"kustomization.yaml", "resources: [a.yaml\n"}, "kustomization.yaml:2: malformed YAML: "},
		{"empty", []string{"kustomization.yaml", "# nothing\n"}, "kustomization.yaml: there is no kustomization in the file\n"},
		{"a list", []string{"kustomization.yaml", "- a.yaml\n"}, "kustomization.yaml: there is no kustomization in the file\n"},
		{"an unknown field", []string{"kustomization.yaml", "resources: []\nresorces: [a.yaml]\n"}, "kustomization.yaml:2:1: not a kustomization as Kustomize understands it: unknown field \"resorces\"\n"},
		{"two of them", []string{"kustomization.yaml", "namespace: a\n", "kustomization.yml", "namespace: b\n"}, "kustomization.yml: the folder has another kustomization in kustomization.yaml\n"},
		{"Kustomize's own", []string{"kustomization.yaml", "resources: [a.yaml]\npatches: [{path: p.yaml}]\n", "a.yaml", db, "p.yaml", "{apiVersion: v1, kind: Namespace, metadata: {name: x}}"}, "kustomization.yaml: kustomize: no resource matches strategic merge patch\n"},
		{"a cycle", []string{"kustomization.yaml", "resources: [a]\n", "a/kustomization.yaml", "resources: [../b]\n", "b/kustomization.yaml", "resources: [../a]\n"}, "kustomization.yaml: kustomize: accumulating resources\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := build(files(row.files...), ".")
			if err == nil {
				t.Fatal("no error")
			}
			got := strings.Split(err.Error(), "\n")
			want := strings.Split(strings.Trim(row.want, "\n"), "\n")
			for i := range max(len(got), len(want)) {
				if i >= len(got) || i >= len(want) || !strings.HasPrefix(got[i], want[i]) {
					t.Fatalf("got\n%s\nwant lines that begin with\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			}
		})
	}
}

func TestOnlineBoutique(t *testing.T) {
	const dir = "../../../shared/real/online-boutique"
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		t.Skip("the real tree is not here")
	}
	fsys := os.DirFS(dir)
	kinds := map[string]int{}
	for _, d := range mustBuild(t, fsys, ".") {
		var o struct {
			Kind     string
			Metadata struct{ Name, Namespace string }
		}
		if err := d.Node.Decode(&o); err != nil {
			t.Fatal(err)
		}
		kinds[o.Kind]++
		if o.Metadata.Namespace != "boutique" {
			t.Errorf("%s %s is in %q", o.Kind, o.Metadata.Name, o.Metadata.Namespace)
		}
		// Each scalar that the file has at its place is the one rendered.
		data, err := fs.ReadFile(fsys, d.File)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(data), "\n")
		for line := range strings.Lines(show([]k8s.Document{d})) {
			if !strings.HasPrefix(line, d.File) {
				continue // a further line of a value
			}
			var row, column int
			place, value, _ := strings.Cut(line, " ")
			if _, err := fmt.Sscanf(strings.TrimPrefix(place, d.File+":"), "%d:%d", &row, &column); err != nil {
				t.Fatal(line, err)
			}
			name, value, _ := strings.Cut(strings.TrimSuffix(value, "\n"), "=")
			at := strings.TrimLeft(lines[row-1][column-1:], `"'`)
			block := strings.HasPrefix(at, "|")
			if name != "metadata.namespace" && !block && !strings.HasPrefix(at, value) {
				t.Errorf("%s, but there is %q", line, at)
			}
		}
	}
	want := map[string]int{"Deployment": 12, "NetworkPolicy": 13, "Service": 12, "ServiceAccount": 11}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Errorf("kinds (-want +got):\n%s", diff)
	}
}

func BenchmarkOnlineBoutique(b *testing.B) {
	const dir = "../../../shared/real/online-boutique"
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		b.Skip("the real tree is not here")
	}
	for b.Loop() {
		if _, err := build(os.DirFS(dir), "."); err != nil {
			b.Fatal(err)
		}
	}
}
