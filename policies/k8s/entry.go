package k8s

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/selector"
)

// Key names an object of a cluster, whatever version of its kind it is written
// in. The objects that Calico stores go by the group in which it serves them.
type Key struct{ Group, Kind, Namespace, Name string }

// KeyOf returns the key of an object of an apiVersion and kind.
func KeyOf(apiVersion, kind, namespace, name string) Key {
	group, _, grouped := strings.Cut(apiVersion, "/")
	switch {
	case !grouped:
		group = ""
	case group == storedGroup:
		group = policies.CalicoGroup
	}
	return Key{group, kind, namespace, name}
}

// Ref returns the name that answers have for the object.
func (k Key) Ref() policies.Ref {
	ref := policies.Ref{Kind: k.Kind, Namespace: k.Namespace, Name: k.Name}
	if k.Group == policies.CalicoGroup {
		ref.Group = k.Group
	}
	return ref
}

func (k Key) compare(l Key) int {
	return cmp.Or(strings.Compare(k.Group, l.Group), strings.Compare(k.Kind, l.Kind), strings.Compare(k.Namespace, l.Namespace), strings.Compare(k.Name, l.Name))
}

// Entry is one object as it was read for a Store. It is small, and keeps nothing
// of the document.
type Entry struct {
	key      Key
	room     string // the namespace that it is in, or is
	calico   bool   // it is of Calico's kinds
	part     any    // what it is of a model; nil where it is nothing
	warnings []policies.Warning
	problems []policies.Problem
}

// node is a Node with the ranges of its pods.
type node struct {
	policies.Node
	podCIDRs []netip.Prefix
}

// Key returns the object's name.
func (e *Entry) Key() Key { return e.key }

// Problems are why the object could not be read whole, none where it was. A
// policy with problems is an opaque one, of anything else counts what was
// understood; either way the model warns of it.
func (e *Entry) Problems() []policies.Problem { return e.problems }

// Warnings are those that the model has of the object alone.
func (e *Entry) Warnings() []policies.Warning { return e.warnings }

// ReadEntry reads one object for a Store with the same options. It fails where the
// document is no object with a name; what else is wrong with it, Entry.Problems
// says.
func ReadEntry(d Document, o Options) (*Entry, error) {
	o.PodCIDRs = nil
	r := newReader(o)
	var root value
	e, objects := &Entry{}, 0
	r.take = func(v value, kind, version string) {
		root, e.key = v, KeyOf(version, kind, "", "")
		objects++
		r.readKind(v, kind, version)
	}
	r.document(d)
	if objects != 1 {
		return nil, errors.Join(join(r.problems), fmt.Errorf("%s: %d objects, want one", d.File, objects))
	}
	meta := root.field("metadata")
	e.key.Namespace, e.key.Name = cmp.Or(meta.field("namespace").text(), r.implied), meta.field("name").text()
	if e.key.Name == "" {
		return nil, errors.Join(join(r.problems), fmt.Errorf("%s: the object has no name", d.File))
	}
	_, isCalicos := calicoKinds[e.key.Kind]
	e.calico = isCalicos && e.key.Group == policies.CalicoGroup
	e.part, e.warnings = r.part(e.key), r.warnings
	for _, p := range r.problems { // a field that is read twice has them twice
		if !slices.Contains(e.problems, p) {
			e.problems = append(e.problems, p)
		}
	}
	e.room = r.implied
	if holds[*policies.Namespace](e) {
		e.room = e.key.Name
	}
	e.spoil(root.place())
	return e, nil
}

// part returns what was read of one object.
func (r *reader) part(k Key) any {
	switch {
	case len(r.pods) > 0:
		return &r.pods[0]
	case len(r.workloads) > 0:
		w := r.workloads[policies.Ref{Kind: k.Kind, Namespace: k.Namespace, Name: k.Name}]
		return &w
	case len(r.services) > 0:
		return &r.services[0]
	case len(r.nodes) > 0:
		return &node{r.nodes[0], r.podCIDRs}
	case len(r.accounts) > 0:
		return &r.accounts[0]
	case len(r.sets) > 0:
		return &r.sets[0]
	case len(r.hosts) > 0:
		return &r.hosts[0]
	case len(r.policies) > 0:
		p := r.policies[0]
		p.origin = nil
		return &p
	}
	if t, is := r.tiers[k.Name]; is {
		return &t
	}
	if p, is := r.profiles[k.Name]; is {
		return &p
	}
	if n, is := r.namespaces[k.Name]; is && k.Kind == "Namespace" {
		return &n
	}
	return nil
}

// spoil makes of an object with problems what cannot do harm: an opaque policy
// of one that may be a policy.
func (e *Entry) spoil(at policies.Place) {
	if len(e.problems) == 0 {
		return
	}
	ref := e.key.Ref()
	p, isPolicy := e.part.(*policy)
	if _, bears := foreignEffect(e.key.Kind, e.key.Group, e.key.Namespace != ""); bears || isPolicy {
		isPolicy = true
	}
	staged := e.calico && strings.HasPrefix(e.key.Kind, "Staged")
	what := "what was understood of it counts"
	switch {
	case staged:
		e.part, what = nil, "it is left out"
	case isPolicy:
		what = "answers about what it may apply to are unknown"
		if p == nil || p.Opaque == "" {
			e.part = &policy{Policy: e.opaque(at)}
		}
	}
	for _, p := range e.problems {
		e.warnings = append(e.warnings, warning(p.Place, "%s %s cannot be read, so %s: %s", ref.What(), ref, what, p.Message))
	}
}

// opaque returns a policy that may do anything to all that a policy of the
// object's kind and namespace can apply to.
func (e *Entry) opaque(at policies.Place) policies.Policy {
	subject := policies.Match{Namespaces: selector.Everything(), Pods: selector.Everything(), Endpoints: e.calico, Place: at}
	if e.key.Namespace != "" {
		subject.Namespaces = selector.Label(policies.NameLabel, e.key.Namespace)
	}
	return policies.Policy{Ref: e.key.Ref(), Subject: subject, Governs: both, Opaque: "it cannot be read: " + e.problems[0].Message, Place: at}
}

// Says reports whether two entries of one object make the same of a model. Either may be
// nil, for there is none.
func (e *Entry) Says(f *Entry) bool {
	if e == nil || f == nil {
		return e == f
	}
	return e.calico == f.calico && reflect.DeepEqual(e.part, f.part) && reflect.DeepEqual(e.warnings, f.warnings)
}
