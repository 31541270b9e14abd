package folder

import (
	"context"
	"os"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// How long files have to be left alone before they are read, how long they are waited
// for at most, and how often they are looked at although nobody told of a change, as
// file systems of other machines do not.
const (
	quiet   = 30 * time.Millisecond
	longest = 300 * time.Millisecond
	seldom  = 10 * time.Second
)

// Watch reads the folder, and again whenever it changes, until ctx ends. It tells what
// Read returns, where that is not what it was.
func (f *Folder) Watch(ctx context.Context, tell func(*World, error)) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer watcher.Close() //nolint:errcheck // it is of no use any more
	var last *World
	said := ""
	for first := true; ; first = false {
		w, err := f.Read()
		// What is new among the folders may have changed before it was watched.
		if f.watchFolders(watcher) {
			w, err = f.Read()
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		if first || w != last || text != said {
			last, said = w, text
			tell(w, err)
		}
		if !f.wait(ctx, watcher) {
			return ctx.Err()
		}
	}
}

// watchFolders watches the folders that were read, and no others, and reports whether there
// are new ones: a folder may be another one than that of the same name before.
func (f *Folder) watchFolders(w *fsnotify.Watcher) (added bool) {
	now := map[string]uint64{}
	for _, name := range f.folders {
		if info, err := os.Stat(name); err == nil {
			now[name] = inodeOf(info)
		}
	}
	for _, name := range w.WatchList() {
		if inode, is := now[name]; !is || inode != f.watched[name] {
			w.Remove(name) //nolint:errcheck // it went by itself
		}
	}
	watched := w.WatchList()
	for name := range now {
		if !slices.Contains(watched, name) && w.Add(name) == nil {
			added = true
		}
	}
	f.watched = now
	return added
}

// wait returns when something changed and is left alone; false when ctx ended.
func (f *Folder) wait(ctx context.Context, w *fsnotify.Watcher) bool {
	timer := time.NewTimer(f.seldom)
	defer timer.Stop()
	var begin time.Time
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-w.Errors: //nolint:errcheck // an overflow: it may be anything
		case <-w.Events:
		}
		if begin.IsZero() {
			begin = time.Now()
		}
		timer.Reset(max(0, min(quiet, longest-time.Since(begin))))
	}
}
