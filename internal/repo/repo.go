// Package repo reads commits and trees of a Git repository, straight from its
// object store: it never looks at the work tree, writes nothing and needs no git
// binary.
package repo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/filesystem/dotgit"
)

// cacheSize is enough for every blob and delta base of a large repository of
// manifests; go-git's own 96 MiB reads them twice as slowly.
const cacheSize = 512 * cache.MiByte

// Repo is an open repository. It may be used by several goroutines.
type Repo struct {
	dir   string
	git   *git.Repository
	store storage
	trees trees
}

// Open finds the repository that dir belongs to: dir may be a work tree, linked
// or not, a folder in one, or a bare repository. Close it when done.
func Open(dir string) (*Repo, error) {
	gitDir, err := find(dir)
	if err != nil {
		return nil, err
	}
	commonDir, err := common(gitDir)
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", dir, err)
	}
	files := dotgit.NewRepositoryFilesystem(osfs.New(gitDir), osfs.New(commonDir))
	store := storage{Storage: filesystem.NewStorageWithOptions(files, cache.NewObjectLRU(cacheSize), filesystem.Options{
		KeepDescriptors: true,
		AlternatesFS:    osfs.New(string(filepath.Separator), osfs.WithBoundOS()),
	}), mu: new(sync.Mutex)}
	opened, err := git.Open(store, nil)
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", dir, err)
	}
	return &Repo{dir: dir, git: opened, store: store}, nil
}

// Close releases the files that reading keeps open.
func (r *Repo) Close() error { return r.store.Close() }

// find returns the repository's own folder for dir.
func find(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	switch abs, err = filepath.EvalSymlinks(abs); {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("open the Git repository %s: %w; name one with --repo", dir, fs.ErrNotExist)
	case err != nil:
		return "", fmt.Errorf("open repository: %w", err)
	}
	if isGitDir(abs) {
		return abs, nil
	}
	for at := abs; ; at = filepath.Dir(at) {
		dot := filepath.Join(at, ".git")
		if isGitDir(dot) {
			return dot, nil
		}
		if text, err := os.ReadFile(dot); err == nil {
			target, ok := strings.CutPrefix(strings.TrimSpace(string(text)), "gitdir: ")
			if !ok {
				return "", fmt.Errorf("%s: no gitdir in it", dot)
			}
			if !filepath.IsAbs(target) {
				target = filepath.Join(at, target)
			}
			if !isGitDir(target) {
				return "", fmt.Errorf("%s leads to %s, which is not a Git repository", dot, target)
			}
			return target, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%s is not a Git repository, nor in one; name one with --repo", dir)
		}
	}
}

func isGitDir(dir string) bool {
	if _, err := os.Stat(filepath.Join(dir, "HEAD")); err != nil {
		return false
	}
	for _, needed := range []string{"objects", "commondir"} {
		if _, err := os.Stat(filepath.Join(dir, needed)); err == nil {
			return true
		}
	}
	return false
}

// common returns the folder with the objects and branches: gitDir itself, but
// for linked work trees.
func common(gitDir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(gitDir, "commondir"))
	if errors.Is(err, os.ErrNotExist) {
		return gitDir, nil
	}
	if err != nil {
		return "", err
	}
	dir := strings.TrimSpace(string(text))
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(gitDir, dir)
	}
	return dir, nil
}

// storage is go-git's, one reader at a time, and without the extensions that do
// not matter to a reader: go-git refuses, for one, every sparse checkout.
type storage struct {
	*filesystem.Storage
	mu *sync.Mutex
}

func (s storage) Config() (*config.Config, error) {
	cfg, err := s.Storage.Config()
	if err != nil {
		return nil, err
	}
	extensions := cfg.Raw.Section("extensions")
	for _, name := range []string{"worktreeConfig", "partialClone", "preciousObjects", "relativeWorktrees"} {
		extensions.RemoveOption(name)
	}
	return cfg, nil
}

func (s storage) EncodedObject(kind plumbing.ObjectType, hash plumbing.Hash) (plumbing.EncodedObject, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Storage.EncodedObject(kind, hash)
}

func (s storage) EncodedObjectSize(hash plumbing.Hash) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	size, err := s.Storage.EncodedObjectSize(hash)
	if !errors.Is(err, plumbing.ErrObjectNotFound) {
		return size, err
	}
	// go-git looks for sizes in the repository itself only, not where it borrows objects.
	object, err := s.Storage.EncodedObject(plumbing.AnyObject, hash)
	if err != nil {
		return 0, err
	}
	return object.Size(), nil
}

func (s storage) HasEncodedObject(hash plumbing.Hash) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Storage.HasEncodedObject(hash)
}

func (s storage) HashesWithPrefix(prefix []byte) ([]plumbing.Hash, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Storage.HashesWithPrefix(prefix)
}
