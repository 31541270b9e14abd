package k8s

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
)

// object is one Kubernetes object with what all kinds have in common.
type object struct {
	value
	group    string
	meta     value
	ref      policies.Ref
	nameless bool // it has a generateName only
}

// kind is how objects of one kind are read.
type kind struct {
	apiVersion  string
	clusterWide bool
	read        func(*reader, object)
}

// kinds are those that are understood.
var kinds = map[string]kind{
	"Namespace":             {"v1", true, (*reader).readNamespace},
	"Node":                  {"v1", true, (*reader).readNode},
	"Pod":                   {"v1", false, (*reader).readPod},
	"Service":               {"v1", false, (*reader).readService},
	"ServiceAccount":        {"v1", false, (*reader).readServiceAccount},
	"ReplicationController": {"v1", false, (*reader).readWorkload},
	"Deployment":            {"apps/v1", false, (*reader).readWorkload},
	"ReplicaSet":            {"apps/v1", false, (*reader).readWorkload},
	"StatefulSet":           {"apps/v1", false, (*reader).readWorkload},
	"DaemonSet":             {"apps/v1", false, (*reader).readWorkload},
	"Job":                   {"batch/v1", false, (*reader).readJob},
	"CronJob":               {"batch/v1", false, (*reader).readCronJob},
	"NetworkPolicy":         {"networking.k8s.io/v1", false, (*reader).readNetworkPolicy},

	"ClusterNetworkPolicy":       {policyGroup + "/v1alpha2", true, (*reader).readClusterNetworkPolicy},
	"AdminNetworkPolicy":         {policyGroup + "/v1alpha1", true, (*reader).readAdminNetworkPolicy},
	"BaselineAdminNetworkPolicy": {policyGroup + "/v1alpha1", true, (*reader).readBaselineAdminNetworkPolicy},
}

// policyGroup is the group of the cluster-wide policies.
const policyGroup = "policy.networking.k8s.io"

// removedVersions are those that Kubernetes no longer serves for these kinds.
var removedVersions = []string{"extensions/v1beta1", "apps/v1beta1", "apps/v1beta2", "batch/v1beta1", "batch/v2alpha1"}

func (r *reader) document(d Document) {
	maps.Copy(r.elsewhere, d.Elsewhere)
	maps.Copy(r.blocks, d.blocks)
	v := value{r, d.File, resolve(d.Node), "the document"}
	if kind := v.field("kind"); !kind.present() || kind.node.Kind != scalar {
		if version := v.field("apiVersion"); version.present() && bearsPolicy(version.node.Value) {
			kind.orElse(version).problem("an object of %s needs a kind; write one", version.node.Value)
		}
		return // something else than a Kubernetes object
	}
	v.checkKeys()
	r.readAny(v, "", "")
}

// bearsPolicy reports whether some kind of this apiVersion is a policy.
func bearsPolicy(version string) bool {
	group, _, grouped := strings.Cut(version, "/")
	ours := group == policies.CalicoGroup || group == storedGroup || group == "networking.k8s.io"
	return grouped && (ours || isPolicyGroup(group))
}

// readAny reads an object, or the items of a list. Items of a typed list need
// not repeat their kind and apiVersion.
func (r *reader) readAny(v value, listKind, listVersion string) {
	if !v.wants(mapping, "a mapping") {
		return
	}
	reported := len(r.problems)
	kind := v.field("kind").textOr(listKind)
	version := v.field("apiVersion").textOr(listVersion)
	if len(r.problems) > reported {
		return
	}
	if kind == "" {
		v.problem("%s has no kind; write one, and its apiVersion", v.name)
		return
	}
	if element, ok := strings.CutSuffix(kind, "List"); ok && (v.field("items").present() || element == "") {
		if element == "" {
			version = ""
		}
		for _, item := range v.field("items").items() {
			r.readAny(item, element, version)
		}
		return
	}
	r.take(v, kind, version)
}

func (r *reader) readKind(v value, name, version string) {
	group, _, grouped := strings.Cut(version, "/")
	if !grouped {
		group = ""
	}
	k, known := kinds[name]
	switch {
	case group == policies.CalicoGroup || group == storedGroup:
		r.readCalico(v, name, version)
	case version == "" && isCalicoAlone(name):
		v.field("kind").orElse(v).problem("kind %s without an apiVersion; write \"apiVersion: %s\"", name, calicoVersion)
	case known && version == k.apiVersion:
		if o, ok := r.object(v, name, group, k.clusterWide); ok {
			k.read(r, o)
		}
	case known && version == "":
		v.field("kind").orElse(v).problem("kind %s without an apiVersion; write \"apiVersion: %s\"", name, k.apiVersion)
	case known && slices.Contains(removedVersions, version):
		v.field("apiVersion").orElse(v).problem("%s of %s was removed from Kubernetes; write \"apiVersion: %s\"", name, version, k.apiVersion)
	case known && ofKubernetes(group) && (!isPolicyGroup(group) || isKnown(version)):
		v.field("apiVersion").orElse(v).problem("%s is not of %s; write \"apiVersion: %s\"", name, version, k.apiVersion)
	case meant(name, version) != "":
		v.field("kind").orElse(v).problem("kind %s is not of %s; did you mean %q?", name, version, meant(name, version))
	default:
		r.readForeign(v, name, group)
	}
}

// isKnown reports whether some kind of this apiVersion is understood.
func isKnown(version string) bool {
	for _, k := range kinds {
		if k.apiVersion == version {
			return true
		}
	}
	return false
}

// meant returns the kind of this apiVersion that a misspelt name stands for, ""
// when it is some other kind.
func meant(name, version string) string {
	var near []string
	for known, k := range kinds {
		switch {
		case k.apiVersion != version:
		case strings.EqualFold(name, known):
			return known
		case strings.HasSuffix(known, "NetworkPolicy"):
			near = append(near, known)
		}
	}
	slices.Sort(near)
	return nearest(name, near)
}

// ofKubernetes reports whether a group is one that Kubernetes itself serves, so
// that a known kind in it is a mistake rather than somebody else's.
func ofKubernetes(group string) bool {
	return !strings.Contains(group, ".") || strings.HasSuffix(group, ".k8s.io")
}

func (v value) orElse(w value) value {
	if v.present() {
		return v
	}
	return w
}

// object reads what all kinds have in common. It is false for an object that was
// given before, or that is no mapping.
func (r *reader) object(v value, kind, group string, clusterWide bool) (object, bool) {
	v.name = kind
	o := object{value: v, group: group, meta: v.field("metadata"), ref: policies.Ref{Kind: kind}}
	if group == policies.CalicoGroup {
		o.ref.Group = group
	}
	name := o.meta.field("name")
	o.ref.Name = name.text()
	if o.ref.Name == "" {
		if o.ref.Name = o.meta.field("generateName").text(); o.ref.Name != "" {
			o.nameless = true
		} else if !name.present() || name.node.Value == "" {
			o.meta.orElse(v).problem("%s has no metadata.name; give it one", kind)
		}
	} else if !r.isValid(objectNames, o.ref.Name) {
		name.problem("name %q is not valid: it wants at most 253 lower-case letters, digits, '-' and '.', a letter or digit at either end", o.ref.Name)
	}
	if !clusterWide {
		o.ref.Namespace = r.namespaceOf(o.meta.field("namespace"))
		r.implied = o.ref.Namespace
	}
	if o.ref.Name == "" || o.nameless {
		return o, true
	}
	id := identity{group, o.ref}
	if at, replaced := r.replaced[id]; replaced && at == v.place() {
		return o, false
	}
	id.ref.Name = r.fullName(o.ref)
	if first, given := r.seen[id]; given {
		v.problem("%s %s is given twice, first at %s; remove one", o.ref.What(), o.ref, first)
		return o, false
	}
	r.seen[id] = v.place()
	return o, true
}

// storedAnnotations are those that say how an object was stored. They are left out.
var storedAnnotations = []string{"kubectl.kubernetes.io/last-applied-configuration", policies.CalicoGroup + "/metadata"}

// annotations returns the object's annotations, nil where it has none.
func (o object) annotations() map[string]string {
	field := o.meta.field("annotations")
	if !field.wants(mapping, "a mapping") {
		return nil
	}
	all := map[string]string{}
	for key, node := range pairs(field.node) {
		if key.Kind == scalar && !isNull(node) && !slices.Contains(storedAnnotations, key.Value) {
			all[key.Value] = o.at(node, "annotation "+key.Value).text()
		}
	}
	return all
}

// namespaceOf returns the namespace that a metadata.namespace names, and makes
// it one of the world.
func (r *reader) namespaceOf(v value) string {
	name := v.text()
	switch {
	case name == "":
		name = r.namespace
	case !r.isValid(namespaceNames, name):
		v.problem("namespace %q is not valid: it wants at most 63 lower-case letters, digits and '-', a letter or digit at either end", name)
	}
	if _, has := r.namespaces[name]; !has {
		r.namespaces[name] = impliedNamespace(name)
	}
	return name
}

// impliedNamespace returns a namespace that only other objects mention.
func impliedNamespace(name string) policies.Namespace {
	return policies.Namespace{Name: name, Labels: map[string]string{policies.NameLabel: name}, Implied: true}
}

func (r *reader) readNamespace(o object) {
	labels := o.meta.field("labels").labels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels[policies.NameLabel] = o.ref.Name
	r.namespaces[o.ref.Name] = policies.Namespace{Name: o.ref.Name, Labels: labels, Place: o.place()}
}

func (r *reader) readNode(o object) {
	node := policies.Node{Name: o.ref.Name, Labels: o.meta.field("labels").labels(), Place: o.place()}
	for _, a := range o.field("status").field("addresses").items() {
		switch a.field("type").text() {
		case "InternalIP", "ExternalIP":
			node.Addresses = appendAddress(node.Addresses, a.field("address"))
		}
	}
	spec := o.field("spec")
	for _, c := range append(spec.field("podCIDRs").items(), spec.field("podCIDR")) {
		if p, ok := c.cidr(); ok {
			node.PodCIDRs = append(node.PodCIDRs, p)
		}
	}
	slices.SortFunc(node.PodCIDRs, netip.Prefix.Compare)
	node.PodCIDRs = slices.Compact(node.PodCIDRs) // the first of podCIDRs stands in podCIDR, too
	r.podCIDRs = append(r.podCIDRs, node.PodCIDRs...)
	r.nodes = append(r.nodes, node)
}
