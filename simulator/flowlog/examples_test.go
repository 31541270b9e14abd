package flowlog

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/simulator/flowline"
)

// exampleFiles returns the example files of a format, of which each has one or
// more.
func exampleFiles(t testing.TB, format string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", format+".*"))
	if err != nil {
		t.Fatal(err)
	}
	files = slices.DeleteFunc(files, func(name string) bool { return filepath.Ext(name) == ".want" })
	if len(files) == 0 {
		t.Errorf("format %s has no example in testdata", format)
	}
	return files
}

// TestEveryFormat reads the examples of all formats, which are found by looking,
// plain or compressed, and when asked for: that makes no difference.
func TestEveryFormat(t *testing.T) {
	for _, format := range Formats() {
		for _, file := range exampleFiles(t, format) {
			t.Run(filepath.Base(file), func(t *testing.T) {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				plain := outcome(t, string(text), "")
				testkit.Golden(t, strings.TrimSuffix(file, filepath.Ext(file))+".want", plain)
				if !strings.Contains(plain, `"format":"`+format+`"`) {
					t.Errorf("read as another format:\n%s", plain)
				}
				if format == parquetFormat.name {
					return // it is packed within
				}
				for name, got := range map[string]string{
					"gzip": outcome(t, string(zip(t, string(text))), ""), "zstd": outcome(t, string(zst(t, string(text))), ""),
					"asked for": outcome(t, string(text), format), "asked for, gzip": outcome(t, string(zip(t, string(text))), format),
				} {
					if got != plain {
						t.Errorf("%s:\n%swant\n%s", name, got, plain)
					}
				}
			})
		}
	}
}

// outcome is what a file becomes: its flows as Weir's own lines, then what else
// was counted.
func outcome(t *testing.T, text, format string) string {
	t.Helper()
	flows, stats, err := read(t, text, Options{Format: format})
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	w := flowline.NewWriter(&got)
	for _, f := range flows {
		if err := w.Write(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, cause := range slices.Sorted(maps.Keys(stats.LeftOut)) {
		fmt.Fprintf(&got, "left out: %d, %s\n", stats.LeftOut[cause], cause)
	}
	for _, p := range stats.FirstBad {
		fmt.Fprintf(&got, "bad: %s\n", p)
	}
	if stats.Lost > 0 {
		fmt.Fprintf(&got, "lost: %d\n", stats.Lost)
	}
	return got.String()
}
