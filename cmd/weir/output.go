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

	"github.com/weir-policy/weir/internal/preview"
	"github.com/weir-policy/weir/internal/report"
)

// output is the flags by which a verb is told how and where to write.
type output struct {
	streams
	kind    report.Kind
	formats []string // in place of those that the kind of answer has
	private bool     // nobody else may read the files
	wants   []string
}

func (o *output) addTo(c *cobra.Command) {
	names := o.names()
	c.Flags().StringArrayVarP(&o.wants, "output", "o", []string{names[0]},
		"how to write the answer, a `format` or format=FILE; repeatable; formats: "+strings.Join(names, ", "))
	complete(c, "output", names...)
}

func (o *output) names() []string {
	if o.formats != nil {
		return o.formats
	}
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
		format, file, named := strings.Cut(want, "=")
		if named && file == "" {
			return fmt.Errorf("--output: %q names no file", want)
		}
		if !slices.Contains(o.names(), format) {
			return fmt.Errorf("--output: %q is none of %s; a file is named as in -o %s=FILE", format, strings.Join(o.names(), ", "), o.names()[0])
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
	mode := fs.FileMode(0o644)
	if o.private {
		mode = 0o600
	}
	for _, want := range o.wants {
		format, file, _ := strings.Cut(want, "=")
		if file == "" {
			errs = append(errs, answer(o.out, report.Format(format), report.Style{Color: isTerminal(o.out) && os.Getenv("NO_COLOR") == ""}))
			continue
		}
		errs = append(errs, writeFile(file, mode, func(w io.Writer) error { return answer(w, report.Format(format), report.Style{}) }))
	}
	return errors.Join(errs...)
}

// writeFile fills a file beside its place and moves it there when it is whole.
// Into a device or a pipe it writes directly.
func writeFile(name string, mode fs.FileMode, fill func(io.Writer) error) error {
	switch info, err := os.Stat(name); {
	case err == nil && info.IsDir():
		return fmt.Errorf("write %s: it is a folder; name a file", name)
	case err == nil && !info.Mode().IsRegular():
		return writeDevice(name, fill)
	}
	temporary, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, reason(err))
	}
	defer os.Remove(temporary.Name())
	err = fill(temporary)
	if err == nil {
		err = errors.Join(temporary.Chmod(mode), temporary.Sync())
	}
	if err = errors.Join(err, temporary.Close()); err == nil {
		err = reason(os.Rename(temporary.Name(), name))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func writeDevice(name string, fill func(io.Writer) error) error {
	device, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, reason(err))
	}
	if err := errors.Join(fill(device), device.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, reason(err))
	}
	return nil
}

// reason is the error without the name of the file that stands in for another.
func reason(err error) error {
	var inPath *fs.PathError
	var inMove *os.LinkError
	switch {
	case errors.As(err, &inPath):
		return inPath.Err
	case errors.As(err, &inMove):
		return inMove.Err
	}
	return err
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// failures is the flag by which a verb is told which answers are a no.
type failures struct {
	known []preview.Condition
	text  string
}

func (f *failures) addTo(c *cobra.Command, otherwise string) {
	names := []string{"none"}
	for _, k := range f.known {
		names = append(names, string(k))
	}
	c.Flags().StringVar(&f.text, "fail-on", otherwise, "exit with status 1 on any of these `conditions`: "+strings.Join(names[1:], ", ")+", or none")
	completeList(c, "fail-on", names...)
}

func (f *failures) conditions() ([]preview.Condition, error) {
	conditions, err := preview.ParseConditions(f.text, f.known...)
	if err != nil {
		return nil, fmt.Errorf("--fail-on: %w", err)
	}
	return conditions, nil
}
