package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/weir-policy/weir/simulator"
	"github.com/weir-policy/weir/simulator/flowstore"
)

// scratches are the files that are open of what does not fit in memory.
type scratches struct {
	interrupted func() error // as of a context
	all         map[*scratch]bool
}

func newScratches(interrupted func() error) *scratches {
	return &scratches{interrupted, map[*scratch]bool{}}
}

// scratch is a file that has no name any more, where the system allows that: it is
// gone when the process is, however that ends.
type scratch struct {
	*os.File
	named bool
	among *scratches
}

// open returns room in the folder for temporary files.
func (s *scratches) open() (simulator.Scratch, error) {
	f, err := os.CreateTemp("", "weir-*.tmp")
	if err != nil {
		return nil, fmt.Errorf("what does not fit in memory has no place: %w; set TMPDIR to a folder that may be written", err)
	}
	one := &scratch{f, os.Remove(f.Name()) != nil, s}
	s.all[one] = true
	return one, nil
}

// close gives up all that are still open, and the space that they take.
func (s *scratches) close() {
	for one := range s.all {
		_ = one.Close() // nobody reads it any more
	}
}

// ReadAt fails once there was an interrupt, as Write does: what is read and written
// here may take minutes.
func (s *scratch) ReadAt(p []byte, at int64) (int, error) {
	if err := s.among.interrupted(); err != nil {
		return 0, err
	}
	return s.File.ReadAt(p, at)
}

func (s *scratch) Write(p []byte) (int, error) {
	if err := s.among.interrupted(); err != nil {
		return 0, err
	}
	n, err := s.File.Write(p)
	if errors.Is(err, flowstore.ErrNoSpace) {
		err = fmt.Errorf("there is no room in %s for what does not fit in memory: %w; free some, or set TMPDIR to a folder with more", filepath.Dir(s.Name()), err)
	}
	return n, err
}

func (s *scratch) Close() error {
	delete(s.among.all, s)
	err := s.File.Close()
	if s.named {
		err = errors.Join(err, os.Remove(s.Name()))
	}
	return err
}
