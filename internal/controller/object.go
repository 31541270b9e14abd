package controller

import (
	"maps"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/weir-policy/weir/policies/v1alpha1"
)

// Object is an Invariant as an API server's clients hold it.
type Object struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              map[string]any `json:"spec,omitempty"`
	Status            Status         `json:"status,omitempty"`
}

// Status is what was found of an Invariant.
type Status struct {
	v1alpha1.InvariantStatus `json:",inline"`
	// Conditions take the place of those of the wire, for the sake of libraries.
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ObjectList is a list of them.
type ObjectList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Object `json:"items"`
}

// AddToScheme makes the kinds known.
func AddToScheme(s *runtime.Scheme) error {
	version := schema.GroupVersion{Group: v1alpha1.Group, Version: strings.TrimPrefix(v1alpha1.APIVersion, v1alpha1.Group+"/")}
	s.AddKnownTypeWithName(version.WithKind(v1alpha1.KindInvariant), &Object{})
	s.AddKnownTypeWithName(version.WithKind(v1alpha1.KindInvariant+"List"), &ObjectList{})
	metav1.AddToGroupVersion(s, version)
	return nil
}

// GetConditions and SetConditions are what Flux's libraries ask.
func (o *Object) GetConditions() []metav1.Condition { return o.Status.Conditions }

// SetConditions sets them.
func (o *Object) SetConditions(all []metav1.Condition) { o.Status.Conditions = all }

// SetLastHandledReconcileRequest takes the request that was answered.
func (o *Object) SetLastHandledReconcileRequest(token string) {
	o.Status.LastHandledReconcileAt = token
}

// DeepCopyObject copies all of it.
func (o *Object) DeepCopyObject() runtime.Object { return o.deepCopy() }

func (o *Object) deepCopy() *Object {
	c := &Object{TypeMeta: o.TypeMeta, Status: o.Status}
	o.ObjectMeta.DeepCopyInto(&c.ObjectMeta)
	if o.Spec != nil {
		c.Spec = runtime.DeepCopyJSON(maps.Clone(o.Spec))
	}
	c.Status.Conditions = append([]metav1.Condition(nil), o.Status.Conditions...)
	c.Status.Counterexamples = append([]v1alpha1.Counterexample(nil), o.Status.Counterexamples...)
	return c
}

// DeepCopyObject copies all of them.
func (l *ObjectList) DeepCopyObject() runtime.Object {
	c := &ObjectList{TypeMeta: l.TypeMeta}
	l.ListMeta.DeepCopyInto(&c.ListMeta)
	for i := range l.Items {
		c.Items = append(c.Items, *l.Items[i].deepCopy())
	}
	return c
}
