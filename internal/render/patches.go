package render

import (
	"io/fs"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/resid"
)

// patchEntry is a patch as a kustomization lists it.
type patchEntry struct {
	file   string          // that its text is in
	inline *yaml.Node      // the text itself, where file is the kustomization
	target *types.Selector // nil where the text says what it patches
}

// patchEntries returns what a field of a kustomization in dir lists.
func patchEntries(dir, file string, field *yaml.Node) []patchEntry {
	var found []patchEntry
	add := func(target *types.Selector, name, text *yaml.Node) {
		switch {
		case text != nil:
			found = append(found, patchEntry{file: file, inline: text, target: target})
		case name != nil:
			found = append(found, patchEntry{file: path.Join(dir, name.Value), target: target})
		}
	}
	if field.Kind != yaml.SequenceNode {
		return nil
	}
	for _, item := range field.Content {
		item = resolve(item)
		switch {
		case item.Kind == yaml.MappingNode:
			var target *types.Selector
			if selector := child(item, "target"); selector != nil {
				target = new(types.Selector)
				_ = selector.Decode(target) // Kustomize has read it, too
			}
			add(target, child(item, "path"), child(item, "patch"))
		case isInline(item):
			add(nil, nil, item)
		default:
			add(nil, item, nil)
		}
	}
	return found
}

// patch is one document of a patch, with the places of its nodes.
type patch struct {
	origin
	target *types.SelectorRegex // nil where the document names its object
}

// patches returns the documents of the plan's patches, those that are applied
// last first.
func (p *Plan) patches() []patch {
	var all []patch
	for _, entry := range p.patchEntries {
		all = append(all, p.documents(entry)...)
	}
	slices.Reverse(all)
	return all
}

func (p *Plan) documents(entry patchEntry) []patch {
	data, err := fs.ReadFile(p.tree.Files, entry.file)
	if err != nil {
		return nil
	}
	text := string(data)
	if entry.inline != nil {
		text = entry.inline.Value
	}
	var selector *types.SelectorRegex
	if entry.target != nil {
		if selector, err = types.NewSelectorRegex(entry.target); err != nil {
			return nil
		}
	}
	var found []patch
	for decoder := yaml.NewDecoder(strings.NewReader(text)); ; {
		var document yaml.Node
		if decoder.Decode(&document) != nil {
			return found
		}
		root := resolve(document.Content[0])
		if isLarge(root) {
			continue
		}
		if entry.inline != nil {
			moveInto(root, entry.inline, data)
		}
		found = append(found, patch{origin{entry.file, root}, selector})
	}
}

// moveInto gives the nodes of a text inside of a file their places in the file,
// or that of the text where its lines are not those of the file.
func moveInto(n, text *yaml.Node, file []byte) {
	if text.Style&yaml.LiteralStyle == 0 {
		n.Line, n.Column = text.Line, text.Column
	} else {
		n.Line += text.Line
		n.Column += indent(strings.Split(string(file), "\n")[text.Line:]) - indent(strings.Split(text.Value, "\n"))
	}
	for _, c := range n.Content {
		moveInto(c, text, file)
	}
}

// indent returns how far the first line that is not blank is indented.
func indent(lines []string) int {
	for _, line := range lines {
		if text := strings.TrimLeft(line, " "); strings.TrimSpace(text) != "" {
			return len(line) - len(text)
		}
	}
	return 0
}

// maxPatch is the number of nodes in a patch, its aliases followed, above which
// nothing is looked for in it.
const maxPatch = 1 << 16

func isLarge(root *yaml.Node) bool {
	count := 0
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		count++
		for _, c := range resolve(n).Content {
			if count <= maxPatch {
				walk(c)
			}
		}
	}
	walk(root)
	return count > maxPatch
}

// origins returns what the patch brings to an object, in the shape of the object;
// none where it patches others. The written object is the one that was rendered,
// nil where that is not clear.
func (p patch) origins(rendered, written *yaml.Node) []origin {
	if !p.isFor(rendered) && !p.isFor(written) {
		return nil
	}
	switch p.node.Kind {
	case yaml.MappingNode:
		return []origin{p.origin}
	case yaml.SequenceNode: // JSON6902
		var found []origin
		for _, operation := range slices.Backward(p.node.Content) {
			if op, value := text(operation, "op"), child(operation, "value"); value != nil && (op == "add" || op == "replace") {
				found = append(found, origin{p.file, reach(text(operation, "path"), value)})
			}
		}
		return found
	}
	return nil
}

func (p patch) isFor(object *yaml.Node) bool {
	kind, name, namespace := text(object, "kind"), text(object, "metadata", "name"), text(object, "metadata", "namespace")
	if p.target != nil {
		group, version := resid.ParseGroupVersion(text(object, "apiVersion"))
		return object != nil && p.target.MatchGvk(resid.Gvk{Group: group, Version: version, Kind: kind}) &&
			p.target.MatchName(name) && (namespace == "" || p.target.MatchNamespace(namespace))
	}
	theirs := text(p.node, "metadata", "namespace")
	return p.node.Kind == yaml.MappingNode && kind == text(p.node, "kind") && name == text(p.node, "metadata", "name") &&
		(theirs == "" || theirs == namespace)
}

var pointerEscapes = strings.NewReplacer("~1", "/", "~0", "~")

// reach returns an object that has only the value, at a JSON pointer. What is
// around the value has no place.
func reach(pointer string, value *yaml.Node) *yaml.Node {
	parent, token, ok := cutLast(pointer)
	if !ok {
		return value
	}
	if token == "-" || strings.Trim(token, "0123456789") == "" {
		return reach(parent, &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{value}})
	}
	key := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: pointerEscapes.Replace(token)}
	return reach(parent, &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{key, value}})
}

func cutLast(pointer string) (parent, token string, ok bool) {
	i := strings.LastIndexByte(pointer, '/')
	if i < 0 {
		return "", "", false
	}
	return pointer[:i], pointer[i+1:], true
}
