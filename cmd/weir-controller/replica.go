package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"time"

	fluxcontroller "github.com/fluxcd/pkg/runtime/controller"
	"github.com/fluxcd/pkg/runtime/events"
	fluxmetrics "github.com/fluxcd/pkg/runtime/metrics"
	"github.com/fluxcd/pkg/runtime/pprof"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	ctrlcontroller "sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/weir-policy/weir/internal/controller"
	"github.com/weir-policy/weir/internal/live"
	"github.com/weir-policy/weir/internal/source"
	"github.com/weir-policy/weir/internal/standing"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/webhook"
	"github.com/weir-policy/weir/webhook/cert"
)

// lease is the Lease that the deciding replica holds.
const lease = "weir-controller-leader-election"

// replica is one replica of the controller, wired up and inert until Start.
type replica struct {
	manager.Manager
	leads func() bool
}

func newReplica(config *rest.Config, o *options, registry prometheus.Registerer) (*replica, error) {
	feed := &controller.Feed{Tolerance: o.tolerance}
	m, leader, certificates, err := newManager(config, o, feed)
	if err != nil {
		return nil, err
	}
	told := m.GetLogger().WithName("world")
	world, err := live.New(config, live.Options{
		Read: k8s.Options{CalicoVersion: o.calicoVersion, Calico: o.calico},
		Told: func(what string) { told.Info(what) }, Tolerance: o.tolerance,
	})
	if err != nil {
		return nil, err
	}
	packs, err := source.ReadPacks(context.Background(), nil, o.packs...)
	if err != nil {
		return nil, err
	}
	for _, p := range packs {
		if p.Unverified {
			m.GetLogger().Info("a policy pack is signed, and its signature was not verified", "pack", p.Name)
		}
	}
	held, err := source.WithPacks(nil, packs...)
	if err != nil {
		return nil, err
	}
	keeper := standing.NewKeeper(reach.Options{}, time.Now)
	world.Subscribe(keeper.Hear)

	counted, states := webhook.NewMetrics(), newStates()
	decider := webhook.NewDecider(world, keeper, webhook.Options{
		Exclude: o.exclude, Undecided: o.undecided.value, Unknown: o.unknown.value, Opaque: o.opaque.value,
		Pending: o.pending, Held: held, Clock: time.Now, Observe: counted.Observe,
	})
	feed.Informers, feed.Saw, feed.Renewed, feed.Missed = m.GetCache(), decider.Saw, decider.Renewed, decider.Missed
	decider.Stored = feed
	unwatched := func() error { return errors.Join(world.Unwatched(), feed.Unwatched()) }
	watch := &controller.Watch{Keeper: keeper, Settle: o.settle, Pace: 5 * o.settle, Tell: states.tell, Unwatched: unwatched}

	server := webhook.NewServer(decider, leader, certificates)
	server.Failed = func(err error) {
		counted.NotForwarded()
		m.GetLogger().WithName("webhook").Error(err, "the replica that decides could not be asked")
	}
	if o.clientCA != "" {
		callers := &cert.Clients{File: o.clientCA, Name: o.clientName}
		if err := callers.Load(); err != nil {
			return nil, fmt.Errorf("--client-ca: %w", err)
		}
		server.Callers = callers
	}
	m.GetWebhookServer().Register(webhook.ReviewPath, server.Review())
	m.GetWebhookServer().Register(webhook.ForwardPath, server.Forwarded())

	if err := setUpController(m, o, keeper, watch); err != nil {
		return nil, err
	}
	for _, part := range []manager.Runnable{world, feed, watch, certificates, &term{decider, leader}} {
		if err := m.Add(part); err != nil {
			return nil, err
		}
	}
	for name, check := range map[string]healthz.Checker{
		"world":       func(*http.Request) error { return decider.Ready() },
		"watches":     func(*http.Request) error { return unwatched() },
		"certificate": certificates.Ready,
		"webhook":     m.GetWebhookServer().StartedChecker(),
	} {
		if err := m.AddReadyzCheck(name, check); err != nil {
			return nil, err
		}
	}
	alive := func(*http.Request) error { return decider.Alive() }
	if err := errors.Join(m.AddHealthzCheck("ping", healthz.Ping), m.AddHealthzCheck("decisions", alive)); err != nil {
		return nil, err
	}
	missing := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "weir_api_groups_missing", Help: "Groups of the API that cannot be served at the moment, so that what is in them is not known.",
	}, func() float64 { return float64(len(world.Missing())) })
	for _, c := range []prometheus.Collector{counted, states.count, states.packed, missing} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return &replica{m, leader.Leads}, nil
}

// newManager returns the manager of a replica, with what knows who leads.
func newManager(config *rest.Config, o *options, feed *controller.Feed) (manager.Manager, *webhook.Lease, *cert.Certificates, error) {
	certificates, err := cert.New(config, cert.Options{
		Namespace: o.namespace, Service: o.service, Folder: o.certDir, Secret: o.certSecret, Webhook: o.hook,
	})
	if err != nil {
		return nil, nil, nil, err
	}
	host, port, err := o.bindAddress()
	if err != nil {
		return nil, nil, nil, err
	}
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, nil, nil, err
	}
	if err := controller.AddToScheme(scheme); err != nil {
		return nil, nil, nil, err
	}
	identity := webhook.Identity(o.name+"_"+string(uuid.NewUUID()), o.advertiseAddr)
	lock, err := resourcelock.NewFromKubeconfig(resourcelock.LeasesResourceLock, o.namespace, lease,
		resourcelock.ResourceLockConfig{Identity: identity}, config, o.leader.RenewDeadline)
	if err != nil {
		return nil, nil, nil, err
	}
	again := true // for tests run several in one process
	m, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme,
		Cache:  cache.Options{DefaultWatchErrorHandler: feed.Failed},
		Metrics: metricsserver.Options{
			BindAddress: o.metricsAddr, ExtraHandlers: pprof.GetHandlers(),
		},
		HealthProbeBindAddress: o.healthAddr,
		WebhookServer: ctrlwebhook.NewServer(ctrlwebhook.Options{
			Host: host, Port: port,
			TLSOpts: []func(*tls.Config){func(c *tls.Config) { *c = *certificates.Server() }},
		}),
		Controller:                          ctrlconfig.Controller{SkipNameValidation: &again},
		LeaderElection:                      o.leader.Enable,
		LeaderElectionReleaseOnCancel:       o.leader.ReleaseOnCancel,
		LeaderElectionResourceLockInterface: lock,
		LeaseDuration:                       &o.leader.LeaseDuration,
		RenewDeadline:                       &o.leader.RenewDeadline,
		RetryPeriod:                         &o.leader.RetryPeriod,
	})
	return m, &webhook.Lease{Lock: lock, Clock: time.Now}, certificates, err
}

func setUpController(m manager.Manager, o *options, k *standing.Keeper, w *controller.Watch) error {
	recorder, err := events.NewRecorder(m, m.GetLogger(), o.eventsAddr, controller.Name)
	if err != nil {
		return err
	}
	alerts := *recorder
	alerts.EventRecorder = &record.FakeRecorder{} // the cluster is told by itself
	if err := o.jitter.SetGlobalJitter(nil); err != nil {
		return err
	}
	r := &controller.Reconciler{
		Client: m.GetClient(), Metrics: fluxcontroller.NewMetrics(m, gotk), Events: recorder.EventRecorder, Alerts: &alerts,
		Keeper: k, Watch: w, Interval: o.interval, Clock: time.Now,
	}
	return r.SetupWithManager(m, ctrlcontroller.Options{
		MaxConcurrentReconciles: o.concurrent, RateLimiter: fluxcontroller.GetRateLimiter(o.retries),
	})
}

// gotk are Flux's metrics, of which there can be one set in a process.
var gotk = fluxmetrics.MustMakeRecorder()

// term lets the replica decide while it leads.
type term struct {
	decider *webhook.Decider
	leader  *webhook.Lease
}

// Start leads until ctx ends.
func (t *term) Start(ctx context.Context) error {
	t.decider.Begin()
	t.leader.Lead(true)
	<-ctx.Done()
	t.leader.Lead(false)
	return nil
}

// states count the invariants by what was found of them, and say it of each of packs,
// which has no status.
type states struct {
	count, packed *prometheus.GaugeVec
	named         map[string]string // of packs, by name
}

func newStates() *states {
	return &states{
		count: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "weir_invariants", Help: "Invariants, by what was found of them."}, []string{"state"}),
		packed: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "weir_pack_invariants", Help: "Invariants of policy packs: 1 for the state that each is in.",
		}, []string{"pack", "invariant", "severity", "state"}),
	}
}

func (s *states) tell(found []*invariant.Result) {
	count, named := map[invariant.State]int{}, map[string]string{}
	for _, r := range found {
		if count[r.State]++; r.Pack == "" {
			continue
		}
		named[r.Ref.Name] = r.Pack
		for _, state := range foundStates {
			is := 0.0
			if state == r.State {
				is = 1
			}
			s.packed.WithLabelValues(r.Pack, r.Ref.Name, r.Severity.String(), state.String()).Set(is)
		}
	}
	for name, pack := range s.named {
		if named[name] == "" {
			s.packed.DeletePartialMatch(prometheus.Labels{"pack": pack, "invariant": name})
		}
	}
	s.named = named
	for _, state := range foundStates {
		s.count.WithLabelValues(state.String()).Set(float64(count[state]))
	}
}

// foundStates are the states that something can be found in.
var foundStates = []invariant.State{invariant.Holds, invariant.Broken, invariant.Unknown, invariant.Waived, invariant.Invalid}
