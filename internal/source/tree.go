package source

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
)

// tree is files that are read with care and once.
type tree struct {
	id    string // equal for trees of the same files
	files careful
	name  func(path string) string // what messages call a file
	seen  map[string]parsed
	known *memory[parsed]
}

func (r *reading) tree(id string, fsys fs.FS, name func(string) string) *tree {
	return &tree{id: id, files: careful{fsys}, name: name, seen: map[string]parsed{}, known: &r.loader.parsed}
}

type parsed struct {
	documents []k8s.Document
	err       error
}

// parse returns the documents of a file. What cannot be read is a
// policies.Problem at the file.
func (t *tree) parse(name string) ([]k8s.Document, error) {
	if p, ok := t.seen[name]; ok {
		return p.documents, p.err
	}
	key := ""
	if hash, ok := t.files.blobHash(name); ok {
		key = t.name(name) + "\x00" + hash
	}
	p := t.known.get(key, func() parsed {
		data, err := fs.ReadFile(t.files, name)
		if err != nil {
			return parsed{err: policies.Problem{Place: policies.Place{File: t.name(name)}, Message: reason(err)}}
		}
		documents, err := k8s.Parse(t.name(name), data)
		return parsed{documents, err}
	})
	t.seen[name] = p
	return p.documents, p.err
}

// reason is why a file cannot be read, without its path.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// memory remembers answers by key; the empty key is not remembered.
type memory[T any] struct{ answers map[string]T }

func (m *memory[T]) get(key string, find func() T) T {
	if answer, ok := m.answers[key]; ok {
		return answer
	}
	answer := find()
	if key != "" {
		if m.answers == nil {
			m.answers = map[string]T{}
		}
		m.answers[key] = answer
	}
	return answer
}

// careful reads regular files of a sensible size only, and tells what lies where
// a file should be.
type careful struct{ fs.FS }

var pointer = []byte("version https://git-lfs.github.com/spec/v1\n")

func (c careful) Stat(name string) (fs.FileInfo, error)      { return fs.Stat(c.FS, name) }
func (c careful) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(c.FS, name) }

func (c careful) ReadFile(name string) ([]byte, error) {
	fail := func(format string, args ...any) ([]byte, error) {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf(format, args...)}
	}
	info, err := c.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return fail("it is a folder, not a file")
	case !info.Mode().IsRegular():
		return fail("it is not a regular file")
	case info.Size() > k8s.MaxFileSize:
		return fail("the file has %d MiB, more than the %d MiB that are read; split it into several files", info.Size()>>20, k8s.MaxFileSize>>20)
	}
	data, err := fs.ReadFile(c.FS, name)
	if err == nil && bytes.HasPrefix(data, pointer) {
		return fail("the file is in Git LFS and only its pointer is here; keep manifests out of LFS, or run git lfs pull and read them from the work tree")
	}
	return data, err
}

func (c careful) blobHash(name string) (string, bool) {
	if hasher, ok := c.FS.(interface{ BlobHash(string) (string, bool) }); ok {
		return hasher.BlobHash(name)
	}
	return "", false
}
