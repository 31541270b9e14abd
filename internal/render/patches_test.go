package render_test

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/internal/render"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
)

// Every rule of the base is replaced by a patch, and another patch adds one.
var overlay = []string{
	"base/kustomization.yaml", "resources: [np.yaml]\n", "base/np.yaml", shop,
	"prod/kustomization.yaml", `
namePrefix: prod-
resources: [../base]
patches:
- path: patch.yaml
- path: add.yaml
  target: {kind: NetworkPolicy, name: np}
`,
	"prod/patch.yaml", `# tighter than the base
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: np
spec:
  ingress:
  - from:
    - podSelector: {matchLabels: {app: front}}
    ports:
    - {protocol: TCP, port: 5433}
`,
	"prod/add.yaml", `
- op: test
  path: /kind
  value: NetworkPolicy
- op: add
  path: /spec/ingress/-
  value:
    from:
    - podSelector: {matchLabels: {app: backup}}
    ports:
    - {protocol: TCP, port: 5432}
`}

// rules prints where each rule of the policies is, and its peers and ports.
func rules(t *testing.T, fsys fs.FS, dir string) string {
	t.Helper()
	m, err := k8s.Read(mustBuild(t, fsys, dir), k8s.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, p := range m.Policies {
		fmt.Fprintf(&out, "%s %s\n", p.Place, p.Ref.Name)
		for _, r := range p.Rules[policies.Ingress] {
			fmt.Fprintf(&out, "%s rule\n", r.Place)
			for _, peer := range r.Peers {
				fmt.Fprintf(&out, "%s peer\n", peer.Place)
			}
		}
	}
	return out.String()
}

func TestPlacesOfPatches(t *testing.T) {
	with := func(kustomization string, more ...string) []string {
		return append([]string{"base/kustomization.yaml", "resources: [np.yaml]\n", "base/np.yaml", shop, "prod/kustomization.yaml", kustomization}, more...)
	}
	for _, row := range []struct {
		name  string
		files []string
		want  string
	}{
		{"rules of two patches", overlay, `
base/np.yaml:1:1 prod-np
prod/patch.yaml:8:5 rule
prod/patch.yaml:9:7 peer
prod/add.yaml:8:5 rule
prod/add.yaml:9:7 peer
`},
		{"labels on top", append([]string{"top/kustomization.yaml", "resources: [../prod]\ncommonLabels: {team: shop, tier: data}\n"}, overlay...), `
base/np.yaml:1:1 prod-np
prod/patch.yaml:8:5 rule
prod/patch.yaml:9:7 peer
prod/add.yaml:8:5 rule
prod/add.yaml:9:7 peer
`},
		{"written in the kustomization", with(`
resources: [../base]
patches:
- patch: |-

    apiVersion: networking.k8s.io/v1
    kind: NetworkPolicy
    metadata: {name: np}
    spec:
      ingress:
      - from: [{podSelector: {matchLabels: {app: front}}}]
- target: {kind: NetworkPolicy}
  patch: '[{"op": "add", "path": "/spec/ingress/0", "value": {"from": [{"podSelector": {}}]}}]'
`), `
base/np.yaml:1:1 np
prod/kustomization.yaml:13:10 rule
prod/kustomization.yaml:13:10 peer
prod/kustomization.yaml:11:9 rule
prod/kustomization.yaml:11:16 peer
`},
		{"the older fields", with(`
resources: [../base]
patchesStrategicMerge:
- patch.yaml
- |
  apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: np}
  spec: {podSelector: {matchLabels: {app: pg}}}
patchesJson6902:
- target: {group: networking.k8s.io, version: v1, kind: NetworkPolicy, name: np}
  path: add.json
`, "prod/patch.yaml", overlay[7], "prod/add.json", `[
  {"op": "add", "path": "/spec/ingress/0", "value":
    {"ports": [{"port": 9187}]}}
]`), `
base/np.yaml:1:1 np
prod/add.json:3:5 rule
prod/add.json:3:5 peer
prod/patch.yaml:8:5 rule
prod/patch.yaml:9:7 peer
`},
		{"rules that the base has, in another order", with(`
resources: [../base]
patches:
- path: patch.yaml
`, "prod/patch.yaml", `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: np}
spec:
  ingress:
  - from: [{podSelector: {matchLabels: {app: api}}}]
    ports: [{protocol: TCP, port: 5432}]
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{protocol: TCP, port: 5432}]
  - {}
`), `
base/np.yaml:1:1 np
base/np.yaml:15:5 rule
base/np.yaml:16:7 peer
base/np.yaml:11:5 rule
base/np.yaml:12:7 peer
prod/patch.yaml:11:5 rule
prod/patch.yaml:11:5 peer
`},
		{"a rule gets one more peer", with(`
resources: [../base]
patches:
- target: {kind: NetworkPolicy}
  patch: |
    - op: add
      path: /spec/ingress/1/from/-
      value: {podSelector: {matchLabels: {app: cron}}}
`), `
base/np.yaml:1:1 np
base/np.yaml:11:5 rule
base/np.yaml:12:7 peer
base/np.yaml:15:5 rule
base/np.yaml:16:7 peer
prod/kustomization.yaml:8:14 peer
`},
		{"from a file that Weir does not look for patches in", with(`
resources: [../base]
transformers: [add.yaml]
`, "prod/add.yaml", `
apiVersion: builtin
kind: PatchTransformer
metadata: {name: add}
target: {kind: NetworkPolicy}
patch: '[{"op": "add", "path": "/spec/ingress/0", "value": {"from": [{"podSelector": {}}]}}]'
`), `
base/np.yaml:1:1 np
base/np.yaml:1:1 rule
base/np.yaml:1:1 peer
base/np.yaml:11:5 rule
base/np.yaml:12:7 peer
base/np.yaml:15:5 rule
base/np.yaml:16:7 peer
`},
		{"a patch for another policy", with(`
resources: [../base, other.yaml]
patches:
- path: patch.yaml
- target: {kind: NetworkPolicy, name: o.*}
  patch: |
    - {op: add, path: /spec/ingress, value: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}
`, "prod/other.yaml", strings.ReplaceAll(shop[:strings.Index(shop, "  ingress:")], "np", "other"), "prod/patch.yaml", overlay[7]), `
base/np.yaml:1:1 np
prod/patch.yaml:8:5 rule
prod/patch.yaml:9:7 peer
prod/other.yaml:1:1 other
prod/kustomization.yaml:7:46 rule
prod/kustomization.yaml:7:54 peer
`},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := "prod"
			if row.files[0] == "top/kustomization.yaml" {
				dir = "top"
			}
			if diff := cmp.Diff(strings.TrimPrefix(row.want, "\n"), rules(t, files(row.files...), dir)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What is wrong is reported where it was written.
func TestProblemsInPatches(t *testing.T) {
	for _, row := range []struct{ name, file, patch, want string }{
		{"a strategic merge patch", "patch.yaml", strings.ReplaceAll(overlay[7], "5433", "70000"), "prod/patch.yaml:11:29: "},
		{"a value of its own", "patch.yaml", `
- op: replace
  path: /spec/ingress/1/ports/0/port
  value: 70000
`, "prod/patch.yaml:4:10: "},
		{"a rule", "patch.json", `[{"op": "replace", "path": "/spec/ingress/0",
"value": {"ports": [{"protocol": "TCP", "port": 70000}]}}]`, "prod/patch.json:2:49: "},
	} {
		t.Run(row.name, func(t *testing.T) {
			fsys := files("base/kustomization.yaml", "resources: [np.yaml]\n", "base/np.yaml", shop,
				"prod/kustomization.yaml", "resources: [../base]\npatches: [{path: "+row.file+", target: {kind: NetworkPolicy}}]\n",
				"prod/"+row.file, row.patch)
			plan, err := render.NewPlan(treeOf(fsys), "prod")
			if err != nil {
				t.Fatal(err)
			}
			documents, err := plan.Build()
			if err != nil {
				t.Fatal(err)
			}
			if _, err = k8s.Read(documents, k8s.Options{}); err == nil || !strings.HasPrefix(err.Error(), row.want) {
				t.Errorf("got %v, want %s…", err, row.want)
			}
		})
	}
}
