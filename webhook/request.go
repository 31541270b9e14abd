package webhook

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/weir-policy/weir/internal/live"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// MostObject is the largest object that is decided about, in bytes. One that is
// deleted may be larger.
const MostObject = 1 << 20

// tooLarge is why an object is not decided about.
type tooLarge struct{ size int }

func (e tooLarge) Error() string {
	return fmt.Sprintf("the object has %d bytes, more than the %d that are decided about", e.size, MostObject)
}

// isInvariant reports whether an object is one of our own.
func isInvariant(k k8s.Key) bool {
	return k.Group == v1alpha1.Group && k.Kind == v1alpha1.KindInvariant
}

// janitor empties namespaces whose deletion was decided about already.
const janitor = "system:serviceaccount:kube-system:namespace-controller"

// labelling are the subresources by which labels may be changed. Whoever else writes to
// them writes often.
var labelling = []string{"finalize", "status"}

// asks reports whether a request may change what is reachable. Those in excluded
// namespaces, and about these, are not looked at.
func asks(r *admissionv1.AdmissionRequest, excluded []string) bool {
	version := metav1.GroupVersion{Group: r.Kind.Group, Version: r.Kind.Version}.String()
	switch {
	case r.SubResource != "" && !slices.Contains(labelling, r.SubResource), r.Operation == admissionv1.Connect,
		slices.Contains(excluded, r.Namespace) && r.Namespace != "",
		r.Operation == admissionv1.Delete && r.UserInfo.Username == janitor:
		return false
	case r.Kind.Group == v1alpha1.Group:
		return r.Kind.Kind == v1alpha1.KindInvariant
	case r.Kind.Group == "" && r.Kind.Kind == "Namespace" && slices.Contains(excluded, r.Name):
		return false
	}
	return k8s.Heeds(version, r.Kind.Kind, r.Namespace != "") || k8s.Knows(r.Kind.Group, r.Kind.Kind)
}

// read returns what a request would change; nil where that is nothing that is
// decided about. An error is one of the request.
func (d *Decider) read(r *admissionv1.AdmissionRequest) (*admission, error) {
	if !asks(r, d.Exclude) {
		return nil, nil
	}
	switch r.Operation {
	case admissionv1.Create, admissionv1.Update, admissionv1.Delete:
	default:
		return nil, fmt.Errorf("operation %q is none of CREATE, UPDATE, DELETE", r.Operation)
	}
	if n := len(r.Object.Raw); n > MostObject && r.Operation != admissionv1.Delete {
		return nil, tooLarge{n}
	}
	object, err := decode(r.Object.Raw)
	if err != nil {
		return nil, fmt.Errorf("object: %w", err)
	}
	old, err := decode(r.OldObject.Raw)
	if err != nil {
		return nil, fmt.Errorf("oldObject: %w", err)
	}
	it := object
	if r.Operation == admissionv1.Delete {
		it = old
	}
	if it == nil || it.GetName() == "" {
		return nil, fmt.Errorf("a request to %s without an object that has a name", r.Operation)
	}
	a := &admission{uid: it.GetUID()}
	a.key = k8s.KeyOf(metav1.GroupVersion{Group: r.Kind.Group, Version: r.Kind.Version}.String(), r.Kind.Kind, it.GetNamespace(), it.GetName())
	if old != nil {
		a.was = live.Version{UID: old.GetUID(), ResourceVersion: old.GetResourceVersion()}
		a.uid = a.was.UID
	}
	switch {
	case r.SubResource != "" && (old == nil || maps.Equal(object.GetLabels(), old.GetLabels())):
		return nil, nil
	case isInstance(a.key) && d.isForeseen(it):
		return nil, nil // its owner was decided about
	case isInvariant(a.key):
		return a, nil
	case r.Operation == admissionv1.Delete:
		if gone, err := d.World.Entry(old.Object); err == nil && !isOrphaning(r) {
			a.entry = gone.Gone()
		}
		return a, nil
	}
	if a.key.Kind == "Pod" {
		expect(object)
	}
	if a.entry, err = d.World.Entry(object.Object); err != nil || old == nil {
		return a, err
	}
	if was, err := d.World.Entry(old.Object); err == nil {
		a.entry = a.entry.After(was)
	}
	return a, nil
}

// isOrphaning reports whether what an object owns stays where it goes.
func isOrphaning(r *admissionv1.AdmissionRequest) bool {
	var o metav1.DeleteOptions
	return json.Unmarshal(r.Options.Raw, &o) == nil && o.PropagationPolicy != nil && *o.PropagationPolicy == metav1.DeletePropagationOrphan
}

// isInstance reports whether an object is of a kind that workloads make.
func isInstance(k k8s.Key) bool {
	return k.Group == "" && k.Kind == "Pod" || k.Group == "apps" && k.Kind == "ReplicaSet" || k.Group == "batch" && k.Kind == "Job"
}

// isForeseen reports whether an object is one that its controller makes, as that is seen.
// Anybody may name a controller.
func (d *Decider) isForeseen(o *unstructured.Unstructured) bool {
	c := metav1.GetControllerOf(o)
	if c == nil {
		return false
	}
	e, err := d.World.Entry(o.Object)
	if err != nil {
		return false
	}
	is, key := false, k8s.KeyOf(c.APIVersion, c.Kind, o.GetNamespace(), c.Name)
	err = d.World.Look(func(m live.Moment) {
		owner, there := m.Held(key)
		is = there && owner.UID == c.UID && e.IsMadeOf(m.Get(key))
	})
	return err == nil && is
}

// expect makes a pod that has no address yet one that counts, as it will.
func expect(pod *unstructured.Unstructured) {
	phase, _, _ := unstructured.NestedString(pod.Object, "status", "phase")
	address, _, _ := unstructured.NestedString(pod.Object, "status", "podIP")
	if address == "" && phase != string(corev1.PodSucceeded) && phase != string(corev1.PodFailed) {
		delete(pod.Object, "status")
	}
}

func decode(raw []byte) (*unstructured.Unstructured, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	o := &unstructured.Unstructured{}
	return o, json.Unmarshal(raw, &o.Object)
}
