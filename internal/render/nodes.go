package render

import (
	"iter"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// entries goes over the keys and values of a mapping, merged ones included.
func entries(n *yaml.Node) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(*yaml.Node, *yaml.Node) bool) {
		walkEntries(n, yield)
	}
}

func walkEntries(n *yaml.Node, yield func(key, value *yaml.Node) bool) bool {
	if n = resolve(n); n == nil {
		return true
	}
	if n.Kind == yaml.SequenceNode { // of mappings to merge
		for _, item := range n.Content {
			if !walkEntries(item, yield) {
				return false
			}
		}
		return true
	}
	if n.Kind != yaml.MappingNode {
		return true
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Tag == "!!merge" {
			if !walkEntries(value, yield) {
				return false
			}
		} else if !yield(key, resolve(value)) {
			return false
		}
	}
	return true
}

// resolve follows an alias to what it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// child returns the value of a key, nil where there is none.
func child(n *yaml.Node, key string) *yaml.Node {
	for k, value := range entries(n) {
		if k.Value == key {
			return value
		}
	}
	return nil
}

func text(n *yaml.Node, keys ...string) string {
	for _, key := range keys {
		n = child(n, key)
	}
	if n == nil {
		return ""
	}
	return n.Value
}

func remove(mapping *yaml.Node, key string) {
	if mapping == nil {
		return
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			mapping.Content = slices.Delete(mapping.Content, i, i+2)
			return
		}
	}
}

// scalars goes over the scalars in n, at any depth.
func scalars(n *yaml.Node) iter.Seq[*yaml.Node] {
	return func(yield func(*yaml.Node) bool) { walkScalars(n, yield) }
}

func walkScalars(n *yaml.Node, yield func(*yaml.Node) bool) bool {
	n = resolve(n)
	switch {
	case n == nil:
	case n.Kind == yaml.ScalarNode:
		return n.Value == "" || yield(n)
	case n.Kind == yaml.SequenceNode:
		for _, item := range n.Content {
			if !walkScalars(item, yield) {
				return false
			}
		}
	default:
		for _, value := range entries(n) {
			if !walkScalars(value, yield) {
				return false
			}
		}
	}
	return true
}

// named goes over the scalars under any of the keys, in n and the lists in it.
// It compares keys without regard to case, as Kustomize does.
func named(n *yaml.Node, keys ...string) iter.Seq[*yaml.Node] {
	return func(yield func(*yaml.Node) bool) { walkNamed(n, keys, yield) }
}

func walkNamed(n *yaml.Node, keys []string, yield func(*yaml.Node) bool) bool {
	n = resolve(n)
	if n == nil {
		return true
	}
	if n.Kind == yaml.SequenceNode {
		for _, item := range n.Content {
			if !walkNamed(item, keys, yield) {
				return false
			}
		}
		return true
	}
	for key, value := range entries(n) {
		switch {
		case slices.ContainsFunc(keys, func(k string) bool { return strings.EqualFold(k, key.Value) }):
			if !walkScalars(value, yield) {
				return false
			}
		case !walkNamed(value, keys, yield):
			return false
		}
	}
	return true
}

// bare copies n without places, which are of some patch, or of nothing, and with
// the tags that a merge leaves out. Kustomize uses one node in many objects.
func bare(n *yaml.Node) *yaml.Node {
	c := *n
	c.Line, c.Column = 0, 0
	c.Tag = n.ShortTag()
	c.Content = make([]*yaml.Node, len(n.Content))
	for i := range n.Content {
		c.Content[i] = bare(n.Content[i])
	}
	return &c
}

// leaves returns the scalars of n and what is empty in it, each as "path=value".
func leaves(n *yaml.Node) map[string]bool {
	found := map[string]bool{}
	var walk func(at string, n *yaml.Node)
	walk = func(at string, n *yaml.Node) {
		n = resolve(n)
		switch {
		case n == nil:
		case n.Kind == yaml.ScalarNode:
			found[at+"="+n.Value] = true
		case len(n.Content) == 0:
			found[at] = true
		case n.Kind == yaml.SequenceNode:
			for _, item := range n.Content {
				walk(at+"[]", item)
			}
		default:
			for key, value := range entries(n) {
				walk(at+"."+key.Value, value)
			}
		}
	}
	walk("", n)
	return found
}

// fingerprint is equal for nodes with equal leaves.
func fingerprint(leaves map[string]bool) string {
	return strings.Join(slices.Sorted(maps.Keys(leaves)), "\n")
}
