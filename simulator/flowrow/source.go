package flowrow

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"time"
)

// Source is a file that was imported, or that much of it.
type Source struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	Flows  uint64 `json:"flows"` // how many of its flows are in the store
	Whole  bool   `json:"whole,omitempty"`
	// Partly is how it was read, where not all of it could be.
	Partly string `json:"partly,omitempty"`
	// Replaced is when the file was imported again, having grown.
	Replaced time.Time `json:"replaced,omitzero"`
}

// SourceKey tells files apart by what is in them.
type SourceKey struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Key returns the source's key.
func (s *Source) Key() SourceKey { return SourceKey{s.Size, s.SHA256} }

// Identify reads a file through, and says what is known of it or, where it has
// grown since, of what it was: before is that one's key. It leaves the file at
// its start. How is how it is about to be read, as in "with --flow-format calico"; it
// fails where that was another way which could not read all, for flows are known by
// how many came before them.
func Identify(ctx context.Context, name, how string, file io.ReadSeeker, known map[SourceKey]Source) (s Source, before SourceKey, err error) {
	var sizes []int64
	for key := range known {
		sizes = append(sizes, key.Size)
	}
	slices.Sort(sizes)
	sum, at, found := sha256.New(), int64(0), Source{}
	for _, size := range slices.Compact(sizes) {
		if size == 0 {
			continue
		}
		n, err := io.CopyN(sum, file, size-at)
		if at += n; err == io.EOF {
			break
		}
		if err != nil {
			return Source{}, SourceKey{}, fmt.Errorf("%s: %w", name, err)
		}
		if earlier, ok := known[SourceKey{at, hex.EncodeToString(sum.Sum(nil))}]; ok {
			found = earlier
		}
		if err := ctx.Err(); err != nil {
			return Source{}, SourceKey{}, err
		}
	}
	n, err := io.Copy(sum, file)
	if err != nil {
		return Source{}, SourceKey{}, fmt.Errorf("%s: %w", name, err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return Source{}, SourceKey{}, fmt.Errorf("%s: %w", name, err)
	}
	at += n
	if found.Flows > 0 && found.Partly != "" && found.Partly != how {
		return Source{}, SourceKey{}, fmt.Errorf("%s: %d of its flows are stored, read %s, which left lines that cannot be read so; nobody can tell them from those that are read %s: read it as before, or import it into another store",
			name, found.Flows, found.Partly, how)
	}
	// Where nothing was read, it may have been read as another format.
	whole := found.Whole && found.Size == at && found.Flows > 0
	return Source{Name: name, Size: at, SHA256: hex.EncodeToString(sum.Sum(nil)), Flows: found.Flows, Whole: whole}, found.Key(), nil
}

// Imported is what became of a file.
type Imported struct {
	Added uint64 // flows that are new in the store
	Known uint64 // flows that were in it from an earlier import of the file
}
