// Package pack brings the files of a folder from one process to another, as a tar
// archive. Its last entry is the folder itself, which says that all of it arrived.
package pack

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Write writes the files of a folder whose names end in suffix, ".pcapng" say. Of one
// that grows meanwhile it writes what was there when its turn came, and one that goes
// before that is left out. A folder that is not there has no files.
func Write(w io.Writer, dir, suffix string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	to := tar.NewWriter(w)
	for _, e := range entries {
		if !e.Type().IsRegular() || filepath.Ext(e.Name()) != suffix {
			continue
		}
		if err := writeFile(to, filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	err = to.WriteHeader(&tar.Header{Name: end, Typeflag: tar.TypeDir, Mode: 0o700})
	return errors.Join(err, to.Close())
}

const end = "./"

var errEarly = errors.New("what was sent ends early")

func writeFile(to *tar.Writer, name string) (err error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	err = to.WriteHeader(&tar.Header{Name: info.Name(), Size: info.Size(), Mode: 0o600, ModTime: info.ModTime(), Format: tar.FormatPAX})
	if err == nil {
		_, err = io.CopyN(to, f, info.Size())
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Read makes the files that Write wrote in a folder, and returns their names, sorted.
// Each appears as a whole, for its owner alone, in the place of one with the same name. What
// arrived before an error stays. The folder is made where there is a file for it.
func Read(r io.Reader, dir string) (names []string, err error) {
	from := tar.NewReader(r)
	for {
		header, err := from.Next()
		if err == io.EOF {
			return names, errEarly
		}
		if err != nil {
			return names, fmt.Errorf("what was sent is no archive of files: %w", err)
		}
		if header.Name == end {
			slices.Sort(names)
			_, err := io.Copy(io.Discard, r) // so that who writes can end
			return names, err
		}
		if header.Typeflag != tar.TypeReg || filepath.Base(header.Name) != header.Name || !filepath.IsLocal(header.Name) {
			return names, fmt.Errorf("what was sent has %q, which is no file of one folder", header.Name)
		}
		if err := readFile(from, filepath.Join(dir, header.Name)); err != nil {
			return names, err
		}
		names = append(names, header.Name)
	}
}

func readFile(from io.Reader, name string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	part := name + ".new"
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(part, name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(part))
	}
	return nil
}
