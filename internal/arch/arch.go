// Package arch holds the house together: its table says on which floor each
// package lives, and its test fails where an import leads anywhere but down or a
// pure package reaches for the outside world. ARCHITECTURE.md draws the floors.
package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

const module = "github.com/weir-policy/weir"

// floor is how high a package lives. Imports lead to lower floors only.
type floor int

const (
	wire        floor = iota // custom resources as stored
	sets                     // ports, addresses, labels, runs of numbers
	words                    // what everything else talks about
	judgement                // the only place that decides
	conclusions              // what follows from many decisions
	letters                  // bytes to values and back, with places
	hands                    // each holds one thing of the outside world
	services                 // use cases and loops
	mains                    // flags, streams, exit status
	tests                    // what only tests import
)

// pure reports whether packages of the floor have no I/O, no clock, no
// randomness and no Kubernetes types.
func (f floor) pure() bool { return sets <= f && f <= conclusions }

// floors has a row for every package, and for those that are planned.
var floors = map[string]floor{
	"policies/library":  wire,
	"policies/v1alpha1": wire,

	"policies/netset":   sets,
	"policies/selector": sets,
	"simulator/bitrun":  sets,

	"policies": words,

	"policies/reach": judgement,

	"policies/conntest":   conclusions,
	"policies/diff":       conclusions,
	"policies/expression": conclusions,
	"policies/lint":       conclusions,
	"policies/invariant":  conclusions,
	"policies/query":      conclusions,
	"policies/rego":       conclusions,
	"simulator":           conclusions,
	"enforcer/nft":        conclusions,

	"enforcer/conntrack": letters,
	"policies/k8s":       letters,
	"simulator/flowline": letters,
	"simulator/flowlog":  letters,
	"simulator/flowrow":  letters,
	"internal/report":    letters,
	"internal/snapshot":  letters,

	"enforcer/kernel":      hands,
	"enforcer/record":      hands,
	"enforcer/capture":     hands,
	"simulator/flowlisten": hands,
	"simulator/flowstore":  hands,
	"simulator/clickhouse": hands,
	"internal/cluster":     hands,
	"internal/live":        hands,
	"internal/folder":      hands,
	"internal/standing":    hands,
	"internal/regotest":    hands,
	"internal/render":      hands,
	"internal/pack":        hands,
	"internal/repo":        hands,
	"internal/review":      hands,
	"webhook/cert":         hands,

	"enforcer":            services,
	"webhook":             services,
	"internal/api":        services,
	"internal/captures":   services,
	"internal/controller": services,
	"internal/flowsql":    services,
	"internal/ingest":     services,
	"internal/preview":    services,
	"internal/source":     services,

	"cmd/weir":               mains,
	"cmd/weir-agent":         mains,
	"cmd/weir-controller":    mains,
	"examples/shop/genflows": mains,
	"examples/node/talk":     mains,

	"internal/arch":           tests,
	"internal/testkit/flows":  tests,
	"internal/testkit":        tests,
	"internal/testkit/netns":  tests,
	"internal/testkit/plane":  tests,
	"internal/testkit/worlds": tests,
}

// folders are the top-level folders that may hold Go code.
var folders = []string{
	"charts", "cmd", "docs", "enforcer", "examples", "internal", "policies", "simulator", "tools", "webhook",
}

// shared are the packages that others of their own floor may import: languages
// in which several of them are asked, or speak.
var shared = map[string]bool{"policies/expression": true, "policies/rego": true, "simulator/flowline": true}

// evaluators are the libraries that a pure package may use, for they are pure
// too. Every other pure package makes do with the standard library.
var evaluators = map[string]string{
	"policies/expression": "github.com/google/cel-go",
	"policies/rego":       "github.com/open-policy-agent/opa",
}

// impure are the standard library's ways out, each with all below it.
var impure = []string{
	"crypto/rand", "database/sql", "io/fs", "io/ioutil", "log", "math/rand", "net", "os", "path/filepath",
	"plugin", "syscall", "testing",
}

// pureBelowImpure are the exceptions to that: values without a way out.
var pureBelowImpure = []string{"net/netip"}

// clock is what package time does besides describing moments.
var clock = []string{"After", "AfterFunc", "Local", "NewTicker", "NewTimer", "Now", "Since", "Sleep", "Tick", "Until"}

// check returns what is wrong with the house that stands in root, sorted. It
// reads all but the test files, whatever system they are for.
func check(root fs.FS) ([]string, error) {
	var problems []string
	seen := map[string]bool{}
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if isOutside(root, name) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		pkg := path.Dir(name)
		if !seen[pkg] {
			seen[pkg] = true
			if _, ok := floors[pkg]; !ok {
				problems = append(problems, pkg+": has no floor; add its row to internal/arch")
			}
			if top, _, _ := strings.Cut(pkg, "/"); !slices.Contains(folders, top) {
				problems = append(problems, fmt.Sprintf("%s: Go code lives in %s", pkg, strings.Join(folders, ", ")))
			}
		}
		found, err := checkFile(root, name, pkg)
		problems = append(problems, found...)
		return err
	})
	slices.Sort(problems)
	return problems, err
}

// isOutside reports whether the folder is no part of the module.
func isOutside(root fs.FS, name string) bool {
	base := path.Base(name)
	if name == "." {
		return false
	}
	if strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" || base == "vendor" {
		return true
	}
	_, err := fs.Stat(root, path.Join(name, "go.mod"))
	return err == nil
}

// checkFile returns what is wrong with one file of a package.
func checkFile(root fs.FS, name, pkg string) ([]string, error) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return nil, err
	}
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var problems []string
	report := func(node ast.Node, format string, args ...any) {
		at := files.Position(node.Pos())
		problems = append(problems, fmt.Sprintf("%s:%d: ", name, at.Line)+fmt.Sprintf(format, args...))
	}
	home, known := floors[pkg]
	timeName := ""
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, err
		}
		if imported == "time" {
			timeName = "time"
			if spec.Name != nil {
				timeName = spec.Name.Name
			}
		}
		if inside, ok := strings.CutPrefix(imported, module+"/"); ok {
			if below, ok := floors[inside]; known && ok && (below > home || below == home && !shared[inside]) {
				report(spec, "%s is on floor %d and may not import %s on floor %d", pkg, home, inside, below)
			}
			continue
		}
		if known && home.pure() && !allowed(pkg, imported) {
			report(spec, "%s is pure and may not import %s", pkg, imported)
		}
	}
	if !known || !home.pure() || timeName == "" {
		return problems, nil
	}
	ast.Inspect(file, func(node ast.Node) bool {
		use, ok := node.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if from, ok := use.X.(*ast.Ident); ok && from.Name == timeName && slices.Contains(clock, use.Sel.Name) {
			report(use, "%s is pure and may not use time.%s; take the moment from the caller", pkg, use.Sel.Name)
		}
		return true
	})
	return problems, nil
}

// allowed reports whether a pure package may import a package from outside.
func allowed(pkg, imported string) bool {
	if first, _, _ := strings.Cut(imported, "/"); strings.Contains(first, ".") {
		library, ok := evaluators[pkg]
		return ok && isOrBelow(imported, library)
	}
	below := func(folder string) bool { return isOrBelow(imported, folder) }
	return slices.Contains(pureBelowImpure, imported) || !slices.ContainsFunc(impure, below)
}

func isOrBelow(name, folder string) bool {
	return name == folder || strings.HasPrefix(name, folder+"/")
}
