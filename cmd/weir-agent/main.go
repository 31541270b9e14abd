// Command weir-agent makes a node do what the policies of its pods say, remembers every
// connection, and captures packets when it is asked to.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/enforcer/kernel"
	"github.com/weir-policy/weir/internal/pack"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// version is set by the Makefile.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newRoot(os.Stdout, os.Stderr).ExecuteContext(ctx)
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "weir-agent:", err)
		os.Exit(2)
	}
}

const usage = `Usage:
  {{.UseLine}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} captures NAMESPACE NAME --capture-dir DIR
  {{.CommandPath}} remove{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}
`

func newRoot(out, errs io.Writer) *cobra.Command {
	o := &options{}
	root := &cobra.Command{
		Use:   "weir-agent [flags]",
		Short: "Enforce and record on one node",
		Long: `weir-agent makes the kernel of a node do what the policies of its pods say.

It reads policies, pods and namespaces from a cluster, or from a folder of manifests,
and keeps one table of nftables, inet weir, equal to what weir explain would answer:
each change is one small transaction, and who else touches the table is undone. What
policy no longer allows stops within a second, connections that are open too. Every
connection is recorded with the rule that decided it; weir replay reads the records.

When it ends, the last ruleset stays in force, and the next agent takes it over without
a gap. weir-agent remove takes it away.

It wants root, or the capability NET_ADMIN.`,
		Example: `  # On a router, with manifests in a folder; a change of a file counts at once.
  weir-agent --world /etc/weir

  # Look first: let pass what would be denied, and record it.
  weir-agent --world /etc/weir --mode observe --flows /var/lib/weir/flows

  # Beside a kubelet, as the chart runs it; pods that start while it is down stay shut.
  weir-agent --node "$NODE_NAME" --guards /etc/weir/guards --unknown-pods deny

  # Everything open again.
  weir-agent remove`,
		Args:          cobra.NoArgs,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.complete(os.Getenv); err != nil {
				return err
			}
			log := slog.New(o.handler(errs))
			slog.SetDefault(log)
			limitMemory(os.Getenv)
			return run(c.Context(), o, log)
		},
	}
	root.SetOut(out)
	root.SetErr(errs)
	root.SetUsageTemplate(usage)
	root.CompletionOptions.DisableDefaultCmd = true
	root.Flags().SortFlags = false
	root.Flags().AddFlagSet(newFlags(o))
	root.AddCommand(newSend(out), &cobra.Command{
		Use:   "remove",
		Short: "Take the table away, so that nothing is enforced on the node",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			free, err := alone() // an agent would load it again
			if err != nil {
				return err
			}
			defer free()
			return kernel.New(0).Remove()
		},
	})
	return root
}

// newSend returns the command by which weir capture download gets the files of a node.
func newSend(out io.Writer) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "captures NAMESPACE NAME",
		Short: "Write the files of a capture to standard output, as a tar archive",
		Args:  cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			for _, name := range args {
				if filepath.Base(name) != name || !filepath.IsLocal(name) || name == "." {
					return fmt.Errorf("%q is not the name of a capture or namespace", name)
				}
			}
			return pack.Write(out, filepath.Join(dir, args[0], args[1]), v1alpha1.CaptureFileSuffix)
		},
	}
	c.Flags().StringVar(&dir, "capture-dir", "", "the `folder` for packets of the agent")
	return c
}
