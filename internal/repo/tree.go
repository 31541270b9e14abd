package repo

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// ErrSubmodule is the reason why nothing can be read below a submodule: its
// files are in another repository.
var ErrSubmodule = errors.New("is a submodule, whose files are not in this repository")

const maxLinks = 40 // as the kernel has it

// Tree returns the files of a commit. Symbolic links are followed within the
// tree. Submodules are listed with the mode fs.ModeIrregular and cannot be opened.
// Beside fs.ReadDirFS, fs.ReadFileFS and fs.StatFS the result has the method
// BlobHash(name string) (hash string, ok bool), for who remembers what a file
// was read as. It is good until the Repo is closed.
func (r *Repo) Tree(c Commit) fs.FS { return tree{repo: r, root: c.tree} }

type tree struct {
	repo *Repo
	root plumbing.Hash
}

// trees remembers the folders that were read, which both sides of a pull request
// mostly share.
type trees struct {
	sync.Mutex
	entries map[plumbing.Hash][]object.TreeEntry
}

func (r *Repo) entries(hash plumbing.Hash) ([]object.TreeEntry, error) {
	r.trees.Lock()
	defer r.trees.Unlock()
	if entries, ok := r.trees.entries[hash]; ok {
		return entries, nil
	}
	t, err := object.GetTree(r.store, hash)
	if err != nil {
		return nil, fmt.Errorf("tree %s: %w", hash, r.missing(err))
	}
	slices.SortFunc(t.Entries, func(a, b object.TreeEntry) int { return strings.Compare(a.Name, b.Name) })
	if r.trees.entries == nil {
		r.trees.entries = map[plumbing.Hash][]object.TreeEntry{}
	}
	r.trees.entries[hash] = t.Entries
	return t.Entries, nil
}

// missing says what an absent object usually comes from.
func (r *Repo) missing(err error) error {
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		return errors.New("the repository lacks it, as a partial clone does; clone without --filter, or run git checkout of that revision once")
	}
	return err
}

// find follows name, and the links on its way, to its entry.
func (t tree) find(op, name string) (object.TreeEntry, error) {
	fail := func(err error) (object.TreeEntry, error) {
		return object.TreeEntry{}, &fs.PathError{Op: op, Path: name, Err: err}
	}
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	type step struct {
		at    string
		entry object.TreeEntry
	}
	root := object.TreeEntry{Mode: filemode.Dir, Hash: t.root}
	here := step{".", root}
	trail := []step{} // the folders above here
	rest := strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case ".", "":
			continue
		case "..":
			if len(trail) == 0 {
				return fail(errors.New("is a symbolic link that leads out of the repository"))
			}
			here, trail = trail[len(trail)-1], trail[:len(trail)-1]
			continue
		}
		switch here.entry.Mode {
		case filemode.Dir:
		case filemode.Submodule:
			return fail(ErrSubmodule)
		default:
			return fail(fs.ErrNotExist)
		}
		entries, err := t.repo.entries(here.entry.Hash)
		if err != nil {
			return fail(err)
		}
		i, ok := slices.BinarySearchFunc(entries, part, func(e object.TreeEntry, name string) int { return strings.Compare(e.Name, name) })
		if !ok {
			return fail(fs.ErrNotExist)
		}
		if entries[i].Mode != filemode.Symlink {
			trail = append(trail, here)
			here = step{path.Join(here.at, part), entries[i]}
			continue
		}
		target, err := t.repo.blob(entries[i].Hash)
		if err != nil {
			return fail(err)
		}
		if links++; links > maxLinks {
			return fail(errors.New("too many symbolic links"))
		}
		if path.IsAbs(string(target)) {
			return fail(errors.New("is a symbolic link that leads out of the repository"))
		}
		rest = append(strings.Split(string(target), "/"), rest...)
	}
	return here.entry, nil
}

func (r *Repo) blob(hash plumbing.Hash) ([]byte, error) {
	blob, err := object.GetBlob(r.store, hash)
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", hash, r.missing(err))
	}
	reader, err := blob.Reader()
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	data := make([]byte, blob.Size)
	_, err = io.ReadFull(reader, data)
	return data, err
}

// BlobHash returns the hash of the file's content.
func (t tree) BlobHash(name string) (string, bool) {
	entry, err := t.find("stat", name)
	if err != nil || !entry.Mode.IsFile() {
		return "", false
	}
	return entry.Hash.String(), true
}

func (t tree) ReadFile(name string) ([]byte, error) {
	entry, err := t.find("open", name)
	if err != nil {
		return nil, err
	}
	switch entry.Mode {
	case filemode.Dir:
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is a directory")}
	case filemode.Submodule:
		return nil, &fs.PathError{Op: "read", Path: name, Err: ErrSubmodule}
	}
	data, err := t.repo.blob(entry.Hash)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return data, nil
}

func (t tree) ReadDir(name string) ([]fs.DirEntry, error) {
	entry, err := t.find("open", name)
	if err != nil {
		return nil, err
	}
	switch entry.Mode {
	case filemode.Dir:
	case filemode.Submodule:
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: ErrSubmodule}
	default:
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.New("is not a directory")}
	}
	entries, err := t.repo.entries(entry.Hash)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	list := make([]fs.DirEntry, len(entries))
	for i, e := range entries {
		list[i] = info{repo: t.repo, name: e.Name, entry: e}
	}
	return list, nil
}

func (t tree) Stat(name string) (fs.FileInfo, error) {
	entry, err := t.find("stat", name)
	if err != nil {
		return nil, err
	}
	i := info{repo: t.repo, name: path.Base(name), entry: entry}
	return i.Info()
}

func (t tree) Open(name string) (fs.File, error) {
	stat, err := t.Stat(name)
	if err != nil {
		return nil, err
	}
	if stat.IsDir() {
		entries, err := t.ReadDir(name)
		return &folder{opened{stat}, entries}, err
	}
	data, err := t.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return file{opened{stat}, strings.NewReader(string(data))}, nil
}

// info is a tree entry as fs.DirEntry and fs.FileInfo. Git keeps no times.
type info struct {
	repo  *Repo
	name  string
	entry object.TreeEntry
	size  int64
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.entry.Mode == filemode.Dir }
func (i info) Sys() any           { return nil }
func (i info) Type() fs.FileMode  { return i.Mode().Type() }
func (i info) String() string     { return fs.FormatDirEntry(i) }

func (i info) Mode() fs.FileMode {
	switch i.entry.Mode {
	case filemode.Dir:
		return fs.ModeDir | 0o555
	case filemode.Symlink:
		return fs.ModeSymlink | 0o444
	case filemode.Submodule:
		return fs.ModeIrregular
	case filemode.Executable:
		return 0o555
	}
	return 0o444
}

func (i info) Info() (fs.FileInfo, error) {
	if !i.entry.Mode.IsFile() {
		return i, nil
	}
	size, err := i.repo.store.EncodedObjectSize(i.entry.Hash)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: i.name, Err: i.repo.missing(err)}
	}
	i.size = size
	return i, nil
}

type opened struct{ stat fs.FileInfo }

func (o opened) Stat() (fs.FileInfo, error) { return o.stat, nil }
func (o opened) Close() error               { return nil }

type file struct {
	opened
	*strings.Reader
}

type folder struct {
	opened
	rest []fs.DirEntry
}

func (d *folder) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.stat.Name(), Err: errors.New("is a directory")}
}

func (d *folder) ReadDir(n int) ([]fs.DirEntry, error) {
	if n > 0 && len(d.rest) == 0 {
		return nil, io.EOF
	}
	if n <= 0 || n > len(d.rest) {
		n = len(d.rest)
	}
	list := d.rest[:n:n]
	d.rest = d.rest[n:]
	return list, nil
}
