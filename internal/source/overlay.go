package source

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/weir-policy/weir/internal/snapshot"
	"github.com/weir-policy/weir/policies/k8s"
)

// overlay lets objects of the cluster give way to those of other sources that have the
// same name, as if these were applied.
func (r *reading) overlay() {
	if len(r.live) == 0 {
		return
	}
	given := map[k8s.Key]bool{}
	isLive := func(d k8s.Document) bool { _, live := r.live[d.File]; return live }
	for _, d := range r.documents {
		if !isLive(d) {
			for _, key := range r.keys(d) {
				given[key] = true
			}
		}
	}
	r.documents = slices.DeleteFunc(r.documents, func(d k8s.Document) bool { return isLive(d) && given[r.live[d.File]] })
}

// keys returns the names of the objects in a document. What is wrong in it, its reader
// says.
func (r *reading) keys(d k8s.Document) (all []k8s.Key) {
	objects, err := snapshot.Decode(d.Node)
	if err != nil {
		return nil
	}
	for _, o := range objects {
		version, kind := o.Kind()
		namespace, name := o.Name()
		if namespace == "" && k8s.Namespaced(version, kind) {
			namespace = cmp.Or(r.loader.Options.Namespace, "default")
		}
		all = append(all, k8s.KeyOf(version, kind, namespace, name))
	}
	return all
}

// leaveOut drops the objects that Loader.Without names, and what a Namespace among them
// holds.
func (r *reading) leaveOut() {
	for _, text := range r.loader.Without {
		gone, err := parseObject(text)
		if err != nil {
			r.problems = append(r.problems, err)
			continue
		}
		before := len(r.documents)
		r.documents = slices.DeleteFunc(r.documents, func(d k8s.Document) bool {
			keys := r.keys(d)
			return len(keys) == 1 && gone(keys[0])
		})
		if len(r.documents) == before {
			r.problems = append(r.problems, fmt.Errorf("without %s: there is no such object, as a document of its own", text))
		}
	}
}

// parseObject reads KIND[.GROUP]/[NAMESPACE/]NAME.
func parseObject(text string) (is func(k8s.Key) bool, err error) {
	parts := strings.Split(text, "/")
	if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
		return nil, fmt.Errorf("without %s: it is no KIND/NAMESPACE/NAME, nor KIND/NAME of what has no namespace", text)
	}
	kind, group, grouped := strings.Cut(parts[0], ".")
	namespace, name := "", parts[len(parts)-1]
	if len(parts) == 3 {
		namespace = parts[1]
	}
	return func(k k8s.Key) bool {
		if grouped && k.Group != group {
			return false
		}
		if strings.EqualFold(kind, "Namespace") && namespace == "" && k.Namespace == name {
			return true
		}
		return strings.EqualFold(k.Kind, kind) && k.Namespace == namespace && k.Name == name
	}, nil
}
