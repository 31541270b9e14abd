package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/captures"
	"github.com/weir-policy/weir/internal/cluster"
	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/selector"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

func newCapture(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "capture VERB",
		Short: "Capture packets of pods",
		Long: `Capture packets of pods, on the nodes where they run: those that a selector and
filters name, from a start to an end, in files that rotate and are bounded. A
PacketCapture asks the agents for it: an object of a cluster, or, on a router
that is no part of one, a file in the folder that weir-agent --world names.

The files are pcapng, for tshark, Wireshark and tcpdump. Each packet has a
comment: its pod, its direction, and what the policies say of its connection.`,
	}
	c.AddCommand(newCaptureStart(s), newCaptureList(s), newCaptureStop(s), newCaptureDownload(s))
	return group(c)
}

// captureFlags is the flags by which a verb names captures and where they are.
type captureFlags struct {
	folder    captures.Folder
	namespace string
	cluster   cluster.Options
}

func (f *captureFlags) addTo(c *cobra.Command, world, files bool) {
	flags := c.Flags()
	namespace := "default"
	if files {
		flags.StringVar(&f.folder.Files, "dir", "", "the `folder` that weir-agent --capture-dir names, of a node that is no part of a cluster")
		namespace = ""
	}
	if world {
		flags.StringVar(&f.folder.World, "world", "", "the `folder` that weir-agent --world names, of a node that is no part of a cluster")
	}
	usage := "the `namespace` of the capture and its pods"
	if namespace == "" {
		usage = "the `namespace` of the captures (default: all)"
	}
	flags.StringVarP(&f.namespace, "namespace", "n", namespace, usage)
	addCluster(c, &f.cluster)
	flags.Lookup("kubeconfig").Usage = "the `file` that says how to reach the cluster (default: as kubectl finds it)"
}

// store is where the captures are declared.
func (f *captureFlags) store() (captures.Store, error) {
	if f.folder != (captures.Folder{}) {
		return f.folder, nil
	}
	return captures.NewCluster(f.cluster)
}

func newCaptureStart(s streams) *cobra.Command {
	out, flags := output{streams: s, kind: report.KindCaptureList}, captureFlags{}
	var selects, rotate, start, end string
	var length time.Duration
	var filter v1alpha1.PacketFilter
	var portTexts []string
	var spec v1alpha1.PacketCaptureSpec
	c := &cobra.Command{
		Use:   "start NAME",
		Short: "Begin to capture, now or at a time",
		Long: `Begin to capture packets of the pods of a namespace that a selector names, those
of all where there is none. Of a packet to be kept, --protocol must be its
protocol, a --port one of its two ports, and an --address one of its two ends;
what is not given is any. A PacketCapture in YAML takes several such filters.

Without --for and --end it goes on until weir capture stop, within its bounds:
a pod's oldest file goes when a new one begins.`,
		Example: `  weir capture start dns -n shop --selector app=cart --protocol UDP --port 53 --for 5m --world examples/shop/deploy
  weir capture stop dns -n shop --delete --world examples/shop/deploy`,
		Args: takes(1, 1, "name the capture, as in: weir capture start dns --selector app=web"),
		RunE: func(c *cobra.Command, args []string) error {
			chosen, errSelector := parseSelector(selects)
			spec.Selector = chosen
			for _, p := range portTexts {
				filter.Ports = append(filter.Ports, v1alpha1.Port(p))
			}
			if filter.Protocol != "" || len(filter.Ports)+len(filter.Addresses) > 0 {
				spec.Filters = []v1alpha1.PacketFilter{filter}
			}
			spec.StartTime, spec.EndTime, spec.RotateInterval = start, end, rotate
			errEnd := endAfter(&spec, length, time.Now())
			capture := v1alpha1.PacketCapture{
				APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindPacketCapture,
				Metadata: v1alpha1.Metadata{Namespace: flags.namespace, Name: args[0]}, Spec: spec,
			}
			if err := errors.Join(out.check(), errSelector, errEnd, checkCapture(capture)); err != nil {
				return err
			}
			store, err := flags.store()
			if err != nil {
				return err
			}
			where, err := store.Create(c.Context(), capture)
			if err != nil {
				return err
			}
			until := "until it is stopped"
			if spec.EndTime != "" {
				until = "until " + spec.EndTime
			}
			return writeCapture(&out, capture, fmt.Sprintf("Capture %s/%s is declared in %s, %s.", flags.namespace, args[0], where, until))
		},
	}
	flags.addTo(c, true, false)
	f := c.Flags()
	f.StringVarP(&selects, "selector", "l", "", "the `labels` of the pods, as kubectl takes them (default: all pods of the namespace)")
	f.StringVar(&filter.Protocol, "protocol", "", "the `protocol`: TCP, UDP, SCTP, ICMP, ICMPv6, or a number")
	complete(c, "protocol", "TCP", "UDP", "SCTP", "ICMP", "ICMPv6")
	f.StringSliceVar(&portTexts, "port", nil, "a `port` or range, 53 or 8000-8100, of either end; repeatable")
	f.StringSliceVar(&filter.Addresses, "address", nil, "an `address` or CIDR of either end; repeatable")
	f.DurationVar(&length, "for", 0, "how `long`, from the start")
	f.StringVar(&start, "start", "", "the `time` of the start, as 2026-03-01T12:00:00Z (default: now)")
	f.StringVar(&end, "end", "", "the `time` of the end")
	f.Int64Var(&spec.MaxFileBytes, "max-file-bytes", 0, "how many `bytes` a file has at most (default: 10000000)")
	f.StringVar(&rotate, "rotate", "", "the longest `time` that a file is of (default: 1h)")
	f.Int64Var(&spec.MaxFiles, "max-files", 0, "how `many` files of a pod stay (default: 2)")
	f.Int64Var(&spec.MaxPackets, "max-packets", 0, "after how `many` packets of a pod it is over")
	f.Int64Var(&spec.SnapLength, "snap-length", 0, "how many `bytes` of each packet are kept (default: all)")
	out.addTo(c)
	return c
}

// parseSelector reads labels as kubectl takes them.
func parseSelector(text string) (v1alpha1.LabelSelector, error) {
	s, err := selector.Parse(text)
	if err != nil {
		return v1alpha1.LabelSelector{}, fmt.Errorf("--selector: %w", err)
	}
	var all v1alpha1.LabelSelector
	for _, r := range s.Requirements() {
		if r.Operator == selector.In && len(r.Values) == 1 && all.MatchLabels[r.Key] == "" {
			if all.MatchLabels == nil {
				all.MatchLabels = map[string]string{}
			}
			all.MatchLabels[r.Key] = r.Values[0]
			continue
		}
		all.MatchExpressions = append(all.MatchExpressions, v1alpha1.LabelRequirement{Key: r.Key, Operator: string(r.Operator), Values: r.Values})
	}
	return all, nil
}

// endAfter sets the end of a capture that lasts so long.
func endAfter(s *v1alpha1.PacketCaptureSpec, length time.Duration, now time.Time) error {
	switch {
	case length == 0:
		return nil
	case length < 0:
		return fmt.Errorf("--for: %s is no time to capture for", length)
	case s.EndTime != "":
		return errors.New("--for and --end both say when it ends; give one of them")
	}
	from, err := time.Parse(time.RFC3339, cmp.Or(s.StartTime, now.UTC().Format(time.RFC3339)))
	if err != nil {
		return fmt.Errorf("--start: %q is not a time such as 2026-03-01T12:00:00Z", s.StartTime)
	}
	s.EndTime = from.Add(length).UTC().Format(time.RFC3339)
	return nil
}

// checkCapture finds what an agent would find wrong with a capture.
func checkCapture(c v1alpha1.PacketCapture) error {
	text, err := captures.YAML(c)
	if err != nil {
		return err
	}
	docs, err := k8s.Parse("capture "+c.Metadata.Name, text)
	if err == nil {
		_, err = k8s.ReadCaptures(docs, k8s.Options{})
	}
	return err
}

// writeCapture answers with one capture, and in text with a sentence about it.
func writeCapture(out *output, c v1alpha1.PacketCapture, sentence string) error {
	return out.write(func(w io.Writer, f report.Format, style report.Style) error {
		if f == report.Text {
			_, err := fmt.Fprintln(w, sentence)
			return err
		}
		return report.WriteCaptures(w, f, []v1alpha1.PacketCapture{c}, style)
	})
}

func newCaptureList(s streams) *cobra.Command {
	out, flags := output{streams: s, kind: report.KindCaptureList}, captureFlags{}
	c := &cobra.Command{
		Use:   "list",
		Short: "List captures and how they are",
		Long: `List captures with their state on each node: Scheduled before its time comes,
WaitingForTraffic until there is a packet, Capturing, Finished, or Error, and why.`,
		Example: `  weir capture list
  weir capture list --dir examples/captures -o json`,
		Args: takes(0, 0, "capture list takes no arguments; -n narrows it to a namespace"),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			store, err := flags.store()
			if err != nil {
				return err
			}
			all, err := store.List(c.Context(), flags.namespace)
			if err != nil {
				return err
			}
			return out.write(func(w io.Writer, f report.Format, style report.Style) error {
				return report.WriteCaptures(w, f, all, style)
			})
		},
	}
	flags.addTo(c, false, true)
	out.addTo(c)
	return c
}

func newCaptureStop(s streams) *cobra.Command {
	out, flags := output{streams: s, kind: report.KindCaptureList}, captureFlags{}
	remove := false
	c := &cobra.Command{
		Use:   "stop NAME",
		Short: "End a capture; its files stay",
		Long: `End a capture at once, by its endTime. Its files stay where they are until it is
taken away with --delete; then the agents remove them.`,
		Example: `  weir capture start web -n shop --world examples/shop/deploy
  weir capture stop web -n shop --world examples/shop/deploy
  weir capture stop web -n shop --delete --world examples/shop/deploy`,
		Args: takes(1, 1, "name the capture, as in: weir capture stop dns"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := errors.Join(out.check(), checkName(flags.namespace), checkName(args[0])); err != nil {
				return err
			}
			store, err := flags.store()
			if err != nil {
				return err
			}
			name := flags.namespace + "/" + args[0]
			if remove {
				err := store.Delete(c.Context(), flags.namespace, args[0])
				if err != nil {
					return err
				}
				gone := v1alpha1.PacketCapture{Metadata: v1alpha1.Metadata{Namespace: flags.namespace, Name: args[0]}}
				return writeCapture(&out, gone, fmt.Sprintf("Capture %s is taken away; the agents remove its files.", name))
			}
			stopped, err := store.Stop(c.Context(), flags.namespace, args[0], time.Now())
			if err != nil {
				return err
			}
			return writeCapture(&out, stopped, fmt.Sprintf("Capture %s ends at %s.", name, stopped.Spec.EndTime))
		},
	}
	flags.addTo(c, true, false)
	c.Flags().BoolVar(&remove, "delete", false, "take the capture away, and its files")
	out.addTo(c)
	return c
}

// checkName refuses what would lead out of a folder.
func checkName(name string) error {
	if name == "" || strings.ContainsAny(name, `/\`) || !filepath.IsLocal(name) {
		return fmt.Errorf("%q is not the name of a capture or namespace", name)
	}
	return nil
}

func newCaptureDownload(s streams) *cobra.Command {
	out, flags := output{streams: s, kind: report.KindCaptureList}, captureFlags{}
	to := "."
	c := &cobra.Command{
		Use:   "download NAME",
		Short: "Copy the files of a capture",
		Long: `Copy the files of a capture to NAMESPACE/NAME below a folder, the one that is
being written too, as far as it is. Of a cluster, each node has a folder of its
own there: its agent sends them, to whom may run kubectl exec in its pod.`,
		Example: `  weir capture download db -n shop --dir examples/captures --dest packets`,
		Args:    takes(1, 1, "name the capture, as in: weir capture download dns"),
		RunE: func(c *cobra.Command, args []string) error {
			namespace := cmp.Or(flags.namespace, "default")
			if err := errors.Join(out.check(), checkName(namespace), checkName(args[0])); err != nil {
				return err
			}
			store, err := flags.store()
			if err != nil {
				return err
			}
			copied, err := store.Download(c.Context(), namespace, args[0], to)
			if err != nil && !isCopied(copied) {
				return err
			}
			var names []string
			for _, f := range copied.Status.Files {
				for _, name := range f.FileNames {
					names = append(names, filepath.Join(f.Directory, name))
				}
			}
			if len(names) == 0 {
				names = []string{fmt.Sprintf("Capture %s/%s has no files.", namespace, args[0])}
			}
			return errors.Join(writeCapture(&out, copied, strings.Join(names, "\n")), err)
		},
	}
	flags.addTo(c, false, true)
	c.Flags().StringVar(&to, "dest", ".", "the `folder` to copy to")
	out.addTo(c)
	return c
}

// isCopied reports whether a capture that was downloaded has any files.
func isCopied(c v1alpha1.PacketCapture) bool {
	return slices.ContainsFunc(c.Status.Files, func(f v1alpha1.CaptureFiles) bool { return len(f.FileNames) > 0 })
}
