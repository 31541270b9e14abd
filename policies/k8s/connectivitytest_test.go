package k8s

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/conntest"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

func TestTestsKeepTheirPlaces(t *testing.T) {
	docs, err := Parse("t.yaml", []byte(`kind: List
items:
- apiVersion: weir.dev/v1alpha1
  kind: ConnectivityTest
  metadata: {name: a}
  spec:
    tests:
    - from: [shop/web, shop/cart]
      to: shop/db
      port: 5432
      expect: deny
    - to: shop/db
      expectOnly: [{from: shop/web, expect: unknown}]
- apiVersion: v1
  kind: Pod
`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadTests(docs)
	if err != nil {
		t.Fatal(err)
	}
	text := func(text string, line, column int) conntest.Text {
		return conntest.Text{Text: text, Place: policies.Place{File: "t.yaml", Line: line, Column: column}}
	}
	want := []conntest.Suite{{
		Ref:    policies.Ref{Kind: v1alpha1.KindConnectivityTest, Name: "a"},
		Groups: map[string][]conntest.Text{},
		Place:  policies.Place{File: "t.yaml", Line: 3, Column: 3},
		Tests: []conntest.Test{
			{
				From: []conntest.Text{text("shop/web", 8, 14), text("shop/cart", 8, 24)}, To: []conntest.Text{text("shop/db", 9, 11)},
				Ports: []conntest.Text{text("5432", 10, 13)}, Expect: policies.Deny, Place: policies.Place{File: "t.yaml", Line: 8, Column: 7},
			},
			{
				To:    []conntest.Text{text("shop/db", 12, 11)},
				Only:  []conntest.Source{{From: []conntest.Text{text("shop/web", 13, 27)}, Expect: policies.Unknown}},
				Place: policies.Place{File: "t.yaml", Line: 12, Column: 7},
			},
		},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// FuzzReadTests asks for a suite or a problem of whatever is a document.
func FuzzReadTests(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(testkit.Root(f), "examples", "shop", "tests", "*.yaml"))
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("apiVersion: weir.dev/v1alpha1\nkind: ConnectivityTest\nmetadata: {name: a}\nspec: {groups: {[a]: 1, b: *c}, tests: [{to: {}}, ~, [], {expectOnly: [[], 1]}]}"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		docs, _ := Parse("t.yaml", data)
		_, _ = ReadTests(docs)
	})
}
