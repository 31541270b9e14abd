package testkit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

const document = "# Sample\n" + `
~~~sh
weir reach examples/shop
make demo
weir explain shop/cart shop/db 5432   # exit 1: denied
# A revision that is not there exits 2.
weir preview --base nowhere \
    --head HEAD
NO_COLOR=1 weir flows import - < flows.json | weir replay --flows - .
~~~

Not a command of ours, and not a shell's:

~~~yaml
weir reach
~~~

  ~~~sh
  cd examples/shop
  NAME=shop
  weird reach
  examples/shop/make-repo.sh dist/shop
  cat flows.json | weir flows list -
  ~~~
`

// fenced turns the tildes that stand for fences into fences.
func fenced(text string) string { return strings.ReplaceAll(text, "~~~", "```") }

func TestShellCommands(t *testing.T) {
	want := [][]command{
		{
			{at: "a.md:4", runs: true, text: "weir reach examples/shop"},
			{at: "a.md:6", runs: true, text: "weir explain shop/cart shop/db 5432   # exit 1: denied", exit: 1},
			{at: "a.md:8", runs: true, text: "weir preview --base nowhere \\\n    --head HEAD", exit: 2},
			{at: "a.md:10", runs: true, text: "NO_COLOR=1 weir flows import - < flows.json | weir replay --flows - ."},
		},
		{
			{at: "a.md:20", text: "cd examples/shop"},
			{at: "a.md:21", text: "NAME=shop"},
			{at: "a.md:23", runs: true, text: "examples/shop/make-repo.sh dist/shop"},
			{at: "a.md:24", runs: true, text: "cat flows.json | weir flows list -"},
		},
	}
	got := shellCommands("a.md", fenced(document))
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(command{})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// A weir of our own ends with the status it is given, and says where it is.
func TestRunBlock(t *testing.T) {
	bin, dir := t.TempDir(), t.TempDir()
	script := "#!/bin/sh\necho \"in ${PWD##*/} with $2\"\nexit $1\n"
	if err := os.WriteFile(filepath.Join(bin, "weir"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "shop"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	tests := []struct{ name, commands, want string }{
		{"0 unless it says otherwise", "weir 0", ""},
		{"an announced 1", "weir 1 # exits 1", ""},
		{"every surprise", "cd shop\nNAME=cart\nweir 1 $NAME\nweir 2 db # exit 1\nweir 0", "" +
			"a.md:4: exit status 1 instead of 0: weir 1 $NAME\nin shop with cart\n" +
			"a.md:5: exit status 2 instead of 1: weir 2 db # exit 1\nin shop with db"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := ""
			blocks := shellCommands("a.md", fenced("~~~sh\n"+test.commands+"\n~~~\n"))
			if err := runBlock(dir, blocks[0]); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestDocumentsAndWhatTheyShow(t *testing.T) {
	root := fstest.MapFS{
		"README.md":                {Data: []byte("weir"), Mode: 0o644},
		"docs/reach.md":            {Mode: 0o644},
		"docs/decisions/0001.md":   {Mode: 0o644},
		"examples/README.md":       {Mode: 0o644},
		"examples/shop/README.md":  {Mode: 0o644},
		"examples/shop/demo.sh":    {Mode: 0o755},
		"policies/README.md":       {Mode: 0o644},
		"policies/reach/README.md": {Mode: 0o644},
	}
	got, err := documents(root)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"README.md", "docs/reach.md", "examples/README.md", "examples/shop/README.md"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if _, err := documents(fstest.MapFS{"README.md": {}}); err != nil {
		t.Errorf("without examples: %v", err)
	}

	dir := t.TempDir()
	if err := copyShown(dir, root); err != nil {
		t.Fatal(err)
	}
	for name, there := range map[string]bool{"README.md": true, "examples/shop/README.md": true, "policies/README.md": false} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != there {
			t.Errorf("%s in the copy: %v", name, err)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "examples/shop/demo.sh")); err != nil || info.Mode().Perm()&0o100 == 0 {
		t.Errorf("demo.sh does not run any more: %v, %v", info.Mode(), err)
	}
}
