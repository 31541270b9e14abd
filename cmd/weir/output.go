package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/report"
)

// output is the flags by which a verb is told how and where to write.
type output struct {
	streams
	kind  report.Kind
	wants []string
}

func (o *output) addTo(c *cobra.Command) {
	names := o.names()
	c.Flags().StringArrayVarP(&o.wants, "output", "o", []string{names[0]},
		"how to write the answer, FORMAT or FORMAT=FILE; repeatable; one of "+strings.Join(names, ", "))
	if err := c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err)
	}
}

func (o *output) names() []string {
	var names []string
	for _, f := range report.Formats(o.kind) {
		names = append(names, string(f))
	}
	return names
}

// check fails on a format that the answer cannot have, before any work is done.
func (o *output) check() error {
	printed := 0
	for _, want := range o.wants {
		format, file, _ := strings.Cut(want, "=")
		if !slices.Contains(o.names(), format) {
			return fmt.Errorf("--output: %q is none of %s", format, strings.Join(o.names(), ", "))
		}
		if file == "" {
			printed++
		}
	}
	if printed > 1 {
		return errors.New("--output: only one format can be printed; give the others a file, as in -o html=report.html")
	}
	return nil
}

// write writes the answer in every form asked for. Files appear whole or not at
// all.
func (o *output) write(answer func(w io.Writer, f report.Format, s report.Style) error) error {
	var errs []error
	for _, want := range o.wants {
		format, file, _ := strings.Cut(want, "=")
		if file == "" {
			errs = append(errs, answer(o.out, report.Format(format), report.Style{Color: isTerminal(o.out) && os.Getenv("NO_COLOR") == ""}))
			continue
		}
		errs = append(errs, writeFile(file, func(w io.Writer) error { return answer(w, report.Format(format), report.Style{}) }))
	}
	return errors.Join(errs...)
}

// writeFile fills a file beside its place and moves it there when it is whole.
func writeFile(name string, fill func(io.Writer) error) error {
	temporary, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		// The name of the temporary file would tell nobody anything.
		if in := new(fs.PathError); errors.As(err, &in) {
			err = in.Err
		}
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer os.Remove(temporary.Name())
	err = errors.Join(fill(temporary), temporary.Chmod(0o644), temporary.Sync(), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
