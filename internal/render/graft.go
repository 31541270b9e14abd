package render

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/weir-policy/weir/policies/k8s"
)

// source returns the object in a file that the rendered one was made of, nil
// where that is not clear. Its kind is the same; its name may have got a prefix
// or a suffix, and its namespace may have been set.
func source(rendered *yaml.Node, file []k8s.Document) *yaml.Node {
	kind, name, namespace := text(rendered, "kind"), text(rendered, "metadata", "name"), text(rendered, "metadata", "namespace")
	var best *yaml.Node
	bestScore, candidates := 0, 0
	for _, object := range objects(file) {
		if text(object, "kind") != kind {
			continue
		}
		candidates++
		original, score := text(object, "metadata", "name"), 1
		switch {
		case original == name:
			score += 1 << 20
		case original != "" && strings.Contains(name, original):
			score += 2 * len(original)
		}
		if text(object, "metadata", "namespace") == namespace {
			score++
		}
		if score > bestScore {
			best, bestScore = object, score
		}
	}
	if bestScore <= 2 && candidates > 1 { // no name was alike
		return nil
	}
	return best
}

// objects returns the objects of documents, those of Lists one by one.
func objects(documents []k8s.Document) []*yaml.Node {
	var found []*yaml.Node
	for _, d := range documents {
		node := resolve(d.Node)
		items := child(node, "items")
		if strings.HasSuffix(text(node, "kind"), "List") && items != nil && items.Kind == yaml.SequenceNode {
			for _, item := range items.Content {
				found = append(found, resolve(item))
			}
		} else if node != nil {
			found = append(found, node)
		}
	}
	return found
}

// origin is where something rendered may have come from.
type origin struct {
	file string     // a path in the tree
	node *yaml.Node // without a line where it was not written, but what is in it was
}

// grafting gives the nodes of one rendered object their places.
type grafting struct {
	object    origin // the place of what came from nowhere else
	elsewhere map[*yaml.Node]string
}

// graft gives the nodes of a rendered object the places of their counterparts in
// the written one or else in patches, and returns the files of those that are
// elsewhere. A value that neither has stands where its field does, and a field or
// an item that neither has where the object begins.
func graft(rendered *yaml.Node, object origin, patches []origin) map[*yaml.Node]string {
	g := grafting{object, map[*yaml.Node]string{}}
	origins := patches
	if object.node.Line > 0 {
		origins = slices.Insert(slices.Clone(patches), 0, object)
	}
	g.graft(rendered, object, origins)
	g.put(rendered, object)
	return g.elsewhere
}

func (g grafting) put(n *yaml.Node, at origin) {
	n.Line, n.Column = at.node.Line, at.node.Column
	if delete(g.elsewhere, n); at.file != g.object.file {
		g.elsewhere[n] = at.file
	}
}

// graft puts n where the first of the origins is that it may stand for, or around.
// It returns where that is.
func (g grafting) graft(n *yaml.Node, around origin, origins []origin) origin {
	at, found := around, false
	var alike []origin
	for _, o := range origins {
		node := resolve(o.node)
		if node.Kind != n.Kind || n.Kind == yaml.ScalarNode && node.Value != n.Value {
			continue
		}
		alike = append(alike, origin{o.file, node})
		if !found && o.node.Line > 0 {
			at, found = o, true
		}
	}
	g.put(n, at)
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			var keys, values []origin
			for _, o := range alike {
				if key, value := pair(o.node, n.Content[i].Value); key != nil {
					keys, values = append(keys, origin{o.file, key}), append(values, origin{o.file, value})
				}
			}
			g.graft(n.Content[i+1], g.graft(n.Content[i], g.object, keys), values)
		}
	case yaml.SequenceNode:
		for i, counterparts := range align(n, alike) {
			g.graft(n.Content[i], g.object, counterparts)
		}
	}
	return at
}

func pair(mapping *yaml.Node, name string) (key, value *yaml.Node) {
	for key, value := range entries(mapping) {
		if key.Value == name {
			return key, value
		}
	}
	return nil, nil
}

// maxAlign keeps the comparison of each leftover item with each other one to
// what a rule's peers and ports come to.
const maxAlign = 1 << 14

// align returns the counterparts of each item of a rendered list in other lists:
// the first that is equal or, where none is, the one of each list of which at
// least half is left in the item, those first of which most is. An item of a list
// is a counterpart once.
func align(rendered *yaml.Node, lists []origin) [][]origin {
	items := make([]map[string]bool, len(rendered.Content))
	for i, item := range rendered.Content {
		items[i] = leaves(item)
	}
	counterparts := make([][]origin, len(items))
	rest := make([][]*yaml.Node, len(lists)) // of each list
	for l, list := range lists {
		equal := map[string][]int{}
		for i := range items {
			if counterparts[i] == nil {
				print := fingerprint(items[i])
				equal[print] = append(equal[print], i)
			}
		}
		for _, item := range list.node.Content {
			print := fingerprint(leaves(item))
			if same := equal[print]; len(same) > 0 {
				counterparts[same[0]], equal[print] = []origin{{list.file, item}}, same[1:]
			} else {
				rest[l] = append(rest[l], item)
			}
		}
	}

	type likeness struct{ item, list, other, common int }
	var alike []likeness
	for l, others := range rest {
		if len(items)*len(others) > maxAlign {
			continue
		}
		for o, other := range others {
			theirs := leaves(other)
			for i, ours := range items {
				if counterparts[i] != nil {
					continue
				}
				common := 0
				for leaf := range theirs {
					if ours[leaf] {
						common++
					}
				}
				if common > 0 && 2*common >= len(theirs) {
					alike = append(alike, likeness{i, l, o, common})
				}
			}
		}
	}
	slices.SortStableFunc(alike, func(a, b likeness) int { return b.common - a.common })
	type half struct{ list, index int }
	paired, taken := map[half]bool{}, map[half]bool{} // items, and those of the lists
	for _, a := range alike {
		if paired[half{a.list, a.item}] || taken[half{a.list, a.other}] {
			continue
		}
		paired[half{a.list, a.item}], taken[half{a.list, a.other}] = true, true
		counterparts[a.item] = append(counterparts[a.item], origin{lists[a.list].file, rest[a.list][a.other]})
	}
	return counterparts
}
