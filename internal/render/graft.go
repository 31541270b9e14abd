package render

import (
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

// graft gives the nodes of a rendered object the places of their counterparts in
// the source. Where there is none, the place is that of the closest node around.
func graft(rendered, source *yaml.Node, line, column int) {
	if source != nil {
		line, column = source.Line, source.Column
		source = resolve(source)
	}
	rendered.Line, rendered.Column = line, column
	switch {
	case rendered.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(rendered.Content); i += 2 {
			key, value := rendered.Content[i], rendered.Content[i+1]
			sourceKey, sourceValue := pair(source, key.Value)
			graft(key, sourceKey, line, column)
			graft(value, sourceValue, key.Line, key.Column)
		}
	case rendered.Kind == yaml.SequenceNode:
		for i, counterpart := range align(rendered, source) {
			graft(rendered.Content[i], counterpart, line, column)
		}
	}
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

// align returns the counterpart in source of each item of a rendered list: by
// index in lists of equal length, otherwise equal ones, then those that have
// most in common; nil where there is none.
func align(rendered, source *yaml.Node) []*yaml.Node {
	counterparts := make([]*yaml.Node, len(rendered.Content))
	if source == nil || source.Kind != yaml.SequenceNode {
		return counterparts
	}
	if len(source.Content) == len(rendered.Content) {
		copy(counterparts, source.Content)
		return counterparts
	}
	equal := map[string][]*yaml.Node{}
	theirs := map[*yaml.Node]map[string]bool{}
	for _, item := range source.Content {
		theirs[item] = leaves(item)
		print := fingerprint(theirs[item])
		equal[print] = append(equal[print], item)
	}
	for i, item := range rendered.Content {
		print := fingerprint(leaves(item))
		if same := equal[print]; len(same) > 0 {
			counterparts[i], equal[print] = same[0], same[1:]
			delete(theirs, same[0])
		}
	}
	if len(theirs)*len(rendered.Content) > maxAlign {
		return counterparts
	}
	for i, item := range rendered.Content {
		if counterparts[i] != nil {
			continue
		}
		ours, most := leaves(item), 0
		for _, candidate := range source.Content {
			common := 0
			for leaf := range theirs[candidate] {
				if ours[leaf] {
					common++
				}
			}
			if common > most {
				counterparts[i], most = candidate, common
			}
		}
		delete(theirs, counterparts[i])
	}
	return counterparts
}
