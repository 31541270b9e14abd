// Package controller keeps the status of every Invariant true: whatever changed the
// world, and whether or not the webhook was asked.
//
// It owns what a status says, in the ways of Flux. How invariants stand it asks
// package standing.
package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	fluxcontroller "github.com/fluxcd/pkg/runtime/controller"
	"github.com/fluxcd/pkg/runtime/jitter"
	"github.com/fluxcd/pkg/runtime/patch"
	"github.com/fluxcd/pkg/runtime/predicates"
	corev1 "k8s.io/api/core/v1"
	kerrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/weir-policy/weir/internal/standing"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// Name is the controller's, in events and in the managed fields of a status.
const Name = "weir-controller"

// ViolatedCondition is true while something breaks an invariant, LapsedCondition while it
// has a waiver that has expired. The reasons are those of conditions.
const (
	ViolatedCondition = "InvariantViolated"
	LapsedCondition   = "WaiverExpired"

	ViolatedReason = "InvariantViolated"
	HoldsReason    = "InvariantHolds"
	WaivedReason   = "InvariantWaived"
	UnknownReason  = "InvariantUnknown"
	UnseenReason   = "WorldUnseen"
	LapsedReason   = "WaiverExpired"
	InvalidReason  = "InvalidInvariant"
)

var ownedConditions = []string{meta.ReadyCondition, meta.StalledCondition, meta.ReconcilingCondition, ViolatedCondition, LapsedCondition}

// Reconciler keeps the statuses.
type Reconciler struct {
	client.Client
	fluxcontroller.Metrics
	Events   record.EventRecorder // the cluster's
	Alerts   record.EventRecorder // Flux's, unless it is nil
	Keeper   *standing.Keeper
	Interval time.Duration // after which a status is renewed though nothing changed
	Clock    func() time.Time
	Watch    *Watch

	mutex sync.Mutex
	told  map[string]string // what was told last of invariants of packs: their states by name
}

// retry is how soon it is asked again what is found of an Invariant that was not looked
// at yet as it is stored.
const retry = time.Second

// SetupWithManager lets a manager run the controller on the replica that leads.
func (r *Reconciler) SetupWithManager(m ctrl.Manager, o controller.Options) error {
	return ctrl.NewControllerManagedBy(m).
		For(&Object{}, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicates.ReconcileRequestedPredicate{}))).
		WatchesRawSource(r.Watch.Source()).
		WithOptions(o).
		Complete(r)
}

// Reconcile writes the status of one Invariant. Where there is none of the name, but
// one of a policy pack, it tells of that.
func (r *Reconciler) Reconcile(ctx context.Context, q ctrl.Request) (result ctrl.Result, err error) {
	begin := r.Clock()
	o := &Object{}
	switch err := r.Get(ctx, q.NamespacedName, o); {
	case kerrors.IsNotFound(err):
		return ctrl.Result{}, r.packed(ctx, q.Name)
	case err != nil:
		return ctrl.Result{}, err
	}
	before := toldOf(o)
	patcher := patch.NewSerialPatcher(o, r.Client)
	defer func() {
		if !o.GetDeletionTimestamp().IsZero() {
			return
		}
		written := patcher.Patch(ctx, o, patch.WithOwnedConditions{Conditions: ownedConditions}, patch.WithForceOverwriteConditions{}, patch.WithFieldOwner(Name))
		if err = utilerrors.NewAggregate([]error{err, client.IgnoreNotFound(written)}); err == nil {
			r.tell(o, before)
		}
		r.RecordReadiness(ctx, o)
		r.RecordReconciling(ctx, o)
		r.RecordStalled(ctx, o)
		r.RecordCondition(ctx, o, ViolatedCondition)
		r.RecordCondition(ctx, o, LapsedCondition)
		r.RecordDuration(ctx, o, begin)
	}()
	if !o.GetDeletionTimestamp().IsZero() {
		r.RecordReadiness(ctx, o)
		return ctrl.Result{}, nil
	}
	return r.reconcile(ctx, o)
}

func (r *Reconciler) reconcile(ctx context.Context, o *Object) (ctrl.Result, error) {
	i, err := compile(o)
	if err != nil {
		r.write(o, &invariant.Result{State: invariant.Invalid, Problem: err.Error()})
		return ctrl.Result{}, nil // until it is edited
	}
	s, err := r.Keeper.Standing(ctx)
	if err != nil && !errors.Is(err, standing.ErrUnseen) {
		return ctrl.Result{}, err
	}
	renewed := jitter.JitteredRequeueInterval(ctrl.Result{RequeueAfter: r.Interval})
	if s != nil {
		if found := s.Result(o.Name); found != nil && found.Says(i) {
			r.write(o, r.Watch.asSeen(found))
			return renewed, nil
		}
	}
	conditions.MarkReconciling(o, meta.ProgressingReason, "waiting for the world to be seen")
	if !conditions.Has(o, meta.ReadyCondition) {
		conditions.MarkUnknown(o, meta.ReadyCondition, meta.ProgressingReason, "waiting for the world to be seen")
	}
	if s == nil {
		return renewed, nil // the Watch leads here again once there is something to tell
	}
	return ctrl.Result{RequeueAfter: retry}, nil
}

// packed tells of an invariant of a policy pack, which has no status, when another
// state of it is found than before: in an event about its name, and in the log. One
// that holds to begin with is no news.
func (r *Reconciler) packed(ctx context.Context, name string) error {
	s, err := r.Keeper.Standing(ctx)
	if errors.Is(err, standing.ErrUnseen) {
		return nil // it is looked at when the world is seen
	}
	if err != nil {
		return err
	}
	found := s.Result(name)
	if found == nil || found.Pack == "" {
		return nil
	}
	found = r.Watch.asSeen(found)
	r.mutex.Lock()
	o := &Object{ObjectMeta: metav1.ObjectMeta{Name: name}}
	r.write(o, found)
	before, known := r.told[name]
	if r.told == nil {
		r.told = map[string]string{}
	}
	r.told[name] = toldOf(o)
	r.mutex.Unlock()
	if !known && found.State == invariant.Holds {
		return nil
	}
	if r.tell(o, before) {
		log.FromContext(ctx).Info("an invariant of a policy pack", "pack", found.Pack, "severity", found.Severity.String(), "state", o.Status.State, "message", o.Status.Message)
	}
	return nil
}

// What a status holds, at most, in bytes.
const (
	longestMessage = 1024
	longestField   = 512
)

// write puts what was found into a status.
func (r *Reconciler) write(o *Object, found *invariant.Result) {
	said, lapsed := found.Say(), found.Lapsed()
	if lapsed != "" {
		said += "; " + lapsed
	}
	said = shorten(said, longestMessage)
	s := &o.Status
	s.ObservedGeneration = o.Generation
	s.State, s.Message = found.State.String(), said
	if found.IsUnseen() { // all else is as of when it was evaluated last
		conditions.Delete(o, meta.StalledCondition)
		conditions.Delete(o, ViolatedCondition)
		conditions.MarkReconciling(o, UnseenReason, "%s", said)
		conditions.MarkUnknown(o, meta.ReadyCondition, UnseenReason, "%s", said)
		return
	}
	s.LastEvaluated = r.Clock().UTC().Format(time.RFC3339)
	s.Broken, s.Waived = int64(found.Broken), int64(found.Waived)
	s.Counterexamples = nil
	for k := range found.Counterexamples {
		s.Counterexamples = append(s.Counterexamples, written(&found.Counterexamples[k]))
	}
	if token, asked := meta.ReconcileAnnotationValue(o.GetAnnotations()); asked {
		o.SetLastHandledReconcileRequest(token)
	}
	if conditions.Delete(o, LapsedCondition); lapsed != "" {
		conditions.MarkTrue(o, LapsedCondition, LapsedReason, "%s", shorten(lapsed, longestMessage))
	}
	conditions.Delete(o, meta.ReconcilingCondition)
	conditions.Delete(o, meta.StalledCondition)
	conditions.Delete(o, ViolatedCondition)
	stalled := func(reason string) {
		conditions.MarkStalled(o, reason, "%s", said)
		conditions.MarkFalse(o, meta.ReadyCondition, reason, "%s", said)
	}
	switch found.State {
	case invariant.Broken:
		conditions.MarkTrue(o, ViolatedCondition, ViolatedReason, "%s", said)
		stalled(ViolatedReason)
	case invariant.Invalid:
		stalled(InvalidReason)
	case invariant.Unknown:
		stalled(UnknownReason)
	case invariant.Waived:
		conditions.MarkTrue(o, meta.ReadyCondition, WaivedReason, "%s", said)
	default:
		conditions.MarkTrue(o, meta.ReadyCondition, HoldsReason, "%s", said)
	}
}

// written is a counterexample as a status has it.
func written(x *invariant.Counterexample) v1alpha1.Counterexample {
	w := v1alpha1.Counterexample{Because: shorten(x.Because, longestField), At: shorten(x.At.String(), longestField), Pairs: int64(x.Pairs)}
	if x.From.Name != "" || x.From.IsOutside() {
		w.From = x.From.String()
	}
	if !x.Ports.IsEmpty() {
		w.To, w.Port = x.To.String(), x.PortText()
	}
	if x.Policy != nil {
		w.Policy = x.Policy.What() + " " + x.Policy.String()
	}
	return w
}

// toldOf is what events tell of a status: its state, and waivers that have expired.
func toldOf(o *Object) string {
	return o.Status.State + " " + conditions.GetMessage(o, LapsedCondition)
}

// tell makes an event where something else is to be told of than before, and reports
// whether it is.
func (r *Reconciler) tell(o *Object, before string) bool {
	if toldOf(o) == before || o.Status.State == "" {
		return false
	}
	kind, reason := corev1.EventTypeNormal, conditions.GetReason(o, meta.ReadyCondition)
	if !conditions.IsReady(o) || conditions.IsTrue(o, LapsedCondition) {
		kind = corev1.EventTypeWarning
	}
	text := fmt.Sprintf("invariant %s: %s", o.Name, o.Status.Message)
	r.Events.Event(o, kind, reason, text)
	if r.Alerts != nil {
		// Alerts are about what has a namespace; the cluster keeps events about what has
		// none in this one.
		o = o.deepCopy()
		o.Namespace = metav1.NamespaceDefault
		r.Alerts.Event(o, kind, reason, text)
	}
	return true
}

// shorten cuts a text that is too long.
func shorten(text string, most int) string {
	const dots = "..."
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-len(dots)], "") + dots
}
