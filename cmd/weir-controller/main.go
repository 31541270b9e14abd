// Command weir-controller holds the invariants of a cluster: its webhook refuses
// changes that break one, and its controller says in the status of each whether it
// holds.
package main

import (
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/fluxcd/pkg/runtime/client"
	"github.com/fluxcd/pkg/runtime/logger"
	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// version is set by the Makefile.
var version = "devel"

func main() {
	err := newRoot(os.Stdout, os.Stderr).ExecuteContext(ctrl.SetupSignalHandler())
	if err != nil {
		fmt.Fprintln(os.Stderr, "weir-controller:", err)
		os.Exit(2)
	}
}

func newRoot(out, errs io.Writer) *cobra.Command {
	o := defaults()
	var logs logger.Options
	var limits client.Options
	root := &cobra.Command{
		Use:   "weir-controller",
		Short: "Hold the invariants of a cluster",
		Long: `weir-controller holds the invariants of a cluster.

Its webhook is asked before a policy, a Namespace, a workload or an Invariant is
stored, changed or deleted, and refuses what would break an Invariant of severity
deny, with a connection that breaks it and the rule that lets it through. Its
controller writes into the status of every Invariant whether it holds, so that what
was stored while the webhook was away is found, too.

One replica decides; the others hand on what they are asked. It runs in a cluster,
or with the kubeconfig that KUBECONFIG names.`,
		Example: `  # As the chart runs it.
  weir-controller --advertise-addr $(POD_IP):9443 --enable-leader-election

  # Refuse what cannot be decided, rather than warn.
  weir-controller --on-undecided deny --on-unknown deny --on-opaque deny`,
		Args:          cobra.NoArgs,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.complete(os.Getenv, os.Hostname); err != nil {
				return err
			}
			logger.SetLogger(logger.NewLogger(logs))
			limitMemory(os.Getenv)
			config, err := ctrl.GetConfig()
			if err != nil {
				return err
			}
			config.QPS, config.Burst = limits.QPS, limits.Burst
			r, err := newReplica(config, o, metrics.Registry)
			if err != nil {
				return err
			}
			return r.Start(c.Context())
		},
	}
	root.SetOut(out)
	root.SetErr(errs)
	flags := root.Flags()
	flags.SortFlags = false
	flags.AddFlagSet(newFlags(o))
	limits.BindFlags(flags)
	logs.BindFlags(flags)
	return root
}

// What the collection of garbage goes by, unless GOGC and GOMEMLIMIT say otherwise: it
// is seldom in a small cluster, and keeps a cluster of 100,000 pods within a gigabyte.
const (
	garbagePercent = 200
	memoryLimit    = 850 << 20
)

func limitMemory(env func(string) string) {
	if env("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
	if env("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
}
