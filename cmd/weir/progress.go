package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/weir-policy/weir/policies"
)

// clearLine goes back to the start of a terminal's line and empties it.
const clearLine = "\r\x1b[K"

// counted returns what shows somebody at a terminal how many objects of a kind
// are read, and what clears that line at the end. Anywhere else to stays empty.
func counted(to io.Writer) (func(resource string, objects int), func()) {
	if !isTerminal(to) {
		return nil, func() {}
	}
	return func(resource string, objects int) { fmt.Fprintf(to, "%s%d %s read", clearLine, objects, resource) },
		func() { fmt.Fprint(to, clearLine) }
}

// watch shows somebody who waits at a terminal how many flows are read and, where
// it is known how large the files are, for how long it will last. Anywhere else to
// stays empty.
type watch struct {
	to           io.Writer // nil where nobody waits
	now          func() time.Time
	began, shown time.Time
	flows        uint64
	before       int64 // bytes of the files before
	total        int64 // of all files; 0 where it is not known
	file         io.Seeker
}

// newWatch returns a watch of files that are read one after another.
func newWatch(to io.Writer, files []string) *watch {
	w := &watch{now: time.Now}
	if !isTerminal(to) {
		return w
	}
	w.to, w.total = to, sizeOf(files)
	w.began = w.now()
	w.shown = w.began
	return w
}

// sizeOf returns how large files are together, 0 where one of them is no file.
func sizeOf(files []string) (total int64) {
	for _, name := range files {
		info, err := os.Stat(name)
		if name == "-" || err != nil || !info.Mode().IsRegular() {
			return 0
		}
		total += info.Size()
	}
	return total
}

// next says which file is read now; nil where it is none.
func (w *watch) next(file io.Seeker) {
	w.before += w.position()
	w.file = file
}

// position is how many bytes of the file at hand are read, packed as they are.
func (w *watch) position() int64 {
	if w.to == nil || w.file == nil {
		return 0
	}
	at, err := w.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0 // it is closed
	}
	return at
}

// each returns each such that its flows are counted.
func (w *watch) each(each func(policies.Flow) error) func(policies.Flow) error {
	if w.to == nil {
		return each
	}
	return func(f policies.Flow) error {
		if w.flows++; w.flows%4096 == 0 {
			if now := w.now(); now.Sub(w.shown) > time.Second/4 {
				w.shown = now
				fmt.Fprint(w.to, clearLine+w.text(now))
			}
		}
		return each(f)
	}
}

func (w *watch) text(now time.Time) string {
	elapsed := now.Sub(w.began)
	text := fmt.Sprintf("%d flows read, %.0f a second", w.flows, float64(w.flows)/max(elapsed.Seconds(), 1e-9))
	done := w.before + w.position()
	if done <= 0 || w.total <= 0 || elapsed < 2*time.Second {
		return text
	}
	left := time.Duration(float64(elapsed) / float64(done) * float64(max(0, w.total-done))).Round(time.Second)
	return text + fmt.Sprintf(", %d%% of the files, %s left", min(100, 100*done/w.total), left)
}

// done clears the line.
func (w *watch) done() {
	if w.shown != w.began {
		fmt.Fprint(w.to, clearLine)
	}
}

// progressed returns what shows somebody at a terminal how much of a work is
// done, and for how long it will last, and what clears that line at the end.
// Anywhere else to stays empty.
func progressed(to io.Writer, done string) (func(sofar, of int64), func()) {
	if !isTerminal(to) {
		return nil, func() {}
	}
	began := time.Now()
	return func(sofar, of int64) {
		elapsed := time.Since(began)
		left := time.Duration(float64(elapsed) / float64(max(1, sofar)) * float64(of-sofar)).Round(time.Second)
		fmt.Fprintf(to, "%s%d%% %s, %s left", clearLine, 100*sofar/max(1, of), done, left)
	}, func() { fmt.Fprint(to, clearLine) }
}
