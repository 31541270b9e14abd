package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/weir-policy/weir/internal/cluster"
	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/internal/snapshot"
	"github.com/weir-policy/weir/internal/source"
	"github.com/weir-policy/weir/policies/k8s"
)

func newSnapshot(s streams) *cobra.Command {
	out := output{streams: s, formats: []string{"yaml", "json"}, private: true}
	loader := source.Loader{Stdin: s.in}
	var sources []string
	var anonymize bool
	var seed, names string
	c := &cobra.Command{
		Use:   "snapshot [-f SRC]",
		Short: "Write a live cluster down as one file that every verb reads",
		Long: `Write what network policy looks at as one file, which -f of every verb reads:
namespaces, nodes, workloads, pods, services, service accounts, and the policies
of every dialect, each with the fields that matter and no others.

The live cluster is only read, by listing these kinds; secrets and config maps
are never asked for. Where a kind may not be listed, nothing is written, and the
rules are named that the role lacks; --allow-missing goes on without it.

--anonymize makes up a name for whatever could tell whose cluster it is, and
keeps every answer as it is: namespaces, workloads, labels, nodes, ports,
policies, domains and addresses. Equal --seed gives equal names.`,
		Example: `  weir snapshot -o yaml=world.yaml
  weir snapshot --anonymize --names names.yaml > world.yaml
  weir snapshot -f examples/shop/deploy --anonymize -o json=shop.json`,
		Args: takes(0, 0, "snapshot takes no arguments; name manifests as in: weir snapshot -f SRC"),
		RunE: func(c *cobra.Command, _ []string) error {
			err := errors.Join(out.check(), readOnce(sources...))
			if !anonymize && (seed != "" || names != "") {
				err = errors.Join(err, errors.New("--seed and --names go with --anonymize"))
			}
			if err != nil {
				return err
			}
			world, err := readWorld(c.Context(), &loader, s.err, sources)
			if err != nil {
				return err
			}
			if anonymize {
				var made *snapshot.Names
				world.Objects, made = snapshot.Anonymize(world.Objects, keyOf(seed))
				if err := writeNames(names, made); err != nil {
					return err
				}
			}
			var written size
			err = out.write(func(w io.Writer, f report.Format, _ report.Style) error {
				written = 0
				w = io.MultiWriter(w, &written)
				if f == report.JSON {
					return snapshot.WriteJSON(w, world.Objects, world.Missing)
				}
				return snapshot.WriteYAML(w, world.Objects, world.Missing)
			})
			if written > k8s.MaxFileSize {
				fmt.Fprintf(s.err, "warning: the snapshot has %d MiB, more than the %d MiB that weir reads of a file; split it at its documents\n", written>>20, k8s.MaxFileSize>>20)
			}
			return err
		},
	}
	f := c.Flags()
	f.StringArrayVarP(&sources, "filename", "f", nil, "a `source` to write down; repeatable (default: the live cluster)")
	f.StringVar(&loader.RepoDir, "repo", ".", "the Git `repository` that revisions are of")
	f.StringVarP(&loader.Options.Namespace, "namespace", "n", "default", "the `namespace` of objects that name none")
	addCluster(c, &loader.Cluster)
	f.BoolVar(&loader.Cluster.AllowMissing, "allow-missing", false, "go on without the kinds that may not be read, and say so in the file")
	out.addTo(c)
	f.BoolVar(&anonymize, "anonymize", false, "write made-up names in place of those of the world")
	f.StringVar(&seed, "seed", "", "the `text` that made-up names are drawn from, to be kept to yourself (default: new ones each time)")
	f.StringVar(&names, "names", "", "the `file` to write what each made-up name stands for, to be kept to yourself")
	return c
}

// readWorld reads the sources, which are the live cluster where there are none,
// and tells warnings.
func readWorld(ctx context.Context, l *source.Loader, told io.Writer, sources []string) (*cluster.World, error) {
	world := &cluster.World{}
	files := slices.DeleteFunc(slices.Clone(sources), func(name string) bool { return name == source.Cluster })
	if len(files) > 0 {
		objects, warnings, err := l.Objects(ctx, files...)
		if err != nil {
			return nil, err
		}
		world.Objects = objects
		for _, w := range warnings {
			fmt.Fprintln(told, "warning:", w)
		}
	}
	if len(files) == len(sources) && len(sources) > 0 {
		return world, nil
	}
	progress, done := counted(told)
	l.Cluster.Progress = progress
	live, err := cluster.Read(ctx, l.Cluster)
	done()
	if err != nil {
		return nil, err
	}
	for i, missing := range live.Missing {
		live.Missing[i] = "missing: " + missing
		fmt.Fprintln(told, "warning:", live.Missing[i])
	}
	live.Objects = append(live.Objects, world.Objects...)
	snapshot.Sort(live.Objects)
	return live, nil
}

// keyOf returns the key of a seed, or a key that nobody knows.
func keyOf(seed string) []byte {
	if seed != "" {
		return []byte(seed)
	}
	return []byte(rand.Text())
}

// writeNames writes what made-up names stand for, unless there is no file to
// write it to.
func writeNames(file string, names *snapshot.Names) error {
	if file == "" {
		return nil
	}
	return writeFile(file, 0o600, func(w io.Writer) error { return yaml.NewEncoder(w).Encode(names.Originals()) })
}

// size counts the bytes that are written to it.
type size int

func (s *size) Write(p []byte) (int, error) {
	*s += size(len(p))
	return len(p), nil
}
