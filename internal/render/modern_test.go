package render_test

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const shop = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: np
spec:
  podSelector:
    matchLabels: {app: db}
  policyTypes:
  - Ingress
  ingress:
  - from:
    - podSelector: {matchLabels: {app: web}}
    ports:
    - {protocol: TCP, port: 5432}
  - from:
    - podSelector: {matchLabels: {app: api}}
    ports:
    - {protocol: TCP, port: 5432}
`

const app = `apiVersion: apps/v1
kind: Deployment
metadata: {name: db}
spec:
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: postgres}]}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {selector: {app: db}, ports: [{port: 5432}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: old}
`

type older struct {
	name  string
	fails bool
	files []string
}

// olderFields are trees with fields that Kustomize warns of.
var olderFields = []older{
	{"bases and commonLabels", false, []string{"top/kustomization.yaml", `
bases: [../base]
resources: [np.yaml]
commonLabels: {team: shop, app.kubernetes.io/part-of: "yes"}
labels: [{pairs: {tier: data}}]
`, "top/np.yaml", shop}},
	{"the same label in labels and commonLabels", false, []string{"top/kustomization.yaml", `
resources: [../base]
commonLabels: {team: b}
labels: [{pairs: {team: a, tier: data}, includeSelectors: true}]
`}},
	{"merge patches of both kinds on one field", false, []string{"top/kustomization.yaml", `
resources: [../base]
namePrefix: a-
patches:
- patch: '{apiVersion: apps/v1, kind: Deployment, metadata: {name: db}, spec: {replicas: 5}}'
patchesStrategicMerge:
- patch.yaml
- |-
  apiVersion: v1
  kind: Service
  metadata: {name: db}
  spec: {ports: [{port: 5432, name: sql}]}
`, "top/patch.yaml", `# first
---
apiVersion: v1
kind: ConfigMap
metadata: {name: old}
$patch: delete
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: db}
spec: {replicas: 2, paused: true}
`}},
	{"JSON patches before and after each other", false, []string{"top/kustomization.yaml", `
resources: [../base]
patches:
- target: {kind: Service}
  patch: '[{"op": "add", "path": "/spec/ports/-", "value": {"port": 1}}]'
patchesJson6902:
- target: {version: v1, kind: Service, name: db}
  path: patch.json
- target: {version: v1, kind: Service, name: db}
  patch: |-
    - {op: replace, path: /spec/ports/1/port, value: 3}
imageTags: [{name: postgres, newTag: "16"}]
images: [{name: postgres, newName: pg}]
`, "top/patch.json", `[{"op": "add", "path": "/spec/ports/-", "value": {"port": 2}}]`}},
	{"JSON patches after labels and a namespace", false, []string{"top/kustomization.yaml", `
resources: [../base]
namespace: prod
nameSuffix: -x
commonLabels: {team: shop}
patchesJson6902:
- target: {version: v1, kind: Service, name: db}
  path: patch.yaml
- target: {group: apps, version: v1, kind: Deployment, name: db}
  patch: '[{"op": "test", "path": "/metadata/namespace", "value": "prod"}]'
transformers:
- |
  apiVersion: builtin
  kind: PatchTransformer
  metadata: {name: more}
  target: {kind: Service}
  patch: '[{"op": "test", "path": "/spec/selector/team", "value": "none"}, {"op": "remove", "path": "/spec/ports"}]'
`, "top/patch.yaml", "- {op: replace, path: /spec/selector/team, value: none}\n"}},
	{"empty fields", false, []string{"top/kustomization.yaml", "resources: [../base]\nbases: []\nvars: []\nimageTags: []\ncommonLabels: {}\npatchesStrategicMerge: []\npatchesJson6902: []\n"}},
	{"names in capitals, and a merge key", false, []string{"top/kustomization.yaml", "Bases: [../base]\n<<: {COMMONLABELS: {a: b}}\n"}},
	{"several floors", false, []string{
		"top/kustomization.yaml", "bases: [../middle]\ncommonLabels: {env: prod}\npatchesStrategicMerge: [p.yaml]\n",
		"top/p.yaml", "{apiVersion: v1, kind: Service, metadata: {name: m-db}, spec: {type: NodePort}}",
		"middle/kustomization.yaml", "bases: [../base]\nnamePrefix: m-\ncomponents: [../part]\n",
		"part/kustomization.yaml", "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\ncommonLabels: {part: a}\npatchesStrategicMerge: [p.yaml]\n",
		"part/p.yaml", "{apiVersion: v1, kind: Service, metadata: {name: db}, spec: {sessionAffinity: ClientIP}}",
	}},
}

// leftFields are trees with such fields that have no newer form, or of which
// Kustomize takes only the older for wrong.
var leftFields = []older{
	{"a merge patch for nothing", true, []string{"top/kustomization.yaml", "resources: [../base]\npatchesStrategicMerge: [p.yaml]\n", "top/p.yaml", "{apiVersion: v1, kind: Service, metadata: {name: none}}"}},
	{"a merge patch that is empty", true, []string{"top/kustomization.yaml", "resources: [../base]\npatchesStrategicMerge: [p.yaml]\n", "top/p.yaml", ""}},
	{"a JSON patch without a name", true, []string{"top/kustomization.yaml", "resources: [../base]\npatchesJson6902: [{target: {kind: Service}, patch: '[{op: remove, path: /spec}]'}]\n"}},
	{"JSON patches between labels and images", false, []string{"top/kustomization.yaml", `
resources: [../base]
commonLabels: {a: b}
images: [{name: postgres, newTag: "16"}]
patchesJson6902: [{target: {kind: Deployment, name: db}, patch: '[{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "pg"}]'}]
`}},
	{"variables, and commonLabels where configurations say what they label", false, []string{"top/kustomization.yaml", `
resources: [../base]
configurations: [c.yaml]
commonLabels: {a: b}
vars: [{name: DB, objref: {apiVersion: v1, kind: Service, name: db}}]
`, "top/c.yaml", "commonLabels: [{path: data/more, create: true, kind: ConfigMap}]\nlabels: [{path: data/labels, create: true, kind: ConfigMap}]\n"}},
	{"transformer annotations", false, []string{"top/kustomization.yaml", "resources: [../base]\nbuildMetadata: [transformerAnnotations]\npatchesStrategicMerge: ['{apiVersion: v1, kind: Service, metadata: {name: db}, spec: {type: NodePort}}']\n"}},
}

func olderTree(more []string) fstest.MapFS {
	return files(append([]string{"base/kustomization.yaml", "resources: [app.yaml]\n", "base/app.yaml", app}, more...)...)
}

// kustomize builds the top of a tree as Kustomize itself does.
func kustomize(t *testing.T, tree fstest.MapFS) ([]any, error) {
	t.Helper()
	disk := filesys.MakeFsInMemory()
	for name, file := range tree {
		if err := disk.WriteFile("/"+name, file.Data); err != nil {
			t.Fatal(err)
		}
	}
	options := krusty.MakeDefaultOptions()
	options.LoadRestrictions = types.LoadRestrictionsNone
	built, err := krusty.MakeKustomizer(options).Run(disk, "/top")
	if err != nil {
		return nil, err
	}
	var objects []any
	for _, r := range built.Resources() {
		objects = append(objects, decode(t, []byte(r.MustYaml())))
	}
	return objects, nil
}

func decode(t *testing.T, text []byte) any {
	t.Helper()
	var object any
	if err := yaml.Unmarshal(text, &object); err != nil {
		t.Fatal(err)
	}
	return object
}

func TestOlderFieldsMeanTheSame(t *testing.T) {
	for _, row := range slices.Concat(olderFields, leftFields) {
		t.Run(row.name, func(t *testing.T) {
			tree := olderTree(row.files)
			want, wantErr := kustomize(t, tree)
			documents, err := build(tree, "top")
			if (err == nil) != (wantErr == nil) || err != nil && !row.fails {
				t.Fatalf("got %v, Kustomize has %v", err, wantErr)
			}
			var got []any
			for _, d := range documents {
				text, err := yaml.Marshal(d.Node)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, decode(t, text))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-Kustomize +Weir):\n%s", diff)
			}
		})
	}
}

// Rendering writes nothing to standard error, which is seen from outside.
func TestNothingIsPrinted(t *testing.T) {
	const inside = "WEIR_TEST_RENDER"
	if os.Getenv(inside) != "" {
		for _, row := range olderFields {
			mustBuild(t, olderTree(row.files), "top")
		}
		return
	}
	self := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	self.Env = append(os.Environ(), inside+"=1")
	var printed bytes.Buffer
	self.Stderr = &printed
	if out, err := self.Output(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if printed.Len() > 0 {
		t.Errorf("printed:\n%s", strings.TrimSpace(printed.String()))
	}
}
