package snapshot

import (
	"net/netip"
	"regexp"
	"strings"
)

// Anonymize returns trimmed objects under made-up names: namespaces, workloads,
// pods, nodes, labels, ports, service accounts, policies, tiers, domains and
// addresses. Every answer about the world stays the same under those names, which
// come back too. Annotations and descriptions are left out.
//
// Equal keys give equal names; who knows the key can try out what a name stands
// for. Names and values that are common knowledge stay, and so do port numbers,
// how long addresses agree from the left, and to which of the ranges with a
// meaning of their own they belong.
func Anonymize(objects []Object, key []byte) ([]Object, *Names) {
	a := anonymizer{Names: newNames(key), values: map[string]map[string]bool{}}
	a.survey(objects)
	renamed := make([]Object, len(objects))
	for i, o := range objects {
		renamed[i] = a.object(o)
	}
	Sort(renamed)
	return renamed, a.Names
}

type anonymizer struct {
	*Names
	values map[string]map[string]bool // those that each label has in the world
	kind   string                     // of the object at hand
}

// survey looks for what renaming must know of the whole world.
func (a *anonymizer) survey(objects []Object) {
	policyNames, tierNames := map[string]bool{}, map[string]bool{}
	for _, o := range objects {
		namespace, name := o.Name()
		_, kind := o.Kind()
		switch {
		case isPolicy(o):
			policyNames[name] = true
		case kind == "Tier":
			tierNames[name] = true
		case kind == "Namespace":
			namespace = name
		case kind == "ServiceAccount":
			a.value("projectcalico.org/name", name)
			a.value("projectcalico.org/serviceaccount", name)
		}
		if tier := text(mapping(o["spec"])["tier"]); tier != "" && kind != "ClusterNetworkPolicy" {
			tierNames[tier] = true
		}
		for _, label := range []string{"projectcalico.org/name", "projectcalico.org/namespace", "kubernetes.io/metadata.name"} {
			a.value(label, namespace)
		}
		a.surveyLabels(map[string]any(o))
		a.surveyOwner(o, name)
	}
	a.value("projectcalico.org/serviceaccount", "default")
	a.value("projectcalico.org/orchestrator", "k8s")
	for _, known := range kept {
		delete(tierNames, known)
	}
	rank(a.policies, policyNames, func(name string) string {
		// Calico sorts a NetworkPolicy of Kubernetes by its name with this before.
		if name < "knp.default." {
			return "guard-"
		}
		return "policy-"
	})
	rank(a.tiers, tierNames, func(string) string { return "tier-" })
}

func (a *anonymizer) value(label, value string) {
	if a.values[label] == nil {
		a.values[label] = map[string]bool{}
	}
	a.values[label][value] = true
}

// surveyLabels looks for labels at any depth: a template's are a pod's too.
func (a *anonymizer) surveyLabels(v any) {
	switch v := v.(type) {
	case map[string]any:
		for field, child := range v {
			switch field {
			case "labels", "labelsToApply":
				for label, value := range mapping(child) {
					a.value(label, text(value))
				}
			case "serviceAccountName", "serviceAccount":
				a.value("projectcalico.org/serviceaccount", text(child))
			}
			a.surveyLabels(child)
		}
	case []any:
		for _, item := range v {
			a.surveyLabels(item)
		}
	}
}

// surveyOwner finds names that begin with the name of their owner. What a
// ReplicaSet is of shows in nothing but its name where it is not in the world.
func (a *anonymizer) surveyOwner(o Object, name string) {
	for _, reference := range items(o.metadata()["ownerReferences"]) {
		owner := text(mapping(reference)["name"])
		if owner != "" && strings.HasPrefix(name, owner+"-") {
			a.stems[name] = owner
		}
		hash := text(mapping(o.metadata()["labels"])["pod-template-hash"])
		if stem, ok := strings.CutSuffix(owner, "-"+hash); ok && hash != "" && stem != "" && a.stems[owner] == "" {
			a.stems[owner] = stem
		}
	}
}

func isPolicy(o Object) bool {
	_, kind := o.Kind()
	switch kind {
	case "Tier", "NetworkSet", "GlobalNetworkSet", "HostEndpoint", "Profile", "ServiceAccount":
		return false
	}
	return written[kind] == nil && o.group() != "weir.dev"
}

func (a *anonymizer) object(o Object) Object {
	_, a.kind = o.Kind()
	renamed := Object(mapping(a.rename("", map[string]any(o))))
	meta := renamed.metadata()
	delete(meta, "creationTimestamp")
	name := text(o.metadata()["name"])
	switch {
	case name == "", a.kind == "BaselineAdminNetworkPolicy": // whose name is given
	case isPolicy(o):
		meta["name"] = a.Policy(name)
	case a.kind == "Tier":
		meta["name"] = a.Tier(name)
	}
	if generated := text(o.metadata()["generateName"]); generated != "" {
		meta["generateName"] = a.Name(strings.TrimSuffix(generated, "-")) + "-"
	}
	return renamed
}

// rename renames what the field of this name holds. Fields that nobody listed
// are renamed like a name, so that nothing slips through.
func (a *anonymizer) rename(field string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		return a.renameFields(field, v)
	case []any:
		renamed := make([]any, len(v))
		for i, item := range v {
			renamed[i] = a.rename(field, item)
		}
		return renamed
	case string:
		return a.renameText(field, v)
	}
	return v
}

func (a *anonymizer) renameFields(field string, v map[string]any) map[string]any {
	renamed := map[string]any{}
	switch field {
	case "labels", "matchLabels", "nodeSelector", "labelsToApply", "selector":
		if field == "selector" && a.kind != "Service" {
			break
		}
		for label, value := range v {
			renamed[a.labelKey(label)] = a.labelValue(label, text(value))
		}
		return renamed
	case "groups": // of a ConnectivityTest
		for name, ends := range v {
			renamed[a.Name(name)] = a.rename("from", ends)
		}
		return renamed
	case "matchExpressions":
		label := text(v["key"])
		var values []any
		for _, value := range items(v["values"]) {
			values = append(values, a.labelValue(label, text(value)))
		}
		renamed["key"], renamed["operator"] = a.labelKey(label), v["operator"]
		if values != nil {
			renamed["values"] = values
		}
		return renamed
	}
	for name, child := range v {
		if name != "description" && name != "annotations" {
			renamed[name] = a.rename(name, child)
		}
	}
	return renamed
}

func (a *anonymizer) renameText(field, old string) string {
	switch field {
	case "apiVersion", "kind", "operator", "protocol", "notProtocol", "action", "stagedAction", "defaultAction",
		"policyTypes", "types", "type", "phase", "status", "restartPolicy", "interfaceName", "performanceHints",
		"methods", "expect", "doNotTrack":
		return old
	case "tier":
		if a.kind == "ClusterNetworkPolicy" {
			return old
		}
		return a.Tier(old)
	case "selector", "notSelector", "namespaceSelector", "serviceAccountSelector":
		if renamed, ok := a.expression(old); ok {
			return renamed
		}
	case "port", "ports", "notPorts", "targetPort":
		return a.port(old)
	case "domains", "domainNames", "allowedEgressDomains", "externalName":
		return a.domain(old)
	case "from", "to", "expectOnly":
		return a.end(old)
	}
	return a.anything(old)
}

// anything renames a text by its looks: an address, a range, a path, a name.
func (a *anonymizer) anything(old string) string {
	if address, err := netip.ParseAddr(old); err == nil {
		return a.Address(address).String()
	}
	if prefix, err := netip.ParsePrefix(old); err == nil {
		return a.Prefix(prefix).String()
	}
	if old == "None" { // a Service without an address
		return old
	}
	if path, ok := strings.CutPrefix(old, "/"); ok {
		parts := strings.Split(path, "/")
		for i, part := range parts {
			parts[i] = a.word(part)
		}
		return "/" + strings.Join(parts, "/")
	}
	return a.Name(old)
}

var portNumbers = regexp.MustCompile(`^([A-Za-z0-9]+/)?[0-9]+([-:][0-9]+)?$`)

func (a *anonymizer) port(old string) string {
	if portNumbers.MatchString(old) || old == "any" {
		return old
	}
	return a.Name(old)
}

func (a *anonymizer) domain(old string) string {
	parts := strings.Split(strings.ToLower(old), ".")
	for i, part := range parts {
		if part != "*" {
			parts[i] = a.word(part)
		}
	}
	return strings.Join(parts, ".")
}

// end renames one end of a question: namespace/name, namespace/kind/name, an
// address, or a word.
func (a *anonymizer) end(old string) string {
	parts := strings.Split(old, "/")
	_, err := netip.ParseAddr(parts[0])
	switch {
	case old == "world":
		return old
	case err == nil || len(parts) == 1:
		return a.anything(old)
	}
	for i, part := range parts {
		if i == 0 || i == len(parts)-1 {
			parts[i] = a.Name(part)
		}
	}
	return strings.Join(parts, "/")
}

// commonKeys are label keys without a prefix that anybody may use.
var commonKeys = map[string]bool{
	"app": true, "name": true, "tier": true, "component": true, "role": true, "env": true, "environment": true,
	"version": true, "release": true, "k8s-app": true, "pod-template-hash": true, "job-name": true,
	"controller-uid": true, "controller-revision-hash": true,
}

// inherited begin the keys of labels that Calico's profiles pass on.
var inherited = []string{"pcns.", "pcsa."}

func (a *anonymizer) labelKey(old string) string {
	for _, prefix := range inherited {
		if rest, ok := strings.CutPrefix(old, prefix); ok {
			return prefix + a.labelKey(rest)
		}
	}
	prefix, name, prefixed := strings.Cut(old, "/")
	switch {
	case !prefixed && commonKeys[old], prefixed && isOfProject(prefix):
		return old
	case !prefixed:
		return a.word(old)
	}
	return a.domain(prefix) + "/" + a.word(name)
}

func isOfProject(domain string) bool {
	for _, project := range []string{"kubernetes.io", "k8s.io", "projectcalico.org", "weir.dev"} {
		if domain == project || strings.HasSuffix(domain, "."+project) {
			return true
		}
	}
	return false
}

func (a *anonymizer) labelValue(label, old string) string {
	switch label {
	case "kubernetes.io/os", "kubernetes.io/arch", "beta.kubernetes.io/os", "beta.kubernetes.io/arch":
		return old
	case "projectcalico.org/tier":
		return a.Tier(old)
	}
	return a.anything(old)
}
