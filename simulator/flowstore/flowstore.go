// Package flowstore keeps recorded flows as Parquet files, in a local folder or
// in S3-compatible storage.
//
// Flows come in as files in order of time. Compact sorts those of each closed
// hour by tuple, what is decided once, and writes beside them what each tuple
// came to: replay reads those, and the flows themselves only where a verdict
// changes. A manifest says which files count, so that readers see all of a
// commit or nothing of it, whatever else happens. docs/flow-store.md describes
// the files for other readers.
package flowstore

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// Options say how a store is to be used. The zero Options are fine.
type Options struct {
	ReadOnly bool // fail where there is no store, instead of making one
	// Memory is about how many bytes importing and compacting may hold; it also
	// bounds row groups, and of how many tuples sums are held: of one for every 4 KiB,
	// in 150 bytes. It is 1 GiB where it is zero.
	Memory int64
	// Settle is for how long after its end an hour is still open for records that
	// come late; an hour where it is zero.
	Settle time.Duration
	// Grace is how long a file that is not needed any more stays for those who
	// still read it; a quarter of an hour where it is zero.
	Grace time.Duration
	S3    S3
}

// Store is a store of flows. It may be used by several goroutines, and by
// several processes at a time.
type Store struct {
	blobs   blobs
	options Options
	known   atomic.Pointer[state]
}

// Open opens the store at a local folder or at s3://bucket/prefix, behind which
// parameters may say where that is: ?endpoint=URL&region=NAME&path-style=true. They
// count more than the options.
func Open(ctx context.Context, where string, o Options) (*Store, error) {
	if o.Memory == 0 {
		o.Memory = 1 << 30
	}
	if o.Settle == 0 {
		o.Settle = time.Hour
	}
	if o.Grace == 0 {
		o.Grace = 15 * time.Minute
	}
	var b blobs
	var err error
	if rest, ok := strings.CutPrefix(where, "s3://"); ok {
		b, err = openBucket(ctx, rest, o)
	} else {
		if newer := newerVersion(where); newer != "" {
			return nil, fmt.Errorf("%s is a flow store of a newer version, %s; this weir knows v1", where, newer)
		}
		b, err = openFolder(where+"/v1", !o.ReadOnly)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no flow store at %s; make one with: weir flows import --store %s FILE", where, where)
	}
	if err != nil {
		return nil, fmt.Errorf("open flow store %s: %w", where, err)
	}
	return open(ctx, b, o)
}

// newerVersion returns the version of a folder's store where it is not ours.
func newerVersion(where string) string {
	for n := 9; n > 1; n-- {
		version := fmt.Sprint("v", n)
		if _, err := os.Stat(filepath.Join(where, version, logFolder)); err == nil {
			return version
		}
	}
	return ""
}

func open(ctx context.Context, b blobs, o Options) (*Store, error) {
	s := &Store{blobs: b, options: o}
	s.known.Store(newState())
	if _, err := s.refresh(ctx); err != nil {
		return nil, fmt.Errorf("open flow store: %w", err)
	}
	return s, nil
}

// groupRows is how many rows a row group has at most.
func (s *Store) groupRows() int {
	return int(max(1024, min(10_000_000, s.options.Memory/rowSize)))
}

// tableSize is how large the texts of rows may become, about.
func (s *Store) tableSize() int { return int(max(1<<20, s.options.Memory/4)) }

// write stores a file that fill writes, and fills in what the manifest is to
// say of it: its name, size and checksum.
func (s *Store) write(ctx context.Context, f *File, fill func(io.Writer) error) error {
	f.Name = s.nameOf(f)
	if err := s.put(ctx, f, fill); err != nil {
		if errors.Is(err, ErrNoSpace) {
			return fmt.Errorf("write %s/%s: %w; what was committed before is safe, nothing of this was; free some space and do it again", s.blobs, f.Name, err)
		}
		return fmt.Errorf("write %s/%s: %w", s.blobs, f.Name, err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, f *File, fill func(io.Writer) error) error {
	spooled, err := s.blobs.spool()
	if err != nil {
		return err
	}
	defer discard(spooled)
	sum := &summed{to: spooled, hash: sha256.New()}
	if err := fill(sum); err != nil {
		return err
	}
	f.Size, f.SHA256 = sum.size, hex.EncodeToString(sum.hash.Sum(nil))
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.blobs.put(ctx, f.Name, spooled)
}

// nameOf makes up a name: flows of hours lie in folders that other readers
// know as partitions.
func (s *Store) nameOf(f *File) string {
	day, unique := "day="+f.Hour.UTC().Format(time.DateOnly), strings.ToLower(rand.Text()[:16])
	switch f.Kind {
	case raw, sorted:
		return fmt.Sprintf("flows/%s/hour=%02d/%s-%s.parquet", day, f.Hour.UTC().Hour(), f.Kind, unique)
	case hourly:
		return fmt.Sprintf("tuples/%s/hour-%02d-%s.parquet", day, f.Hour.UTC().Hour(), unique)
	}
	if f.Kind == whole {
		return fmt.Sprintf("tuples/%s/whole-%s.parquet", day, unique)
	}
	return fmt.Sprintf("tuples/%s/day-%s.parquet", day, unique)
}

// summed counts and sums what is written.
type summed struct {
	to   *os.File
	hash interface {
		io.Writer
		Sum([]byte) []byte
	}
	size int64
}

func (s *summed) Write(b []byte) (int, error) {
	n, err := s.to.Write(b)
	s.hash.Write(b[:n]) //nolint:errcheck // a hash never fails
	s.size += int64(n)
	return n, err
}
