package snapshot

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// fields are those of an object that are written, by their names; a nil value is
// all below the field. Lists are passed through, each item the same.
type fields map[string]fields

// paths makes fields of dotted paths, in which {a,b} stands for several names at
// the end.
func paths(all ...string) fields {
	root := fields{}
	for _, path := range all {
		at := root
		stem, last, _ := strings.Cut(path, "{")
		names := strings.Split(strings.TrimSuffix(stem, "."), ".")
		ends := strings.Split(strings.TrimSuffix(last, "}"), ",")
		if last == "" {
			names, ends = names[:len(names)-1], names[len(names)-1:]
		}
		for _, name := range names {
			if at[name] == nil {
				at[name] = fields{}
			}
			at = at[name]
		}
		for _, end := range ends {
			at[end] = nil
		}
	}
	return root
}

// below returns paths with a prefix before each.
func below(prefix string, all []string) []string {
	var longer []string
	for _, path := range all {
		longer = append(longer, prefix+path)
	}
	return longer
}

var (
	podFields = []string{
		"metadata.labels",
		"spec.{hostNetwork,nodeName,nodeSelector,serviceAccount,serviceAccountName}",
		"spec.os.name",
		"spec.securityContext.windowsOptions.hostProcess",
		"spec.containers.ports.{containerPort,name,protocol}",
		"spec.initContainers.restartPolicy",
		"spec.initContainers.ports.{containerPort,name,protocol}",
	}
	workloadFields = paths(append(below("spec.template.", podFields), "spec.replicas")...)

	// written are the fields of each kind of Kubernetes beside those of every
	// object.
	written = map[string]fields{
		"Namespace":      paths("metadata.labels"),
		"ServiceAccount": paths("metadata.labels"),
		"Node":           paths("metadata.labels", "spec.{podCIDR,podCIDRs}", "status.addresses.{type,address}"),
		"Service": paths("spec.{type,externalName,selector,clusterIP,clusterIPs}",
			"spec.ports.{name,protocol,port,targetPort}"),
		"Pod":                   paths(append(podFields, "metadata.creationTimestamp", "status.{phase,podIP,hostIP}", "status.podIPs.ip", "status.hostIPs.ip")...),
		"ReplicationController": workloadFields,
		"Deployment":            workloadFields,
		"ReplicaSet":            workloadFields,
		"StatefulSet":           workloadFields,
		"DaemonSet":             workloadFields,
		"Job": paths(append(below("spec.template.", podFields),
			"spec.parallelism", "status.conditions.{type,status}")...),
		"CronJob": paths(append(below("spec.jobTemplate.spec.template.", podFields),
			"spec.jobTemplate.spec.parallelism")...),
	}
	common = paths("apiVersion", "kind", "metadata.{name,namespace,generateName}", "metadata.ownerReferences.{kind,name,controller}")
	// Policies are written whole: in a field that is left out could stand what
	// makes a reader refuse or doubt them.
	policyFields = paths("spec")
	calicoFields = paths("spec", "metadata.labels")
)

// annotationPrefix begins the annotations that are written of every object. Those of
// policies are written but for how an object was stored.
const annotationPrefix = "weir.dev/"

// Trim returns the object with the fields that network policy looks at, in
// memory of its own down to where it is taken whole. Of policies of kinds that
// Weir does not understand nothing but the name and the annotations is left.
func Trim(o Object) Object {
	_, kind := o.Kind()
	group := o.group()
	trimmed := Object(mapping(prune(map[string]any(o), common)))
	for name, value := range mapping(prune(map[string]any(o), fieldsOf(group, kind))) {
		if into := mapping(trimmed[name]); into != nil {
			for k, v := range mapping(value) {
				into[k] = v
			}
			continue
		}
		trimmed[name] = value
	}
	trimMetadata(o, trimmed)
	if group == "projectcalico.org" || group == "crd.projectcalico.org" {
		trimCalico(o, trimmed)
	}
	switch kind {
	case "Pod":
		trimPod(trimmed)
		trimStatus(trimmed)
	case "Node":
		status := mapping(trimmed["status"])
		keep(status, "addresses", func(a map[string]any) bool { return a["type"] == "InternalIP" || a["type"] == "ExternalIP" })
		keepOne(mapping(trimmed["spec"]), "podCIDRs", "podCIDR", "")
	case "Service":
		keepOne(mapping(trimmed["spec"]), "clusterIPs", "clusterIP", "")
	case "CronJob":
		trimPod(mapping(mapping(mapping(mapping(trimmed["spec"])["jobTemplate"])["spec"])["template"]))
	default:
		if written[kind] != nil {
			trimPod(mapping(mapping(trimmed["spec"])["template"]))
		}
	}
	return trimmed
}

// fieldsOf returns what is written of objects of a kind beside common.
func fieldsOf(group, kind string) fields {
	switch group {
	case "", "apps", "batch":
		return written[kind]
	case "networking.k8s.io", "policy.networking.k8s.io", "weir.dev":
		return policyFields
	case "projectcalico.org", "crd.projectcalico.org":
		return calicoFields
	}
	return nil
}

// prune returns what the fields name of v. What becomes empty thereby is left
// out.
func prune(v any, wanted fields) any {
	switch v := v.(type) {
	case map[string]any:
		kept := map[string]any{}
		for name, sub := range wanted {
			child, has := v[name]
			if sub != nil && has {
				child = prune(child, sub)
			}
			if child != nil {
				kept[name] = child
			}
		}
		// A template must be there, however little it says.
		if len(kept) == 0 && wanted["metadata"] == nil {
			return nil
		}
		return kept
	case []any:
		var kept []any
		for _, item := range v {
			if item = prune(item, wanted); item != nil {
				kept = append(kept, item)
			}
		}
		if kept == nil {
			return nil
		}
		return kept
	}
	return v
}

// trimMetadata keeps of the owners the controller, and of the annotations those
// that are Weir's, or of a policy.
func trimMetadata(o, trimmed Object) {
	meta := trimmed.metadata()
	if text(meta["name"]) != "" {
		delete(meta, "generateName")
	}
	keep(meta, "ownerReferences", func(owner map[string]any) bool { return owner["controller"] == true && owner["kind"] != "Node" })
	annotations := map[string]any{}
	for name, value := range mapping(o.metadata()["annotations"]) {
		if strings.HasPrefix(name, annotationPrefix) || isPolicy(o) && name != lastApplied && name != storedMetadata {
			annotations[name] = value
		}
	}
	if len(annotations) > 0 {
		meta["annotations"] = annotations
	}
}

// lastApplied is the annotation in which kubectl has an object as it was last applied.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// storedMetadata is the annotation in which Calico's objects have their labels as
// they are stored.
const storedMetadata = "projectcalico.org/metadata"

// trimCalico puts labels where they belong, and keeps of the annotations of
// rules their names.
func trimCalico(o, trimmed Object) {
	var stored struct {
		Labels map[string]any `json:"labels"`
	}
	text := text(mapping(o.metadata()["annotations"])[storedMetadata])
	if err := json.Unmarshal([]byte(text), &stored); err == nil && stored.Labels != nil {
		for name, value := range mapping(trimmed.metadata()["labels"]) {
			if _, has := stored.Labels[name]; !has && strings.HasPrefix(name, "projectcalico.org/") {
				stored.Labels[name] = value
			}
		}
		trimmed.metadata()["labels"] = stored.Labels
	}
	spec := maps.Clone(mapping(trimmed["spec"]))
	if spec == nil {
		return
	}
	trimmed["spec"] = spec
	for _, direction := range []string{"ingress", "egress"} {
		rules := slices.Clone(items(spec[direction]))
		for i, rule := range rules {
			if meta := mapping(mapping(rule)["metadata"]); meta != nil {
				named := maps.Clone(mapping(rule))
				if named["metadata"] = prune(meta, paths("annotations.name")); named["metadata"] == nil {
					delete(named, "metadata")
				}
				rules[i] = named
			}
		}
		if rules != nil {
			spec[direction] = rules
		}
	}
}

// trimPod leaves out of a pod, or a template of one, what counts under
// conditions only that are not met.
func trimPod(pod map[string]any) {
	spec := mapping(pod["spec"])
	if spec == nil {
		return
	}
	if spec["hostNetwork"] != true {
		for _, name := range []string{"hostNetwork", "nodeSelector", "os", "securityContext"} {
			delete(spec, name)
		}
	}
	if spec["serviceAccountName"] != nil {
		delete(spec, "serviceAccount")
	}
	// An init container with this policy is a sidecar: it keeps running.
	keep(spec, "initContainers", func(c map[string]any) bool { return c["restartPolicy"] == "Always" && c["ports"] != nil })
	if len(spec) == 0 {
		delete(pod, "spec")
	}
}

func trimStatus(pod Object) {
	status := mapping(pod["status"])
	keepOne(status, "podIPs", "podIP", "ip")
	keepOne(status, "hostIPs", "hostIP", "ip")
	if status["podIPs"] != nil || mapping(pod["spec"])["hostNetwork"] != true {
		delete(status, "hostIPs")
		delete(status, "hostIP")
	}
}

// keep leaves in the list of a field the mappings that are wanted.
func keep(in map[string]any, field string, wanted func(map[string]any) bool) {
	list := items(in[field])
	if list == nil {
		return
	}
	list = slices.DeleteFunc(slices.Clone(list), func(item any) bool { return !wanted(mapping(item)) })
	if in[field] = list; len(list) == 0 {
		delete(in, field)
	}
}

// keepOne leaves out a field that only repeats what the list of another says,
// each item itself or in a field of it.
func keepOne(in map[string]any, list, one, field string) {
	for _, item := range items(in[list]) {
		if field != "" {
			item = mapping(item)[field]
		}
		if item == in[one] {
			delete(in, one)
		}
	}
}
