package render

import (
	"errors"
	"io/fs"
	"path"
	"path/filepath"

	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// files shows a plan's tree to Kustomize, rooted at "/".
type files struct{ plan *Plan }

var errReadOnly = errors.New("the tree is only read")

// inTree returns the path in the tree for one of Kustomize's.
func inTree(name string) string {
	if name = path.Join("/", filepath.ToSlash(name)); name == "/" {
		return "."
	}
	return name[1:]
}

func (f files) ReadFile(name string) ([]byte, error) { return f.plan.read(inTree(name)) }

func (f files) Exists(name string) bool {
	_, err := fs.Stat(f.plan.tree.Files, inTree(name))
	return err == nil || f.plan.absent[inTree(name)]
}

func (f files) IsDir(name string) bool {
	info, err := fs.Stat(f.plan.tree.Files, inTree(name))
	return err == nil && info.IsDir()
}

// CleanedAbs cleans by the letter: it resolves no symbolic links.
func (f files) CleanedAbs(name string) (filesys.ConfirmedDir, string, error) {
	clean := path.Join("/", filepath.ToSlash(name))
	switch {
	case f.IsDir(clean):
		return filesys.ConfirmedDir(clean), "", nil
	case f.Exists(clean):
		return filesys.ConfirmedDir(path.Dir(clean)), path.Base(clean), nil
	}
	return "", "", &fs.PathError{Op: "open", Path: inTree(name), Err: fs.ErrNotExist}
}

func (f files) ReadDir(name string) ([]string, error) {
	list, err := fs.ReadDir(f.plan.tree.Files, inTree(name))
	var names []string
	for _, entry := range list {
		names = append(names, entry.Name())
	}
	return names, err
}

func (f files) Glob(pattern string) ([]string, error) {
	matches, err := fs.Glob(f.plan.tree.Files, inTree(pattern))
	for i := range matches {
		matches[i] = path.Join("/", matches[i])
	}
	return matches, err
}

func (f files) Walk(name string, visit filepath.WalkFunc) error {
	return fs.WalkDir(f.plan.tree.Files, inTree(name), func(at string, entry fs.DirEntry, err error) error {
		var info fs.FileInfo
		if entry != nil && err == nil {
			info, err = entry.Info()
		}
		return visit(path.Join("/", at), info, err)
	})
}

func (files) Open(string) (filesys.File, error)   { return nil, errReadOnly }
func (files) Create(string) (filesys.File, error) { return nil, errReadOnly }
func (files) Mkdir(string) error                  { return errReadOnly }
func (files) MkdirAll(string) error               { return errReadOnly }
func (files) RemoveAll(string) error              { return errReadOnly }
func (files) WriteFile(string, []byte) error      { return errReadOnly }
