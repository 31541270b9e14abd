package webhook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weir-policy/weir/internal/standing"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// What an API server shows of warnings, at most, in bytes.
const (
	longestWarning  = 256
	longestWarnings = 4096
)

// mostProblems is how many problems of one object a message has.
const mostProblems = 5

// explain is the command that tells more of a counterexample, in the world that a request
// would make: but for what goes, that is the cluster with a file that its author has.
func (v *verdict) explain() string {
	const cluster = "weir explain -f cluster "
	key := v.key
	switch {
	case key.Group == v1alpha1.Group:
		return cluster
	case v.request.Operation == admissionv1.Delete:
		kind := strings.ToLower(key.Kind)
		if key.Group == policies.CalicoGroup { // whose kinds have names that others have
			kind += "." + key.Group
		}
		return cluster + "--without " + kind + "/" + strings.TrimPrefix(key.Namespace+"/"+key.Name, "/") + " "
	case key.Namespace != "" && key.Namespace != metav1.NamespaceDefault:
		return cluster + "-f YOUR-FILE -n " + key.Namespace + " "
	}
	return cluster + "-f YOUR-FILE "
}

// verdict is what is found of a request, bit by bit. The zero verdict allows it.
type verdict struct {
	*Options
	request *admissionv1.AdmissionRequest
	key     k8s.Key // of its object

	denials      []string // each a few lines
	code         int32    // of the first
	denied       []string // the invariants that deny it
	broken       []string // the invariants that it breaks, of whatever severity
	unknown      []string // those that cannot be told any more
	told         []told   // of both
	warnings     []string
	undecidedFor string
}

// told is an invariant that a verdict speaks of. One that is being edited may have
// several severities.
type told struct {
	name     string
	severity invariant.Severity
	unknown  bool
}

// tells reports whether it is the first time that a verdict speaks of an invariant.
func (v *verdict) tells(r *invariant.Result, unknown bool, names *[]string) bool {
	it := told{r.Ref.Name, r.Severity, unknown}
	if slices.Contains(v.told, it) {
		return false
	}
	if v.told = append(v.told, it); !slices.Contains(*names, r.Ref.Name) {
		*names = append(*names, r.Ref.Name)
	}
	return true
}

func (v *verdict) isDenied() bool { return len(v.denials) > 0 }

func (v *verdict) deny(code int32, lines ...string) {
	v.code = cmp.Or(v.code, code)
	v.denials = append(v.denials, strings.Join(lines, "\n"))
}

func (v *verdict) warn(format string, args ...any) {
	if text := shorten(fmt.Sprintf(format, args...), longestWarning); !slices.Contains(v.warnings, text) {
		v.warnings = append(v.warnings, text)
	}
}

// choose denies or warns.
func (v *verdict) choose(c Choice, text string) {
	switch c {
	case Deny:
		v.deny(http.StatusForbidden, text)
	case Warn:
		v.warn("%s", text)
	}
}

// undecided is the verdict on a request that could not be decided.
func (v *verdict) undecided(err error) {
	v.undecidedFor = err.Error()
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		v.undecidedFor = "there was no time left"
	}
	v.choose(v.Undecided, "not checked against the invariants: "+v.undecidedFor)
}

// unsure is the verdict on a request that would be allowed, while another one may
// have admitted something that is not known.
func (v *verdict) unsure(wait time.Duration) {
	v.choose(v.Undecided, fmt.Sprintf("checked without what was admitted just before by the replica that decided until now; sure again in %s", wait.Round(time.Second)))
}

// without is the verdict on a request while some of the world cannot be seen. What breaks
// an invariant as far as is known is refused as ever.
func (v *verdict) without(unseen []string) {
	text := "checked by the world as it was seen last: " + strings.Join(unseen, "; ")
	if v.isDenied() {
		v.warn("%s", text)
		return
	}
	v.undecidedFor = strings.Join(unseen, "; ")
	v.choose(v.Undecided, text)
}

// opaque looks whether a policy is understood.
func (v *verdict) opaque(a *admission) {
	if a.isGone() {
		return
	}
	version, kind := metav1.GroupVersion{Group: v.request.Kind.Group, Version: v.request.Kind.Version}.String(), v.request.Kind.Kind
	if !k8s.Understands(version, kind) {
		v.choose(v.Opaque, fmt.Sprintf("%s of %s is not understood, so what it may apply to cannot be told", kind, version))
		return
	}
	for _, p := range a.entry.Problems() {
		v.choose(v.Opaque, fmt.Sprintf("%s %s is not understood: %s", kind, a.key.Ref(), p.Message))
	}
}

// compare looks at what a change does to the invariants. Of those of severity deny that
// were broken and are, it looks whether anything breaks them that did not.
func (v *verdict) compare(before, after *standing.Standing, now time.Time) error {
	var stuck []int
	for k, a := range after.Results {
		if a == before.Results[k] {
			continue // nothing that it is about is different
		}
		switch turn := invariant.TurnOf(before.Results[k], a); {
		case turn == invariant.Breaks:
			v.breaks(a, false)
		case turn == invariant.Doubts:
			v.doubts(a)
		case a.Severity == invariant.Deny && (turn == invariant.Stuck || turn == invariant.Worsens):
			stuck = append(stuck, k)
		case turn == invariant.Worsens:
			v.breaks(a, true)
		}
	}
	worse, err := after.Worse(before, stuck, now)
	if err != nil {
		return err
	}
	for n, k := range stuck {
		a := after.Results[k]
		switch {
		case worse[n] != nil:
			v.breaks(a.Foremost(worse[n]), true)
		case invariant.TurnOf(before.Results[k], a) == invariant.Worsens:
			v.breaks(a, true)
		}
	}
	return nil
}

// breaks takes an invariant that a change breaks, or breaks further.
func (v *verdict) breaks(r *invariant.Result, further bool) {
	if !v.tells(r, false, &v.broken) {
		return
	}
	verb := "breaks"
	if further {
		verb = "breaks further"
	}
	v.tell(r, verb)
}

// doubts takes an invariant of which nobody can tell whether it holds any more.
func (v *verdict) doubts(r *invariant.Result) {
	if !v.tells(r, true, &v.unknown) {
		return
	}
	switch text := fmt.Sprintf("invariant %s: %s", r.Ref.Name, r.Say()); {
	case r.Severity == invariant.Deny:
		v.choose(v.Unknown, text)
	case r.Severity == invariant.Warn && v.Unknown != Allow:
		v.warn("%s", text)
	}
}

// declares takes what is found of an Invariant that somebody declares.
func (v *verdict) declares(r *invariant.Result) {
	switch r.State {
	case invariant.Broken, invariant.Invalid:
		if !v.tells(r, false, &v.broken) {
			return
		}
		if r.Severity == invariant.Deny && r.Adopt {
			v.warn("invariant %s does not hold today: %s", r.Ref.Name, r.Say())
			return
		}
		verb := "does not hold today:"
		if r.State == invariant.Invalid {
			verb = "is invalid:"
		}
		v.tell(r, verb)
		if v.isDenied() && r.State == invariant.Broken {
			last := &v.denials[len(v.denials)-1]
			*last += "\nspec.adopt: true accepts it as it is"
		}
	case invariant.Unknown:
		v.doubts(r)
	case invariant.Holds:
		if r.Vacuous != "" && len(r.Absent) == 0 {
			v.warn("invariant %s speaks of nobody: nobody is described by its %s", r.Ref.Name, r.Vacuous)
		}
	}
	for _, absent := range r.Absent {
		v.warn("invariant %s: %s", r.Ref.Name, absent)
	}
	if lapsed := r.Lapsed(); lapsed != "" && !v.isDenied() {
		v.warn("invariant %s: %s", r.Ref.Name, lapsed)
	}
}

// tell says what breaks an invariant, in the way that its severity wants.
func (v *verdict) tell(r *invariant.Result, verb string) {
	switch r.Severity {
	case invariant.Deny:
		v.denied = append(v.denied, r.Ref.Name)
		if v.isDenied() {
			v.deny(http.StatusForbidden) // the first is told, of the others the names
			return
		}
		v.deny(http.StatusForbidden, v.lines(r.Explained(), verb)...)
	case invariant.Warn:
		r = r.Explained()
		text := fmt.Sprintf("%s invariant %s: %s", verb, r.Ref.Name, r.Say())
		if rule := ruleOf(r); rule != "" {
			text += ", by " + rule
		}
		if lapsed := r.Lapsed(); lapsed != "" {
			text += "; " + lapsed
		}
		v.warn("%s", text)
	}
}

// refuse takes why an Invariant does not compile.
func (v *verdict) refuse(err error) {
	problems := strings.Split(err.Error(), "\n")
	if more := len(problems) - mostProblems; more > 0 {
		problems = append(problems[:mostProblems], fmt.Sprintf("and %d more lines", more))
	}
	v.deny(http.StatusUnprocessableEntity, problems...)
}

// lines say what breaks an invariant: the invariant, a counterexample, the rule,
// and how to learn more.
func (v *verdict) lines(r *invariant.Result, verb string) []string {
	first := verb + " " + r.Headline()
	if r.Owner != "" {
		first += " (owner " + r.Owner + ")"
	}
	all := []string{shorten(first, longestWarning), shorten(r.Say(), longestWarning)}
	if rule := ruleOf(r); rule != "" {
		all = append(all, "by "+rule)
	}
	if lapsed := r.Lapsed(); lapsed != "" {
		all = append(all, shorten(lapsed, longestWarning))
	}
	if x := foremost(r); x != nil {
		if q := x.Question(); q != nil {
			all = append(all, v.explain()+strings.Join(q, " "))
		}
	}
	return all
}

func foremost(r *invariant.Result) *invariant.Counterexample {
	if len(r.Counterexamples) == 0 {
		return nil
	}
	return &r.Counterexamples[0]
}

// ruleOf names the rule that decides. Where it stands is told by its name: it is
// an object of the cluster.
func ruleOf(r *invariant.Result) string {
	x := foremost(r)
	if x == nil {
		return ""
	}
	return strings.TrimSuffix(x.Rule(), " at "+x.At.String())
}

// name is the verdict as it is counted.
func (v *verdict) name() string {
	switch {
	case v.undecidedFor != "":
		return "undecided"
	case v.isDenied():
		return "denied"
	case len(v.warnings) > 0:
		return "warned"
	}
	return "allowed"
}

// response is the verdict as the API server takes it.
func (v *verdict) response() *admissionv1.AdmissionResponse {
	r := &admissionv1.AdmissionResponse{UID: v.request.UID, Allowed: !v.isDenied(), Warnings: fit(v.warnings)}
	if v.isDenied() {
		message := v.denials[0]
		if len(v.denials) > 1 {
			message += fmt.Sprintf("\nand %s", others(v.denied, len(v.denials)-1))
		}
		r.Result = &metav1.Status{Status: metav1.StatusFailure, Code: v.code, Message: message, Reason: metav1.StatusReasonForbidden}
		if v.code == http.StatusUnprocessableEntity {
			r.Result.Reason = metav1.StatusReasonInvalid
		}
	}
	note := func(key, value string) {
		if value == "" {
			return
		}
		if r.AuditAnnotations == nil {
			r.AuditAnnotations = map[string]string{}
		}
		r.AuditAnnotations[key] = shorten(value, longestWarnings)
	}
	note("breaks", strings.Join(v.broken, " "))
	note("unknown", strings.Join(v.unknown, " "))
	note("undecided", v.undecidedFor)
	if r.AuditAnnotations != nil && isDryRun(v.request) {
		note("dry-run", "true")
	}
	return r
}

// others names the invariants that deny a request beside the first.
func others(denied []string, count int) string {
	if count == len(denied)-1 && count <= mostProblems {
		return "breaks " + strings.Join(denied[1:], ", ")
	}
	return fmt.Sprintf("for %d other reasons", count)
}

// fit leaves out the warnings that an API server would not show.
func fit(warnings []string) []string {
	total := 0
	for i, w := range warnings {
		if total += len(w); total > longestWarnings-longestWarning && i < len(warnings)-1 {
			return append(warnings[:i:i], fmt.Sprintf("and %d more warnings", len(warnings)-i))
		}
	}
	return warnings
}

// shorten cuts a text that is too long.
func shorten(text string, most int) string {
	const dots = "..."
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-len(dots)], "") + dots
}
