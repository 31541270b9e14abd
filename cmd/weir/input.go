package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/weir-policy/weir/internal/cluster"
	"github.com/weir-policy/weir/internal/source"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/simulator/flowlog"
	"github.com/weir-policy/weir/simulator/flowstore"
)

// input is the flags by which a verb names what it reads.
type input struct {
	streams
	files     []string
	without   []string
	repo      string
	namespace string
	podCIDRs  []string
	podBlocks string
	calico    string
	cluster   cluster.Options
}

func (i *input) addTo(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&i.repo, "repo", ".", "the Git `repository` that revisions are of")
	f.StringVarP(&i.namespace, "namespace", "n", "default", "the `namespace` of objects that name none")
	f.StringSliceVar(&i.podCIDRs, "pod-cidr", nil, "each `CIDR` where pods get their addresses, so that address blocks can be judged for pods that have none yet")
	f.StringVar(&i.podBlocks, "pod-ip-blocks", "match", "whether ipBlocks `match` pods with such addresses, as with most engines, or ignore them, as with Cilium")
	complete(c, "pod-ip-blocks", "match", "ignore")
	versions := k8s.CalicoVersions[:]
	newest := versions[len(versions)-1]
	f.StringVar(&i.calico, "calico-version", newest, "the `version` of Calico, where its policies are: "+strings.Join(versions, ", "))
	complete(c, "calico-version", versions...)
	addCluster(c, &i.cluster)
}

// addCluster adds the flags that say which cluster "cluster" is.
func addCluster(c *cobra.Command, o *cluster.Options) {
	f := c.Flags()
	f.StringVar(&o.Kubeconfig, "kubeconfig", "", "the `file` that says how to reach the source cluster (default: as kubectl finds it)")
	f.StringVar(&o.Context, "context", "", "the `context` of the kubeconfig to use")
	o.UserAgent = "weir/" + version
}

// addSourceTo adds -f, for verbs that read one world.
func (i *input) addSourceTo(c *cobra.Command) {
	i.addTo(c)
	c.Flags().StringArrayVarP(&i.files, "filename", "f", nil, "a `source` of manifests; repeatable (default: the current folder)")
	c.Flags().StringArrayVar(&i.without, "without", nil, "an `object` to leave out, as if it were deleted: KIND/NAMESPACE/NAME; repeatable")
}

// loader returns what loads sources as the flags say.
func (i *input) loader() (*source.Loader, error) {
	var errs []error
	if versions := k8s.CalicoVersions[:]; !slices.Contains(versions, i.calico) {
		errs = append(errs, fmt.Errorf("--calico-version: %q is none of %s", i.calico, strings.Join(versions, ", ")))
	}
	o := k8s.Options{Namespace: i.namespace, CalicoVersion: i.calico}
	for _, text := range i.podCIDRs {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("--pod-cidr: %q is not a CIDR such as 10.244.0.0/16", text))
		}
		o.PodCIDRs = append(o.PodCIDRs, p.Masked())
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &source.Loader{RepoDir: i.repo, Stdin: i.in, Options: o, Cluster: i.cluster, Without: i.without}, nil
}

func (i *input) options() (reach.Options, error) {
	switch i.podBlocks {
	case "match", "ignore":
		return reach.Options{IgnorePodBlocks: i.podBlocks == "ignore"}, nil
	}
	return reach.Options{}, fmt.Errorf("--pod-ip-blocks: %q is neither match nor ignore", i.podBlocks)
}

// judge loads what -f and the arguments name as one model, and judges it.
func (i *input) judge(ctx context.Context, args []string) (*reach.Judge, error) {
	m, o, err := i.model(ctx, args)
	if err != nil {
		return nil, err
	}
	return reach.New(m, o), nil
}

// model loads what -f and the arguments name as one model.
func (i *input) model(ctx context.Context, args []string) (*policies.Model, reach.Options, error) {
	o, errOptions := i.options()
	l, errLoader := i.loader()
	if err := errors.Join(errOptions, errLoader); err != nil {
		return nil, o, err
	}
	m, err := l.Load(ctx, i.sources(args)...)
	return m, o, err
}

// sources are what -f and the arguments name, the current folder where that is
// nothing.
func (i *input) sources(args []string) []string {
	if len(i.files)+len(args) == 0 {
		return []string{"."}
	}
	return slices.Concat(i.files, args)
}

// pair loads two sources and returns judges that can be compared.
func (i *input) pair(ctx context.Context, base, head string) (b, h *reach.Judge, err error) {
	o, errOptions := i.options()
	l, errLoader := i.loader()
	if err := errors.Join(errOptions, errLoader); err != nil {
		return nil, nil, err
	}
	baseModel, errBase := l.Load(ctx, base)
	headModel, errHead := l.Load(ctx, head)
	if errBase != nil && errHead != nil && errBase.Error() == errHead.Error() {
		return nil, nil, errBase
	}
	if err := errors.Join(errBase, errHead); err != nil {
		return nil, nil, err
	}
	b, h = reach.Pair(baseModel, headModel, o)
	return b, h, nil
}

// readOnce fails when several of the names mean standard input.
func readOnce(names ...string) error {
	first := slices.Index(names, "-")
	if first >= 0 && slices.Contains(names[first+1:], "-") {
		return errors.New("standard input can be read only once; give the other - a file")
	}
	return nil
}

// flowFiles is the flags by which a verb names recorded flows.
type flowFiles struct {
	patterns []string
	options  flowlog.Options
	resolve  func(*policies.Flow) // names ends that have an address alone; nil for nobody
}

func (f *flowFiles) addTo(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.patterns, "flows", nil, flowsUsage)
	f.addReadingTo(c)
}

func (f *flowFiles) addReadingTo(c *cobra.Command) {
	c.Flags().StringVar(&f.options.Format, "flow-format", "", "the `format` of the flows: "+strings.Join(flowlog.Formats(), ", ")+"; --format for short (default: found by looking)")
	complete(c, "flow-format", flowlog.Formats()...)
	c.Flags().SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "format" { // for short
			name = "flow-format"
		}
		return pflag.NormalizedName(name)
	})
	c.Flags().StringToStringVar(&f.options.Columns, "columns", nil, "what the columns of Parquet files say, as `FIELD=COLUMN`,…, where their names do not tell: "+strings.Join(flowlog.RowFields(), ", "))
	c.Flags().Lookup("columns").DefValue = "" // which is not worth a word
	c.Flags().BoolVar(&f.options.Strict, "strict", false, "fail at the first line of the flows that cannot be read")
}

// files returns the files that the patterns name.
func (f *flowFiles) files() ([]string, error) {
	var files []string
	var errs []error
	if format := f.options.Format; format != "" && !slices.Contains(flowlog.Formats(), format) {
		errs = append(errs, fmt.Errorf("--flow-format: %q is none of %s%s", format, strings.Join(flowlog.Formats(), ", "), policies.Near(format, flowlog.Formats())))
	}
	for _, p := range f.patterns {
		found, err := filepath.Glob(p)
		switch {
		case p == "-":
			found = []string{p}
		case err != nil:
			errs = append(errs, fmt.Errorf("flows %q: %w", p, err))
		case len(found) == 0:
			errs = append(errs, fmt.Errorf("flows: there is no file %s", p))
		}
		for _, name := range inFolders(found) {
			if !slices.Contains(files, name) {
				files = append(files, name)
			}
		}
	}
	return files, errors.Join(errs...)
}

// inFolders returns files, and in the place of folders that an agent writes its records
// to the files in those.
func inFolders(names []string) (files []string) {
	for _, name := range names {
		found, err := filepath.Glob(filepath.Join(name, "flows-*.jsonl.zst"))
		if err != nil || len(found) == 0 {
			found = []string{name}
		}
		files = append(files, found...)
	}
	return files
}

// read hands over every flow of every file.
func (f *flowFiles) read(ctx context.Context, s streams, files []string, each func(policies.Flow) error) (flowlog.Stats, error) {
	seen := newWatch(s.err, files)
	defer seen.done()
	each = seen.each(f.resolved(each))
	var all flowlog.Stats
	for _, name := range files {
		stats, err := f.readFile(ctx, s.in, name, seen, each)
		all.Add(stats)
		if err != nil {
			return all, err
		}
	}
	return all, anyRead(all)
}

// anyRead is an error where there were records, and none of them can be read: the
// files are something else than flows.
func anyRead(stats flowlog.Stats) error {
	if stats.Bad == 0 || stats.Flows > 0 || len(stats.LeftOut) > 0 {
		return nil
	}
	return fmt.Errorf("flows: nothing can be read: %w", stats.FirstBad[0])
}

// resolved has the ends of each flow named first.
func (f *flowFiles) resolved(each func(policies.Flow) error) func(policies.Flow) error {
	if f.resolve == nil {
		return each
	}
	return func(flow policies.Flow) error {
		f.resolve(&flow)
		return each(flow)
	}
}

func (f *flowFiles) readFile(ctx context.Context, in io.Reader, name string, seen *watch, each func(policies.Flow) error) (flowlog.Stats, error) {
	if name == "-" {
		return flowlog.Read(ctx, in, "standard input", f.options, each)
	}
	file, err := os.Open(name)
	if err != nil {
		return flowlog.Stats{}, err
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.IsDir() {
		return flowlog.Stats{}, fmt.Errorf("flows: %s is a folder, and no flow store; name its files, as in '%s'", name, filepath.Join(name, "*"))
	}
	seen.next(file)
	return f.readOpen(ctx, file, each)
}

// readOpen reads an open file. One of a store's columns says more than others'
// Parquet can.
func (f *flowFiles) readOpen(ctx context.Context, file *os.File, each func(policies.Flow) error) (stats flowlog.Stats, err error) {
	if (f.options.Format == "" || f.options.Format == "parquet") && f.options.Columns == nil {
		isOne, err := flowstore.ReadFile(ctx, file, func(flow policies.Flow) error {
			stats.Flows++
			return each(flow)
		})
		if isOne || err != nil {
			return stats, err
		}
	}
	return flowlog.Read(ctx, file, filepath.ToSlash(filepath.Clean(file.Name())), f.options, each)
}
