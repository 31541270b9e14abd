package flowlog

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-policy/weir/policies"
)

// calicoKind is a kind of policy as Calico's flow logs write it.
type calicoKind struct {
	short, long string // in strings since Calico 3.32, and as Goldmane's enum names it
	ref         policies.Ref
	namespaced  bool
}

// calicoKinds stand where Goldmane's enum numbers them.
var calicoKinds = [...]calicoKind{
	{long: "KindUnspecified"},
	{"np", "CalicoNetworkPolicy", calicoRef("NetworkPolicy"), true},
	{"gnp", "GlobalNetworkPolicy", calicoRef("GlobalNetworkPolicy"), false},
	{"snp", "StagedNetworkPolicy", calicoRef("StagedNetworkPolicy"), true},
	{"sgnp", "StagedGlobalNetworkPolicy", calicoRef("StagedGlobalNetworkPolicy"), false},
	{"sknp", "StagedKubernetesNetworkPolicy", calicoRef("StagedKubernetesNetworkPolicy"), true},
	{"knp", "NetworkPolicy", policies.Ref{Kind: "NetworkPolicy"}, true},
	{"kanp", "AdminNetworkPolicy", policies.Ref{Kind: "AdminNetworkPolicy"}, false},
	{"kbanp", "BaselineAdminNetworkPolicy", policies.Ref{Kind: "BaselineAdminNetworkPolicy"}, false},
	{"pro", "Profile", calicoRef("Profile"), false},
	endOfTier,
	{"kcnp", "ClusterNetworkPolicy", policies.Ref{Kind: "ClusterNetworkPolicy"}, false},
}

var endOfTier = calicoKind{"eot", "EndOfTier", policies.Ref{}, false}

func calicoRef(kind string) policies.Ref {
	return policies.Ref{Group: policies.CalicoGroup, Kind: kind}
}

// profileTier stands where a tier would for profiles, which are in none.
const profileTier = "__PROFILE__"

// noMatch stands where a name would if neither policy nor profile had a say.
const noMatch = "__NO_MATCH__"

// calicoHit is one entry of a policy trace.
type calicoHit struct {
	index                        int // in the trace
	kind, tier, namespace, name  string
	action                       string
	rule                         int
	triggerKind, triggerNS, trig string // of the policy by which the tier was concerned, at its end
}

// parseHit reads "index|tier|name|action|rule", where the name is that of
// Calico before 3.32 ("shop/security.db", "shop/knp.default.db",
// "security.staged:db", "__PROFILE__.kns.shop"), or "kind:namespace/name".
func parseHit(text string) (h calicoHit, err error) {
	parts := strings.Split(text, "|")
	if len(parts) != 5 {
		return h, fmt.Errorf("it has %d parts, and not index|tier|name|action|rule", len(parts))
	}
	if h.index, err = strconv.Atoi(parts[0]); err != nil || h.index < 0 {
		return h, fmt.Errorf("index %q is no whole number", parts[0])
	}
	h.tier, h.action = parts[1], parts[3]
	switch h.rule, err = strconv.Atoi(parts[4]); {
	case parts[4] == "-":
		h.rule = policies.UnknownRule
	case err != nil:
		return h, fmt.Errorf("rule %q is no number", parts[4])
	}
	kind, name, found := strings.Cut(parts[2], ":")
	if found && !strings.HasSuffix(kind, "staged") {
		h.kind = kind
		h.namespace, h.name = splitName(name)
	} else {
		h.kind, h.namespace, h.name = legacyName(h.tier, parts[2])
	}
	return h, nil
}

func splitName(text string) (namespace, name string) {
	if namespace, name, ok := strings.Cut(text, "/"); ok {
		return namespace, name
	}
	return "", text
}

// legacyName reads a policy's name as it was written before Calico 3.32.
func legacyName(tier, text string) (kind, namespace, name string) {
	namespace, name = splitName(text)
	before, rest, staged := strings.Cut(name, "staged:")
	if staged {
		if name = rest; !strings.HasPrefix(rest, before) {
			name = before + rest
		}
	}
	const ofKubernetes, ofAdmin, ofBaseline = "knp.default.", "kanp.adminnetworkpolicy.", "kbanp.baselineadminnetworkpolicy."
	var found bool
	switch {
	case namespace != "":
		if name, found = strings.CutPrefix(name, ofKubernetes); found {
			kind = "knp"
		} else {
			kind = "np"
		}
	case tier == profileTier:
		if name, found = strings.CutPrefix(name, profileTier+"."); found {
			kind = "pro"
		}
	case strings.HasPrefix(name, ofAdmin):
		kind, name = "kanp", name[len(ofAdmin):]
	case strings.HasPrefix(name, ofBaseline):
		kind, name = "kbanp", name[len(ofBaseline):]
	default:
		kind = "gnp"
	}
	if staged {
		kind = "s" + kind
	}
	return kind, namespace, name
}

// read returns the hit in Weir's words.
func (h *calicoHit) read() (policies.Hit, error) {
	hit := policies.Hit{Rule: h.rule}
	kind, err := findKind(h.kind)
	if err != nil {
		return hit, err
	}
	namespace, name, isProfile := h.namespace, h.name, kind.short == "pro"
	if name == noMatch || name == h.tier+"."+noMatch {
		kind, name = endOfTier, ""
	}
	if kind.short == endOfTier.short {
		hit.Rule = policies.EndOfTier
		if h.trig != "" {
			namespace, name = h.triggerNS, h.trig
			if kind, err = findKind(h.triggerKind); err != nil {
				return hit, err
			}
		}
	}
	switch {
	case kind.short == endOfTier.short && name == "" && namespace == "": // nobody says which policy it was
	case name == "" || !isName(name):
		return hit, fmt.Errorf("%q is no name of a policy", name)
	case kind.namespaced && (namespace == "" || !isName(namespace)):
		return hit, fmt.Errorf("%q is no namespace, and %s has one", namespace, kind.long)
	case !kind.namespaced && namespace != "":
		return hit, fmt.Errorf("%s has no namespace, and this one has %q", kind.long, namespace)
	}
	if kind.ref.Kind != "" {
		hit.Policy = kind.ref
		hit.Policy.Namespace, hit.Policy.Name = namespace, name
	}
	hit.Staged = strings.HasPrefix(kind.ref.Kind, "Staged")

	switch {
	case isProfile && (h.tier == profileTier || h.tier == ""):
	case isProfile || h.tier == "" || !isName(h.tier):
		return hit, fmt.Errorf("%q is no tier", h.tier)
	default:
		hit.Tier = h.tier
	}
	if hit.Rule < policies.UnknownRule {
		return hit, fmt.Errorf("rule %d is below %d", hit.Rule, policies.UnknownRule)
	}
	switch h.action {
	case "allow", "deny", "pass":
		hit.Action, err = policies.ParseAction(h.action)
	default:
		err = fmt.Errorf("action %q is none of allow, deny, pass", h.action)
	}
	return hit, err
}

// findKind finds a kind by either name, or by its number.
func findKind(text string) (calicoKind, error) {
	i := slices.IndexFunc(calicoKinds[:], func(k calicoKind) bool { return text == k.long || text == k.short })
	if n, err := strconv.Atoi(text); err == nil && n < len(calicoKinds) {
		i = n
	}
	if i <= 0 || text == "" {
		return calicoKind{}, fmt.Errorf("%q is no kind of policy", text)
	}
	return calicoKinds[i], nil
}

// isName reports whether text has only characters that names of Kubernetes have.
func isName(text string) bool {
	return !strings.ContainsFunc(text, func(c rune) bool {
		return (c < 'a' || 'z' < c) && (c < '0' || '9' < c) && c != '-' && c != '.'
	})
}

// readTrace reads the lists of policies that a record names, each as strings or
// as Goldmane's objects. Staged policies, which only the pending list has, come
// last.
func readTrace(text []byte) ([]policies.Hit, error) {
	var enforced, all, transit, pending []policies.Hit
	s := scan{text: text, name: []byte("policies")}
	if s.peek() == '[' {
		all = takeHits(&s)
		return all, s.end()
	}
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "enforced_policies", "enforcedPolicies", "enforced":
			enforced = takeHits(&s)
		case "all_policies", "allPolicies":
			all = takeHits(&s)
		case "transit_policies", "transitPolicies":
			transit = takeHits(&s)
		case "pending_policies", "pendingPolicies", "pending":
			pending = takeHits(&s)
		default:
			s.skip()
		}
	}
	hits := enforced
	if len(hits) == 0 {
		hits = all
	}
	hits = append(hits, transit...)
	for _, hit := range pending {
		if hit.Staged && !slices.Contains(hits, hit) {
			hits = append(hits, hit)
		}
	}
	return hits, s.end()
}

// takeHits takes a list of hits, which it returns in the order of the trace.
func takeHits(s *scan) []policies.Hit {
	type entry struct {
		index int
		policies.Hit
	}
	var entries []entry
	for in := s.array(); in && s.element(); {
		var h calicoHit
		var err error
		what := "policy"
		if s.peek() == '{' {
			h = takeHit(s)
			what = fmt.Sprintf("policy %.200q", h.name)
		} else if text := string(s.string()); s.err == nil {
			h, err = parseHit(text)
			what = fmt.Sprintf("policy %.200q", text)
		}
		if s.err != nil {
			return nil
		}
		hit := policies.Hit{}
		if err == nil {
			hit, err = h.read()
		}
		if err != nil {
			s.fail(fmt.Errorf("%s: %w", what, err))
			return nil
		}
		entries = append(entries, entry{h.index, hit})
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return a.index - b.index })
	var hits []policies.Hit
	for _, e := range entries {
		hits = append(hits, e.Hit)
	}
	return hits
}

// takeHit takes Goldmane's PolicyHit, in which a field that is absent is zero.
func takeHit(s *scan) calicoHit {
	var h calicoHit
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "kind":
			h.kind = string(s.word())
		case "namespace":
			h.namespace = said(s.string())
		case "name":
			h.name = string(s.string())
		case "tier":
			h.tier = string(s.string())
		case "action":
			h.action = goldmaneAction(s.word())
		case "policy_index", "policyIndex":
			h.index = int(s.uint(1 << 20))
		case "rule_index", "ruleIndex":
			h.rule = takeRule(s)
		case "trigger":
			if !s.null() {
				trigger := takeHit(s)
				h.triggerKind, h.triggerNS, h.trig = trigger.kind, trigger.namespace, trigger.name
			}
		default:
			s.skip()
		}
	}
	return h
}

func takeRule(s *scan) int {
	text := s.word()
	n, err := strconv.ParseInt(string(text), 10, 32)
	if err != nil && text != nil {
		s.fail(fmt.Errorf("%s %.40q is no rule's number", s.name, text))
	}
	return int(n)
}
