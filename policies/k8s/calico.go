package k8s

import (
	"encoding/json"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/selector"
)

// CalicoVersions are the versions of Calico whose rules can be followed, the
// newest last.
var CalicoVersions = [...]string{"3.29", "3.30", "3.31", "3.32"}

// calicoKinds are Calico's kinds that bear policy.
var calicoKinds = map[string]kind{
	"NetworkPolicy":       {calicoVersion, false, (*reader).readCalicoPolicy},
	"GlobalNetworkPolicy": {calicoVersion, true, (*reader).readCalicoPolicy},
	"Tier":                {calicoVersion, true, (*reader).readTier},
	"NetworkSet":          {calicoVersion, false, (*reader).readNetworkSet},
	"GlobalNetworkSet":    {calicoVersion, true, (*reader).readNetworkSet},
	"HostEndpoint":        {calicoVersion, true, (*reader).readHostEndpoint},
	"Profile":             {calicoVersion, true, (*reader).readProfile},

	"StagedNetworkPolicy":           {calicoVersion, false, (*reader).readCalicoPolicy},
	"StagedGlobalNetworkPolicy":     {calicoVersion, true, (*reader).readCalicoPolicy},
	"StagedKubernetesNetworkPolicy": {calicoVersion, false, (*reader).readStagedNetworkPolicy},
}

const (
	calicoVersion = policies.CalicoGroup + "/v3"
	// storedGroup is the group in which the API server stores Calico's kinds
	// where Calico brings an API server of its own.
	storedGroup   = "crd." + policies.CalicoGroup
	storedVersion = storedGroup + "/v1"

	mostCalicoRules = 1024
	mostSelector    = 1024 // characters
	mostNets        = 256
	mostPorts       = 50
	mostHTTP        = 20
	mostAnnotations = 256 << 10 // bytes, keys and values together
)

// readCalico reads an object of Calico's groups.
func (r *reader) readCalico(v value, name, version string) {
	want := calicoVersion
	if strings.HasPrefix(version, storedGroup+"/") {
		want = storedVersion
	}
	k, known := calicoKinds[name]
	switch {
	case known && version == want:
		if o, ok := r.object(v, name, policies.CalicoGroup, k.clusterWide); ok {
			r.calico = true
			o.only(objectFields...)
			o.meta.only(metaFields...)
			o.checkAnnotations()
			k.read(r, o)
		}
	case known:
		v.field("apiVersion").orElse(v).problem("%s is not of %s; write \"apiVersion: %s\"", name, version, want)
	case name == "FelixConfiguration":
		r.readFelix(v)
	case meantByCalico(name) != "":
		v.field("kind").orElse(v).problem("kind %s is not of %s; did you mean %q?", name, version, meantByCalico(name))
	}
}

// meantByCalico returns the kind of Calico that a misspelt name stands for, ""
// when it is some other kind.
func meantByCalico(name string) string {
	var near []string
	for known := range calicoKinds {
		if strings.EqualFold(name, known) {
			return known
		}
		if strings.Contains(known, "Network") {
			near = append(near, known)
		}
	}
	slices.Sort(near)
	if !strings.Contains(strings.ToLower(name), "netw") {
		return ""
	}
	return nearest(name, near)
}

// isCalicoAlone reports whether a kind without an apiVersion can only be meant
// as Calico's.
func isCalicoAlone(name string) bool {
	_, ours := kinds[name]
	_, theirs := calicoKinds[name]
	return theirs && !ours && (strings.Contains(name, "Network") || name == "HostEndpoint")
}

// before reports whether the version of Calico that is followed comes before
// another.
func (r *reader) before(version string) bool { return r.calicoVersion < version }

func (o object) checkAnnotations() {
	size := 0
	for key, text := range o.annotations() {
		size += len(key) + len(text)
	}
	if size > mostAnnotations {
		o.meta.field("annotations").problem("annotations of %d bytes are more than the %d that Calico takes; shorten them", size, mostAnnotations)
	}
}

// calicoLabels returns the labels of an object of Calico. As it is stored, they
// stand in an annotation.
func (o object) calicoLabels() map[string]string {
	labels := o.meta.field("labels").labels()
	stored := o.meta.field("annotations").field(policies.CalicoGroup + "/metadata")
	if !stored.present() {
		return labels
	}
	var meta struct{ Labels map[string]string }
	if err := json.Unmarshal([]byte(stored.text()), &meta); err != nil {
		stored.problem("the annotation does not hold the object's metadata as JSON: %s", err)
	}
	for key, value := range labels {
		if _, has := meta.Labels[key]; !has && strings.HasPrefix(key, policies.CalicoGroup+"/") {
			if meta.Labels == nil {
				meta.Labels = map[string]string{}
			}
			meta.Labels[key] = value
		}
	}
	if meta.Labels == nil {
		return labels
	}
	return meta.Labels
}

const labelForm = `[a-z0-9]([-a-z0-9]*[a-z0-9])?`

var (
	policyName       = regexp.MustCompile(`^(` + labelForm + `\.)?` + labelForm + `$`)
	convertedPolicy  = regexp.MustCompile(`^(knp|ossg)\.default\.` + labelForm + `(\.` + labelForm + `)*$`)
	tierName         = regexp.MustCompile(`^` + labelForm + `$`)
	interfaceName    = regexp.MustCompile(`^(\*|[a-zA-Z0-9_.-]{1,15})$`)
	calicoPortName   = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,128}$`)
	calicoPortRange  = regexp.MustCompile(`^([0-9]+)(?::([0-9]+))?$`)
	domainComponents = regexp.MustCompile(`^((\*|[a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?)\.)*[a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?$`)
)

// checkName reports a name that a policy of Calico cannot have in its tier.
// Until 3.29 a name without the prefix of its tier was given that prefix, in the
// default tier; up to 3.31 other tiers needed it.
func (r *reader) checkName(o object, tier string) {
	name := o.meta.field("name")
	if o.nameless || o.ref.Name == "" {
		return
	}
	converted := o.ref.Namespace != "" && convertedPolicy.MatchString(o.ref.Name)
	prefix, _, prefixed := strings.Cut(o.ref.Name, ".")
	switch {
	case converted:
	case !r.isValid(objectNames, o.ref.Name): // which is reported already
	case !policyName.MatchString(o.ref.Name):
		name.problem("name %q is not valid: it wants lower-case letters, digits and '-', a letter or digit at either end, and one '.' at most", o.ref.Name)
	case r.before("3.32") && tier != Tier && prefix+"." != tier+"." || r.before("3.32") && tier != Tier && !prefixed:
		name.problem("name %q lacks the prefix that Calico %s wants of the policies of tier %s; call it %q", o.ref.Name, r.calicoVersion, tier, tier+"."+o.ref.Name)
	case r.before("3.30") && prefixed && prefix != tier:
		name.problem("name %q has the prefix of another tier than its own, %s; call it %q", o.ref.Name, tier, tier+o.ref.Name[len(prefix):])
	}
}

// fullName returns the name by which Calico itself knows a policy.
func (r *reader) fullName(ref policies.Ref) string {
	isPolicy := strings.HasSuffix(ref.Kind, "NetworkPolicy") && !strings.Contains(ref.Kind, "Kubernetes")
	if ref.Group == policies.CalicoGroup && isPolicy && r.before("3.30") && !strings.Contains(ref.Name, ".") {
		return Tier + "." + ref.Name
	}
	return ref.Name
}

// expression reads a Calico selector; given is false where it is absent or
// empty, which stands for all().
func (v value) expression() (e selector.Expression, given bool) {
	text := v.text()
	if len(text) > mostSelector {
		v.problem("%s has %d characters, more than the %d that Calico takes; shorten it", v.name, len(text), mostSelector)
		return e, false
	}
	e, err := selector.ParseCalico(text)
	if err != nil {
		v.problem("%s", err)
	}
	return e, text != ""
}

// endpoints reads a selector of the labels of endpoints and network sets.
func (v value) endpoints() (selector.Selector, bool) {
	e, given := v.expression()
	v.rejectGlobal(e)
	return e.Selector(), given
}

// accounts is endpoints for the labels of their service accounts.
func (v value) accounts() (selector.Selector, bool) {
	e, given := v.expression()
	v.rejectGlobal(e)
	return e.Of(policies.AccountPrefix, "").Selector(), given
}

// namespaces reads a selector of the labels of namespaces into a match, if there
// is one. What is in no namespace has none of the labels.
func (v value) namespaces(m *policies.Match) (e selector.Expression, given bool) {
	e, given = v.expression()
	if given {
		m.Namespaces = e.Of("", policies.NameLabel).Renamed(policies.CalicoName, policies.NameLabel).Selector()
		m.Inherited = e.Of(policies.NamespacePrefix, policies.CalicoNamespace).Selector()
	}
	return e, given
}

func (v value) rejectGlobal(e selector.Expression) {
	if e.HasGlobal() {
		v.problem("%s takes no global(); only the namespaceSelector of a rule does", v.name)
	}
}

// float returns a number; ok is false when it is absent or was reported.
func (v value) float() (n float64, ok bool) {
	if !v.wants(scalar, "a number") {
		return 0, false
	}
	n, err := strconv.ParseFloat(strings.ReplaceAll(v.node.Value, "_", ""), 64)
	if (v.node.Tag != "!!int" && v.node.Tag != "!!float") || err != nil || math.IsInf(n, 0) || math.IsNaN(n) {
		v.problem("%s wants a number, found %s", v.name, describe(v.node))
		return 0, false
	}
	return n, true
}

// order reads an order; what has none comes last.
func (v value) order() float64 {
	if n, ok := v.float(); ok {
		return n
	}
	return math.Inf(1)
}
