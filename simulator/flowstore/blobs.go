package flowstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// blobs is where a store's files are. Names are paths with slashes. A file that
// is there is whole, and never changes.
type blobs interface {
	// spool returns an empty local file to prepare one in.
	spool() (*os.File, error)
	// put stores a spooled file under a name, durably, all or nothing.
	put(ctx context.Context, name string, spooled *os.File) error
	// putNew stores data under a name, as put does. It fails with
	// fs.ErrExist where there is a file of that name.
	putNew(ctx context.Context, name string, data []byte) error
	// open fails with fs.ErrNotExist where there is no such file.
	open(ctx context.Context, name string) (blob, error)
	// list calls each for the files whose names begin with a folder's and come
	// after another, in the order of their names.
	list(ctx context.Context, folder, after string, each func(entry) error) error
	remove(ctx context.Context, name string) error
	// sweep removes what was left in the spool before a time.
	sweep(before time.Time) error
	String() string
}

// blob is an open file.
type blob interface {
	io.ReaderAt
	close()
	size() int64
	name() string
}

type entry struct {
	name     string
	size     int64
	modified time.Time
}

func readAll(ctx context.Context, b blobs, name string) ([]byte, error) {
	f, err := b.open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer f.close()
	data, err := io.ReadAll(io.NewSectionReader(f, 0, f.size()))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.name(), err)
	}
	return data, nil
}

// discard closes and removes a spooled file.
func discard(spooled *os.File) {
	spooled.Close()
	os.Remove(spooled.Name())
}

// folder is a local folder. What is prepared is in its subfolder tmp.
type folder struct{ root string }

const spoolFolder = "tmp"

func openFolder(root string, create bool) (*folder, error) {
	f := &folder{root}
	if create {
		if err := os.MkdirAll(filepath.Join(root, spoolFolder), 0o755); err != nil {
			return nil, err
		}
		return f, syncFolder(root)
	}
	info, err := os.Stat(root)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is a file, not a folder", root)
	}
	return f, err
}

func (f *folder) String() string { return f.root }

func (f *folder) path(name string) string { return filepath.Join(f.root, filepath.FromSlash(name)) }

func (f *folder) spool() (*os.File, error) {
	if err := os.MkdirAll(filepath.Join(f.root, spoolFolder), 0o755); err != nil {
		return nil, err
	}
	return os.CreateTemp(filepath.Join(f.root, spoolFolder), "*.tmp")
}

func (f *folder) put(_ context.Context, name string, spooled *os.File) error {
	return f.place(name, spooled, os.Rename)
}

// place moves or links a spooled file to where it belongs, durably.
func (f *folder) place(name string, spooled *os.File, move func(from, to string) error) error {
	err := spooled.Chmod(0o644)
	if err == nil {
		err = spooled.Sync()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.path(name), err)
	}
	to := f.path(name)
	for try := 0; ; try++ {
		if err := f.makeFolders(path.Dir(name)); err != nil {
			return err
		}
		err := move(spooled.Name(), to)
		if errors.Is(err, fs.ErrNotExist) && try < 3 { // somebody removed the empty folder
			continue
		}
		if err != nil {
			return err
		}
		return syncFolder(filepath.Dir(to))
	}
}

// makeFolders makes a folder and those above it, each durably.
func (f *folder) makeFolders(name string) error {
	if _, err := os.Stat(f.path(name)); err == nil || name == "." {
		return nil
	}
	if err := f.makeFolders(path.Dir(name)); err != nil {
		return err
	}
	if err := os.Mkdir(f.path(name), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFolder(f.path(path.Dir(name)))
}

func syncFolder(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (f *folder) putNew(_ context.Context, name string, data []byte) error {
	spooled, err := f.spool()
	if err != nil {
		return err
	}
	defer discard(spooled)
	if _, err := spooled.Write(data); err != nil {
		return fmt.Errorf("%s: %w", f.path(name), err)
	}
	return f.place(name, spooled, os.Link)
}

func (f *folder) open(_ context.Context, name string) (blob, error) {
	file, err := os.Open(f.path(name))
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &localBlob{file, info.Size(), f.path(name)}, nil
}

type localBlob struct {
	*os.File
	bytes int64
	at    string
}

func (b *localBlob) close()       { b.File.Close() }
func (b *localBlob) size() int64  { return b.bytes }
func (b *localBlob) name() string { return b.at }

func (f *folder) list(ctx context.Context, under, after string, each func(entry) error) error {
	return filepath.WalkDir(f.path(under), func(at string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
		relative, err := filepath.Rel(f.root, at)
		if err != nil || d.IsDir() {
			return err
		}
		name := filepath.ToSlash(relative)
		if strings.HasPrefix(name, spoolFolder+"/") || name <= after {
			return nil
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return each(entry{name, info.Size(), info.ModTime()})
	})
}

func (f *folder) remove(_ context.Context, name string) error {
	err := os.Remove(f.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		f.removeEmpty(path.Dir(name))
	}
	return err
}

// removeEmpty removes folders of hours and days in which nothing is left.
func (f *folder) removeEmpty(name string) {
	for strings.Contains(path.Base(name), "=") && os.Remove(f.path(name)) == nil {
		name = path.Dir(name)
	}
}

func (f *folder) sweep(before time.Time) error {
	entries, err := os.ReadDir(filepath.Join(f.root, spoolFolder))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.ModTime().Before(before) {
			if err := os.Remove(filepath.Join(f.root, spoolFolder, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
