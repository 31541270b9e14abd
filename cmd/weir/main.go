// Command weir says what Kubernetes network policies do, and what a change to
// them would do.
//
// The exit status is 0 when all is fine, 1 when the answer is no, and 2 when the
// question could not be asked.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the Makefile.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args, streams{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(status)
}

// streams are where a verb reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// errNo is the end of a verb whose answer is no and already told.
var errNo = errors.New("the answer is no")

// run runs the verb that args name and returns the exit status.
func run(ctx context.Context, args []string, s streams) int {
	root := newRoot(s)
	if filepath.Base(args[0]) == "kubectl-weir" {
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl weir"}
		asPlugin(root)
	}
	root.SetArgs(args[1:])
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errNo):
		return 1
	case ctx.Err() != nil:
		fmt.Fprintln(s.err, "weir: interrupted")
		return 2
	}
	fmt.Fprintln(s.err, err)
	return 2
}

func newRoot(s streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "weir",
		Short: "See what Kubernetes network policies do, before they do it",
		Long: `Weir answers who can talk to whom under Kubernetes network policies, and what a
change to them would do: which connections become possible or impossible, and
which recorded flows would break or open, by which line.

A source (SRC) is a directory or file of manifests (a folder with a
kustomization is rendered), git:REV or git:REV:PATH of the repository at --repo,
cluster for the live cluster of the kubeconfig, or - for standard input.

Exit status: 0 fine, 1 the answer is no, 2 the question could not be asked.`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(
		newPreview(s),
		newReach(s),
		newExplain(s),
		newQuery(s),
		newDiff(s),
		newCheck(s),
		newPacks(s),
		newTest(s),
		newReplay(s),
		newConvert(s),
		newFlows(s),
		newCapture(s),
		newSnapshot(s),
	)
	addHelp(root)
	return group(root)
}
