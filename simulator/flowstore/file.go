package flowstore

import (
	"context"
	"io"
	"os"
	"path/filepath"

	"github.com/weir-policy/weir/policies"
)

// FileWriter writes flows as one Parquet file of a store's columns, for others to
// read. It is not safe for concurrent use.
type FileWriter struct {
	groups *groupWriter
	table  *table
	rows   []row
}

// maxFileRows and maxFileTexts bound what a FileWriter holds, and its row groups.
const (
	maxFileRows  = 1 << 20
	maxFileTexts = 256 << 20
)

// NewFileWriter returns a FileWriter to w.
func NewFileWriter(w io.Writer) (*FileWriter, error) {
	g, err := newGroupWriter(w, flowLayout)
	return &FileWriter{groups: g, table: newTable()}, err
}

// Write takes one flow. The flow's maps and slices must not change afterwards.
func (w *FileWriter) Write(f policies.Flow) error {
	w.rows = append(w.rows, w.table.row(&f))
	if len(w.rows) < maxFileRows && w.table.size < maxFileTexts {
		return nil
	}
	return w.writeGroup()
}

func (w *FileWriter) writeGroup() error {
	sortByTime(w.rows)
	err := w.groups.write(w.table.flowVectors(w.rows))
	w.rows, w.table = w.rows[:0], newTable()
	return err
}

// Flush writes the rest and ends the file.
func (w *FileWriter) Flush() error {
	if len(w.rows) > 0 {
		if err := w.writeGroup(); err != nil {
			return err
		}
	}
	return w.groups.close()
}

// ReadFile calls each for every flow of a file, if it is one of those of which a
// store is made, or that a FileWriter wrote. The flows' maps and slices are shared.
func ReadFile(ctx context.Context, f *os.File, each func(policies.Flow) error) (isOne bool, err error) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return false, err
	}
	r, err := newFlowReader(&localBlob{f, info.Size(), f.Name()}, newTable())
	if err != nil {
		return false, nil //nolint:nilerr // it is a file of another kind, or will be told to be damaged as one
	}
	line, every := 0, func() bool { return true }
	return true, r.eachGroup(ctx, every, func(rows []row) error {
		if r.table.size > maxFileTexts {
			defer r.setTable(newTable())
		}
		for i := range rows {
			flow, err := r.table.flow(&rows[i])
			if err != nil {
				return r.damage(err)
			}
			line++
			flow.Record = policies.Place{File: filepath.ToSlash(filepath.Clean(f.Name())), Line: line}
			if err := each(flow); err != nil {
				return err
			}
		}
		return nil
	})
}
