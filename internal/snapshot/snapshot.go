// Package snapshot writes a world down: Kubernetes objects with the fields that
// network policy looks at and no others, under their own names or under made-up
// ones that keep every answer the same.
//
// It does not know where the objects come from; packages cluster and source do.
package snapshot

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Object is one Kubernetes object, as encoding/json would decode it.
type Object map[string]any

// Kind returns the object's apiVersion and kind.
func (o Object) Kind() (apiVersion, kind string) { return text(o["apiVersion"]), text(o["kind"]) }

// Name returns the object's namespace, "" where it has none, and its name.
func (o Object) Name() (namespace, name string) {
	meta := o.metadata()
	return text(meta["namespace"]), text(meta["name"])
}

// SetNamespace gives the object, which has metadata, a namespace.
func (o Object) SetNamespace(namespace string) { o.metadata()["namespace"] = namespace }

func (o Object) metadata() map[string]any { return mapping(o["metadata"]) }

// group returns the API group of the object's kind.
func (o Object) group() string {
	group, _, grouped := strings.Cut(text(o["apiVersion"]), "/")
	if !grouped {
		return ""
	}
	return group
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func mapping(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

func items(v any) []any {
	l, _ := v.([]any)
	return l
}

// Sort puts objects in the order in which they are written: those of the whole
// cluster first, then namespace by namespace.
func Sort(objects []Object) {
	slices.SortStableFunc(objects, func(a, b Object) int {
		namespaceA, nameA := a.Name()
		namespaceB, nameB := b.Name()
		versionA, kindA := a.Kind()
		versionB, kindB := b.Kind()
		return cmp.Or(strings.Compare(namespaceA, namespaceB), strings.Compare(kindA, kindB),
			strings.Compare(nameA, nameB), strings.Compare(versionA, versionB))
	})
}

// WriteYAML writes objects, a document each, below remarks as comments.
func WriteYAML(w io.Writer, objects []Object, remarks []string) error {
	out := bufio.NewWriter(w)
	for _, remark := range remarks {
		fmt.Fprintf(out, "# %s\n", strings.ReplaceAll(remark, "\n", "\n# "))
	}
	// An encoder holds on to all that it has written, and takes long to begin.
	separator := ""
	for some := range slices.Chunk(objects, 100) {
		out.WriteString(separator)
		separator = "---\n"
		encoder := yaml.NewEncoder(out)
		encoder.SetIndent(2)
		for _, o := range some {
			if err := encoder.Encode(map[string]any(o)); err != nil {
				return err
			}
		}
		if err := encoder.Close(); err != nil {
			return err
		}
	}
	return out.Flush()
}

// WriteJSON writes objects as one List, an object a line, with the remarks in an
// annotation of the list.
func WriteJSON(w io.Writer, objects []Object, remarks []string) error {
	out := bufio.NewWriter(w)
	out.WriteString(`{"apiVersion":"v1","kind":"List",`)
	if len(remarks) > 0 {
		said, err := json.Marshal(strings.Join(remarks, "\n"))
		if err != nil {
			return err
		}
		fmt.Fprintf(out, `"metadata":{"annotations":{"weir.dev/remarks":%s}},`, said)
	}
	out.WriteString(`"items":[`)
	for i, o := range objects {
		line, err := json.Marshal(o)
		if err != nil {
			return err
		}
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteByte('\n')
		out.Write(line)
	}
	out.WriteString("\n]}\n")
	return out.Flush()
}

// Decode returns the object that a YAML document holds, or those of a list; none
// where it is no Kubernetes object.
func Decode(document *yaml.Node) ([]Object, error) {
	var o Object
	if err := plain(document).Decode((*map[string]any)(&o)); err != nil {
		return nil, err
	}
	return flatten(o, "", ""), nil
}

// plain returns a copy without dates, which Kubernetes takes for text.
func plain(n *yaml.Node) *yaml.Node {
	seen := map[*yaml.Node]*yaml.Node{}
	var visit func(*yaml.Node) *yaml.Node
	visit = func(n *yaml.Node) *yaml.Node {
		if n == nil {
			return nil
		}
		if known := seen[n]; known != nil {
			return known
		}
		c := *n
		seen[n] = &c
		if c.Tag == "!!timestamp" {
			c.Tag = "!!str"
		}
		c.Alias = visit(n.Alias)
		c.Content = slices.Clone(n.Content)
		for i := range c.Content {
			c.Content[i] = visit(c.Content[i])
		}
		return &c
	}
	return visit(n)
}

// flatten returns the objects of a list, whose items may leave out the kind and
// apiVersion that the list's own name implies.
func flatten(o Object, impliedVersion, impliedKind string) []Object {
	version, kind := o.Kind()
	version, kind = cmp.Or(version, impliedVersion), cmp.Or(kind, impliedKind)
	list, isList := o["items"].([]any)
	element, named := strings.CutSuffix(kind, "List")
	switch {
	case kind == "":
		return nil
	case !named || !isList:
		o["apiVersion"], o["kind"] = version, kind
		return []Object{o}
	case element == "":
		version = ""
	}
	var all []Object
	for _, item := range list {
		if m := mapping(item); m != nil {
			all = append(all, flatten(m, version, element)...)
		}
	}
	return all
}
