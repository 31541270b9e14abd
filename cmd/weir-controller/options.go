package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/fluxcd/pkg/runtime/controller"
	"github.com/fluxcd/pkg/runtime/jitter"
	"github.com/fluxcd/pkg/runtime/leaderelection"
	"github.com/spf13/pflag"

	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/webhook"
)

// options are the flags of a replica.
type options struct {
	metricsAddr, healthAddr, webhookAddr, eventsAddr string
	advertiseAddr                                    string
	namespace, service, certDir, certSecret, hook    string
	clientCA, clientName                             string
	exclude                                          []string
	packs                                            []string
	undecided, unknown, opaque                       choice
	pending, interval, settle, tolerance             time.Duration
	concurrent                                       int
	calicoVersion                                    string
	calico                                           bool
	leader                                           leaderelection.Options
	retries                                          controller.RateLimiterOptions
	jitter                                           jitter.IntervalOptions

	name string // of the replica
}

func defaults() *options {
	return &options{undecided: choice{value: webhook.Warn}, unknown: choice{value: webhook.Warn, allow: true}, opaque: choice{value: webhook.Warn}, tolerance: 10 * time.Second}
}

// newFlags returns flags that set the options.
func newFlags(o *options) *pflag.FlagSet {
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.SortFlags = false
	f.StringVar(&o.webhookAddr, "webhook-addr", ":9443", "The address the webhook binds to.")
	f.StringVar(&o.advertiseAddr, "advertise-addr", "", "The address at which other replicas find this one; by default $POD_IP, with the port of --webhook-addr.")
	f.StringVar(&o.metricsAddr, "metrics-addr", ":8080", "The address the metric endpoint binds to.")
	f.StringVar(&o.healthAddr, "health-addr", ":9440", "The address the health endpoint binds to.")
	f.StringVar(&o.eventsAddr, "events-addr", "", "The address of the events receiver.")
	f.StringVar(&o.namespace, "runtime-namespace", "", "The namespace that it runs in; by default $RUNTIME_NAMESPACE.")
	f.StringVar(&o.service, "webhook-service", "weir-webhook", "The Service in front of the webhook, for whose name its certificate is.")
	f.StringVar(&o.hook, "webhook-configuration", "weir", "The ValidatingWebhookConfiguration that is told whom to trust.")
	f.StringVar(&o.certSecret, "cert-secret", "weir-webhook-cert", "The Secret that a certificate made by Weir is kept in.")
	f.StringVar(&o.certDir, "cert-dir", "", "A folder with tls.crt, tls.key and ca.crt of somebody else's, such as cert-manager's.")
	f.StringVar(&o.clientCA, "client-ca", "", "A file with the certificates of who issues that of the API server: nobody else may ask for a review.")
	f.StringVar(&o.clientName, "client-name", "", "The common name that the API server's certificate is of; any by default.")
	f.StringSliceVar(&o.exclude, "exclude-namespaces", []string{"kube-system"}, "Namespaces that the webhook does not look at; its own is always one.")
	f.StringSliceVar(&o.packs, "pack", nil, "A policy pack whose invariants hold without being stored: its name, a folder or a bundle of OPA; repeatable.")
	f.Var(&o.undecided, "on-undecided", "What becomes of a request that cannot be decided in time: warn or deny.")
	f.Var(&o.unknown, "on-unknown", "What becomes of one after which it cannot be told whether an invariant of severity deny holds: allow, warn or deny.")
	f.Var(&o.opaque, "on-opaque", "What becomes of one that brings a policy that is not understood: warn or deny.")
	f.DurationVar(&o.pending, "pending", 30*time.Second, "How long an admitted change may take to be stored, at most: as long as the slowest other webhook.")
	f.DurationVar(&o.interval, "interval", 10*time.Minute, "After which time a status is renewed although nothing changed.")
	f.DurationVar(&o.settle, "settle", time.Second, "For which time changes are gathered before statuses are looked at; five times as long where only numbers in them change.")
	f.IntVar(&o.concurrent, "concurrent", 4, "The number of concurrent Invariant reconciles.")
	f.StringVar(&o.calicoVersion, "calico-version", "", "The version of Calico whose behaviour counts; by default the newest that is known.")
	f.BoolVar(&o.calico, "calico", false, "Calico decides, even while there is no object of its kinds.")
	o.leader.BindFlags(f)
	o.retries.BindFlags(f)
	o.jitter.BindFlags(f)
	return f
}

// complete fills in what the surroundings say, and tells all that is wrong.
func (o *options) complete(getenv func(string) string, hostname func() (string, error)) error {
	o.namespace = cmp.Or(o.namespace, getenv("RUNTIME_NAMESPACE"))
	var problems []error
	if o.namespace == "" {
		problems = append(problems, errors.New("--runtime-namespace is not set, nor is RUNTIME_NAMESPACE"))
	}
	if o.calicoVersion != "" && !slices.Contains(k8s.CalicoVersions[:], o.calicoVersion) {
		problems = append(problems, fmt.Errorf("--calico-version %s is none of %v", o.calicoVersion, k8s.CalicoVersions))
	}
	if o.clientName != "" && o.clientCA == "" {
		problems = append(problems, errors.New("--client-name says nothing without --client-ca"))
	}
	_, port, err := net.SplitHostPort(o.webhookAddr)
	if err != nil {
		problems = append(problems, fmt.Errorf("--webhook-addr: %w", err))
	}
	if o.advertiseAddr == "" && getenv("POD_IP") != "" {
		o.advertiseAddr = net.JoinHostPort(getenv("POD_IP"), port)
	}
	if o.leader.Enable && o.advertiseAddr == "" {
		problems = append(problems, errors.New("--advertise-addr is not set, nor is POD_IP: other replicas could not find this one"))
	}
	host, err := hostname()
	if err != nil {
		problems = append(problems, err)
	}
	o.name = cmp.Or(getenv("POD_NAME"), host)
	o.exclude = append(o.exclude, o.namespace)
	return errors.Join(problems...)
}

// bindAddress returns host and port of the webhook.
func (o *options) bindAddress() (string, int, error) {
	host, text, err := net.SplitHostPort(o.webhookAddr)
	if err != nil {
		return "", 0, err
	}
	port, err := strconv.Atoi(text)
	return host, port, err
}

// choice is a flag that holds a webhook.Choice.
type choice struct {
	value webhook.Choice
	allow bool // whether allow is one of them
}

func (c *choice) String() string { return string(c.value) }
func (c *choice) Type() string   { return "choice" }
func (c *choice) Set(text string) error {
	switch v := webhook.Choice(text); {
	case v == webhook.Warn, v == webhook.Deny, v == webhook.Allow && c.allow:
		c.value = v
		return nil
	case c.allow:
		return errors.New("it is one of allow, warn, deny")
	}
	return errors.New("it is one of warn, deny")
}
