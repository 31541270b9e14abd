package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"github.com/weir-policy/weir/enforcer"
	"github.com/weir-policy/weir/policies/k8s"
)

// options are the flags of an agent.
type options struct {
	world, guards, node, kubeconfig    string
	mode, unknown                      string
	ranges                             []string
	flows, socket                      string
	send                               sending
	flowBytes                          int64
	flowWindow                         time.Duration
	flowLevel                          uint8
	captureDir                         string
	captureBytes, captureFree          int64
	group                              uint16
	rate                               uint64
	metricsAddr, healthAddr, pprofAddr string
	calicoVersion                      string
	calico                             bool
	logLevel, logFormat                string

	prefixes []netip.Prefix
	level    slog.Level
}

// newFlags returns flags that set the options.
func newFlags(o *options) *pflag.FlagSet {
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.SortFlags = false
	f.StringVar(&o.world, "world", "", "folder or file of manifests to enforce; unless it is set, the cluster's")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "of the cluster; by default $KUBECONFIG, or the service account's in a pod")
	f.StringVar(&o.node, "node", "", "node whose pods are guarded, by default $NODE_NAME; with --world all pods unless it is set")
	f.StringVar(&o.guards, "guards", "", "folder or file of ClusterNetworkPolicies, and of Invariants (never), that stand above every policy")
	f.StringVar(&o.mode, "mode", enforcer.ModeEnforce, "of policies that name none: enforce, or observe: count and record what is denied, and let it pass")
	f.StringVar(&o.unknown, "unknown-pods", "allow", "what becomes of pods of the node that nobody has told of yet, also while the agent is down: allow or deny")
	f.StringSliceVar(&o.ranges, "pod-cidr", nil, "ranges of the node's pods, for --unknown-pods; by default those of the Node")
	f.StringVar(&o.flows, "flows", "", "folder for flow records; none are written unless it is set")
	f.Int64Var(&o.flowBytes, "flows-max-bytes", 1<<30, "how much of the disk flow records may take; the oldest go first")
	f.DurationVar(&o.flowWindow, "flows-window", 15*time.Second, "time that a record adds up")
	f.Uint8Var(&o.flowLevel, "flows-level", 0, "what records leave out: 0 nothing, 1 source ports, 2 names of pods too, 3 ports too")
	f.StringVar(&o.send.server, "send", "", "URL of a weir flows serve that gets all records, each once; they wait in the folder of --flows while it cannot be reached")
	f.StringVar(&o.send.TokenFile, "send-token-file", "", "file with the bearer token that it wants, read again as it changes")
	f.StringVar(&o.send.CAFile, "send-ca", "", "file of the authority of its certificate; the system's unless it is set")
	f.StringVar(&o.send.CertFile, "send-cert", "", "file of the certificate that it wants, read again as it changes")
	f.StringVar(&o.send.KeyFile, "send-key", "", "file of the key of that")
	f.StringVar(&o.socket, "socket", "", "path of the unix socket for weir flows observe; none unless it is set")
	f.StringVar(&o.captureDir, "capture-dir", "", "folder for packets that PacketCaptures ask for; nothing is captured unless it is set")
	f.Int64Var(&o.captureBytes, "capture-max-bytes", 1<<30, "how much of the disk all captures together may take")
	f.Int64Var(&o.captureFree, "capture-min-free", 1<<30, "how much of the disk captures leave free")
	f.Uint16Var(&o.group, "log-group", 61, "group of NFLOG that gets what is denied")
	f.Uint64Var(&o.rate, "log-rate", 10, "packets of each vector that are logged in a second; all are counted")
	f.StringVar(&o.metricsAddr, "metrics-addr", ":9442", "address of /metrics; 0 for none")
	f.StringVar(&o.healthAddr, "health-addr", ":9441", "address of /readyz, /livez and /status; 0 for none")
	f.StringVar(&o.pprofAddr, "pprof-addr", "0", "address of /debug/pprof; 0 for none")
	f.StringVar(&o.calicoVersion, "calico-version", "", "version of Calico whose behaviour counts; by default the newest that is known")
	f.BoolVar(&o.calico, "calico", false, "Calico decides, even while there is no object of its kinds")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	return f
}

// complete fills in what the surroundings say, and tells all that is wrong.
func (o *options) complete(getenv func(string) string) error {
	o.node = cmp.Or(o.node, getenv("NODE_NAME"))
	var problems []error
	oneOf := func(flag, value string, values ...string) {
		if !slices.Contains(values, value) {
			problems = append(problems, fmt.Errorf("--%s %q is none of %v", flag, value, values))
		}
	}
	oneOf("mode", o.mode, enforcer.ModeEnforce, enforcer.ModeObserve)
	oneOf("unknown-pods", o.unknown, "allow", "deny")
	oneOf("log-format", o.logFormat, "text", "json")
	if o.calicoVersion != "" {
		oneOf("calico-version", o.calicoVersion, k8s.CalicoVersions[:]...)
	}
	if err := o.level.UnmarshalText([]byte(o.logLevel)); err != nil {
		problems = append(problems, fmt.Errorf("--log-level %q is none of [debug info warn error]", o.logLevel))
	}
	if o.world == "" && o.node == "" {
		problems = append(problems, errors.New("--node is not set, nor is NODE_NAME: which pods of the cluster run here is not known"))
	}
	for _, text := range o.ranges {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			problems = append(problems, fmt.Errorf("--pod-cidr: %w", err))
		}
		o.prefixes = append(o.prefixes, p)
	}
	if o.unknown == "deny" && o.node == "" && len(o.ranges) == 0 {
		problems = append(problems, errors.New("--unknown-pods deny needs --pod-cidr, or --node with a Node that has a podCIDR"))
	}
	if o.flowLevel > 3 {
		problems = append(problems, fmt.Errorf("--flows-level %d is none of 0, 1, 2, 3", o.flowLevel))
	}
	problems = append(problems, o.send.problems(o.flows != "")...)
	for flag, address := range map[string]string{"metrics-addr": o.metricsAddr, "health-addr": o.healthAddr, "pprof-addr": o.pprofAddr} {
		if _, _, err := net.SplitHostPort(address); address != "0" && err != nil {
			problems = append(problems, fmt.Errorf("--%s: %w", flag, err))
		}
	}
	slices.SortFunc(problems, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return errors.Join(problems...)
}

func (o *options) reading() k8s.Options {
	return k8s.Options{CalicoVersion: o.calicoVersion, Calico: o.calico}
}

func (o *options) handler(to io.Writer) slog.Handler {
	how := &slog.HandlerOptions{Level: o.level}
	if o.logFormat == "json" {
		return slog.NewJSONHandler(to, how)
	}
	return slog.NewTextHandler(to, how)
}

// garbagePercent is how much more memory than what is in use the heap may have before
// garbage is collected, unless GOGC says otherwise: a node has better uses for it.
const garbagePercent = 25

func limitMemory(env func(string) string) {
	if env("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
}

// tidyEvery is how often memory is given back at most.
const tidyEvery = time.Minute

// tidy gives back the memory that a change took, each time that one is done. The runtime
// would keep it for as long as there is little other garbage.
func tidy(ctx context.Context, done <-chan struct{}) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-done:
		}
		debug.FreeOSMemory()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(tidyEvery):
		}
	}
}
