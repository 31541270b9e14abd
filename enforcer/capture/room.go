//go:build linux

package capture

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/weir-policy/weir/policies/v1alpha1"
)

// errFull is wrapped where there is no more room for packets.
var errFull = errors.New("no room")

// room is what the files of all captures may take together.
type room struct {
	dir     string
	most    int64 // bytes of all files
	minFree int64 // bytes that stay free on the disk, any number where it is below 0
	// evict removes files that nobody asks for any more, some at a time, and reports
	// whether there were any.
	evict func() bool

	mutex sync.Mutex
	used  int64
}

// take makes room for so many bytes more.
func (r *room) take(n int64) error {
	for {
		err := r.tryTake(n)
		if err == nil || !errors.Is(err, errFull) || !r.evict() {
			return err
		}
	}
}

func (r *room) tryTake(n int64) error {
	free, err := freeBytes(r.dir)
	if err != nil {
		return err
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	switch {
	case r.used+n > r.most:
		return fmt.Errorf("%w: captures hold %d bytes on this node, and may hold %d; delete some, or let the agent keep more", errFull, r.used, r.most)
	case r.minFree >= 0 && free-n < r.minFree:
		return fmt.Errorf("%w: the disk of %s has %d bytes free, and %d must stay so; delete what is not needed there", errFull, r.dir, free, r.minFree)
	}
	r.used += n
	return nil
}

// give says that so many bytes are gone.
func (r *room) give(n int64) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.used -= n
}

// remove removes a file or a folder with all that is in it.
func (r *room) remove(name string) error {
	size, err := sizeOf(name)
	if err == nil {
		err = os.RemoveAll(name)
	}
	if err == nil {
		r.give(size)
	}
	return err
}

// freeBytes is how much an agent that is root can still write.
func freeBytes(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// sizeOf is how many bytes the captured files at and below a name have.
func sizeOf(name string) (size int64, err error) {
	err = filepath.WalkDir(name, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, v1alpha1.CaptureFileSuffix) {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	return size, err
}
