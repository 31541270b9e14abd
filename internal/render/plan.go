package render

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/types"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
)

// NewPlan reads the kustomization in dir, where Find finds one, and all that it
// refers to. The error
// joins every entry that is missing, remote or needs a program to run, each a
// policies.Problem at its place.
func NewPlan(tree Tree, dir string) (*Plan, error) {
	s := scan{plan: &Plan{tree: tree, dir: dir, absent: map[string]bool{}}, seen: map[string]bool{}, plugins: map[string]bool{}, files: map[string]bool{}, kustomizations: map[string]*types.Kustomization{}}
	s.kustomization(dir, &entry{scan: &s, file: dir, node: &yaml.Node{Value: tree.Name(dir)}})
	delete(s.seen, dir)
	s.plan.Dirs = slices.Sorted(maps.Keys(s.seen))
	s.plan.Files = slices.Sorted(maps.Keys(s.files))
	if len(s.problems) > 0 {
		return s.plan, errors.Join(s.problems...)
	}
	var err error
	s.plan.contents, err = s.plan.modern(s.kustomizations)
	return s.plan, err
}

type scan struct {
	plan     *Plan
	seen     map[string]bool // kustomizations
	plugins  map[string]bool // folders of plugin configurations
	files    map[string]bool
	problems []error
	// kustomizations are those of both, by file.
	kustomizations map[string]*types.Kustomization
}

func (s *scan) problem(file string, at *yaml.Node, format string, args ...any) {
	place := policies.Place{File: s.plan.tree.Name(file)}
	if at != nil {
		place.Line, place.Column = at.Line, at.Column
	}
	s.problems = append(s.problems, policies.Problem{Place: place, Message: fmt.Sprintf(format, args...)})
}

// kustomization reads the one in dir, for which an entry asked.
func (s *scan) kustomization(dir string, asker *entry) {
	seen := s.seen
	if asker.plugin {
		seen = s.plugins
	}
	if seen[dir] {
		return
	}
	seen[dir] = true
	file := Find(s.plan.tree.Files, dir)
	if dir == s.plan.dir {
		s.plan.file = file
	}
	if file == "" {
		asker.problem("%s is a folder without a kustomization.yaml; add one, or name its files", asker.node.Value)
		return
	}
	for _, name := range konfig.RecognizedKustomizationFileNames() {
		if _, err := fs.Stat(s.plan.tree.Files, path.Join(dir, name)); err == nil && path.Join(dir, name) != file {
			s.problem(path.Join(dir, name), nil, "the folder has another kustomization in %s; keep one of them", path.Base(file))
		}
	}
	document := s.document(file)
	if document == nil {
		return
	}
	if asker.plugin {
		s.pluginFolder(dir, file, asker.base, document)
		return
	}
	s.fields(dir, file, document)
	if dir == s.plan.dir {
		s.plan.Component = s.kustomizations[file].Kind == types.ComponentKind
	}
}

// document returns the kustomization in a file, nil where it has a problem.
func (s *scan) document(file string) *yaml.Node {
	data, ok := s.read(file)
	if !ok {
		return nil
	}
	documents, err := k8s.Parse(s.plan.tree.Name(file), data)
	if err != nil {
		s.problems = append(s.problems, err)
		return nil
	}
	if len(documents) == 0 {
		s.problem(file, nil, "there is no kustomization in the file; list what it is made of under resources")
		return nil
	}
	root := documents[0].Node
	kustomization := new(types.Kustomization)
	if err := kustomization.Unmarshal(data); err != nil {
		at := root
		for key := range entries(root) {
			if strings.Contains(err.Error(), strconv.Quote(key.Value)) {
				at = key
			}
		}
		message := strings.TrimPrefix(err.Error(), "invalid Kustomization: ")
		s.problem(file, at, "not a kustomization as Kustomize understands it: %s", strings.TrimPrefix(message, "json: "))
		return nil
	}
	s.kustomizations[file] = kustomization
	return root
}

func (s *scan) read(file string) ([]byte, bool) {
	s.files[file] = true
	data, err := fs.ReadFile(s.plan.tree.Files, file)
	if err != nil {
		s.problem(file, nil, "%v", reason(err))
	}
	return data, err == nil
}

// reason is why a file operation failed, without the path.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// fields follows each field of a kustomization that can name files. Kustomize
// takes field names without regard to case.
func (s *scan) fields(dir, file string, kustomization *yaml.Node) {
	var patches []patchEntry
	for key, value := range entries(kustomization) {
		of := func(node *yaml.Node) *entry { return &entry{scan: s, dir: dir, base: dir, file: file, node: node} }
		switch strings.ToLower(key.Value) {
		case "resources", "bases":
			for node := range scalars(value) {
				of(node).resource()
			}
		case "components":
			for node := range scalars(value) {
				of(node).component()
			}
		case "crds", "configurations":
			for node := range scalars(value) {
				of(node).supplement(node.Value)
			}
		case "patchesstrategicmerge":
			patches = append(patches, patchEntries(dir, file, value)...)
			for node := range scalars(value) {
				if !isInline(node) {
					of(node).supplement(node.Value)
				}
			}
		case "generators", "transformers", "validators":
			for node := range scalars(value) {
				of(node).pluginConfig()
			}
		case "patches", "patchesjson6902":
			patches = append(patches, patchEntries(dir, file, value)...)
			for node := range named(value, "path") {
				of(node).supplement(node.Value)
			}
		case "replacements", "openapi":
			for node := range named(value, "path") {
				of(node).supplement(node.Value)
			}
		case "configmapgenerator", "secretgenerator":
			for node := range named(value, "files", "envs", "env") {
				e := of(node)
				e.secret = strings.EqualFold(key.Value, "secretGenerator")
				name := node.Value
				if _, after, ok := strings.Cut(name, "="); ok && !isRemote(name) { // key=file
					name = after
				}
				e.supplement(name)
			}
		case "helmcharts", "helmchartinflationgenerator":
			s.problem(file, key, noHelm)
		}
	}
	s.plan.patchEntries = append(s.plan.patchEntries, patches...)
}

// pluginFolder follows a kustomization whose objects configure plugins. What it
// may do is limited to listing files, so that these can be looked through.
func (s *scan) pluginFolder(dir, file, base string, kustomization *yaml.Node) {
	for key, value := range entries(kustomization) {
		switch strings.ToLower(key.Value) {
		case "apiversion", "kind", "metadata":
		case "resources":
			for node := range scalars(value) {
				(&entry{scan: s, dir: dir, base: base, file: file, node: node}).pluginConfig()
			}
		default:
			s.problem(file, key, "a folder of plugin configurations may only list resources; %s is not understood here", key.Value)
		}
	}
}

// entry is one reference of a kustomization.
type entry struct {
	scan      *scan
	dir, file string // of the kustomization
	base      string // the folder that paths in plugin configurations start from
	node      *yaml.Node
	secret    bool
	plugin    bool
}

func (e *entry) problem(format string, args ...any) { e.scan.problem(e.file, e.node, format, args...) }

const (
	remoteMessage = "%s is remote and Weir fetches nothing; vendor it: keep a copy in the repository and name that"
	noHelm        = "Weir renders no Helm charts; render this one with helm template and list its output under resources"
)

// locate returns the path in the tree that the entry names, and what is there;
// nil, and a problem, where there is nothing Weir can read.
func (e *entry) locate(text string) (string, fs.FileInfo) {
	at := path.Join(e.dir, text)
	switch {
	case isRemote(text):
		e.problem(remoteMessage, text)
	case path.IsAbs(text):
		e.problem("%s is an absolute path; name it relative to this file", text)
	case at == ".." || strings.HasPrefix(at, "../"):
		e.problem("%s is outside of the repository", text)
	default:
		info, err := fs.Stat(e.scan.plan.tree.Files, at)
		switch {
		case err == nil:
			return at, info
		case errors.Is(err, fs.ErrNotExist) && e.secret:
			e.scan.plan.absent[at] = true
			e.scan.plan.Warnings = append(e.scan.plan.Warnings, policies.Warning{
				Place:   policies.Place{File: e.scan.plan.tree.Name(e.file), Line: e.node.Line, Column: e.node.Column},
				Message: fmt.Sprintf("%s does not exist; taken as empty, for policies do not depend on what is in a Secret", text),
			})
		case errors.Is(err, fs.ErrNotExist):
			e.problem("%s does not exist", text)
		default:
			e.problem("%s: %v", text, reason(err))
		}
	}
	return "", nil
}

// resource is a file of objects, or a kustomization.
func (e *entry) resource() {
	at, info := e.locate(e.node.Value)
	switch {
	case info == nil:
	case info.IsDir():
		e.scan.kustomization(at, e)
	default:
		if e.scan.files[at] {
			return
		}
		e.scan.files[at] = true
		if _, err := e.scan.plan.tree.Parse(at); err != nil {
			e.scan.problems = append(e.scan.problems, err)
		}
	}
}

func (e *entry) component() {
	at, info := e.locate(e.node.Value)
	switch {
	case info == nil:
	case info.IsDir():
		e.scan.kustomization(at, e)
	default:
		e.problem("%s is a file; a component is a folder with a kustomization.yaml of kind Component", e.node.Value)
	}
}

// supplement is a file that is not of objects.
func (e *entry) supplement(name string) {
	at, info := e.locate(name)
	switch {
	case info == nil:
	case info.IsDir():
		e.problem("%s is a folder; name a file", name)
	default:
		e.scan.files[at] = true
	}
}

// pluginConfig is an object that configures a generator, transformer or
// validator: written in place, in a file, or in several files of a folder.
func (e *entry) pluginConfig() {
	if isInline(e.node) {
		e.check([]byte(e.node.Value), e.node)
		return
	}
	at, info := e.locate(e.node.Value)
	switch {
	case info == nil:
	case info.IsDir():
		e.plugin = true
		e.scan.kustomization(at, e)
	default:
		if data, ok := e.scan.read(at); ok {
			inFile := &entry{scan: e.scan, base: e.base, file: at}
			inFile.check(data, nil)
		}
	}
}

// check looks through plugin configurations for what would leave this process.
// Those written in place have the place of their entry, as their own lines count
// from there.
func (e *entry) check(data []byte, inline *yaml.Node) {
	place := func(n *yaml.Node) *yaml.Node { return cmp.Or(inline, n) }
	documents, err := k8s.Parse(e.scan.plan.tree.Name(e.file), data)
	switch {
	case err != nil && inline != nil:
		e.scan.problem(e.file, inline, "malformed YAML in the entry")
	case err != nil:
		e.scan.problems = append(e.scan.problems, err)
	}
	for _, document := range documents {
		config := document.Node
		version, kind := child(config, "apiVersion"), child(config, "kind")
		if version == nil || version.Value != konfig.BuiltinPluginApiVersion || kind == nil {
			e.scan.problem(e.file, place(config), "only Kustomize's built-in plugins (apiVersion: builtin) are run; others are programs")
			continue
		}
		if strings.HasPrefix(kind.Value, "HelmChart") {
			e.scan.problem(e.file, place(kind), noHelm)
			continue
		}
		for node := range named(config, "path", "paths", "files", "envs", "env", "targetFilePath") {
			if isRemote(node.Value) {
				e.scan.problem(e.file, place(node), remoteMessage, node.Value)
				continue
			}
			// A path may also be one of fields; Kustomize knows.
			at := path.Join(e.base, node.Value)
			if info, err := fs.Stat(e.scan.plan.tree.Files, at); err == nil && !info.IsDir() {
				e.scan.files[at] = true
			}
		}
	}
}

// isInline reports whether an entry is YAML itself, not the name of a file.
func isInline(entry *yaml.Node) bool {
	var n yaml.Node
	return yaml.Unmarshal([]byte(entry.Value), &n) == nil && len(n.Content) > 0 && n.Content[0].Kind != yaml.ScalarNode
}

var remote = regexp.MustCompile(`(?i)^(git::|[a-z][a-z0-9+.-]*://|https?:|github\.com[/:]|[a-z][a-z0-9-]*@[^/:]*[/:])`)

// isRemote reports whether Kustomize could take the entry for an address. It
// knows every form that Kustomize's loader tries, and some that others use.
func isRemote(entry string) bool {
	_, file, _ := strings.Cut(entry, "=")
	return remote.MatchString(entry) || remote.MatchString(file)
}
