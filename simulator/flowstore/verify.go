package flowstore

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Verify reads every file through, and returns all that is wrong: files that
// are missing, changed or cut off, tuples that do not have the flows that they
// stand for, and files older than the grace that no commit names. Each error names
// the file and says what to do.
func (s *Store) Verify(ctx context.Context, now time.Time, progress Progress) []error {
	st, err := s.refresh(ctx)
	if err != nil {
		return []error{err}
	}
	errs := s.verifyCommitted(ctx, st, now)
	var total, done int64
	for _, f := range st.files {
		total += f.Size
	}
	damaged := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(st.files)) {
		f := st.files[name]
		if err := s.verifyFile(ctx, f); err != nil {
			if ctx.Err() != nil {
				return append(errs, ctx.Err())
			}
			damaged[name] = true
			errs = append(errs, err)
		}
		done += f.Size
		if progress != nil {
			progress(done, total)
		}
	}
	for _, f := range slices.SortedFunc(maps.Values(st.files), func(a, b File) int { return a.Hour.Compare(b.Hour) }) {
		if damaged[f.Name] {
			continue
		}
		var err error
		switch f.Kind {
		case sorted:
			err = s.verifyTuples(ctx, st, f, damaged)
		case whole:
			err = s.verifyDay(ctx, st, f, damaged)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// verifyCommitted looks for files that no commit names. A process that was killed
// leaves such behind, and so does whoever removes the newest entry of the manifest:
// nothing else tells that there was one.
func (s *Store) verifyCommitted(ctx context.Context, st *state, now time.Time) []error {
	var some []string
	for _, under := range dataFolders {
		err := s.blobs.list(ctx, under, "", func(e entry) error {
			if st.uncommitted(e.name) && e.modified.Before(now.Add(-s.options.Grace)) {
				some = append(some, e.name)
			}
			return nil
		})
		if err != nil {
			return []error{err}
		}
	}
	if len(some) == 0 {
		return nil
	}
	what := "no commit names it"
	if len(some) > 1 {
		what = fmt.Sprintf("no commit names it and %d more", len(some)-1)
	}
	return []error{fmt.Errorf("%s/%s: %s; compact removes what a killed process left behind, but if the newest files of %s/%s were removed, bring those back first",
		s.blobs, some[0], what, s.blobs, strings.TrimSuffix(logFolder, "/"))}
}

func (s *Store) verifyFile(ctx context.Context, f File) error {
	b, err := s.openFile(ctx, f)
	if err != nil {
		return err
	}
	defer b.close()
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(b, 0, b.size())); err != nil {
		return fmt.Errorf("%s: %w", b.name(), err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != f.SHA256 {
		return fmt.Errorf("%s: its SHA-256 is %s instead of %s: it was changed; bring it back from a copy", b.name(), got, f.SHA256)
	}
	layout := flowLayout
	switch f.Kind {
	case hourly, daily:
		layout = rollLayout
	case whole:
		layout = wholeLayout
	}
	g, err := newGroupReader(b, layout, nil)
	if err != nil {
		return err
	}
	var rows int64
	for {
		n, err := g.read()
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		rows += int64(n)
	}
	if rows != f.Rows {
		return fmt.Errorf("%s: it has %d rows instead of %d", b.name(), rows, f.Rows)
	}
	if err := layout.checkEncodings(g.file.MetaData()); err != nil {
		return fmt.Errorf("%s: %w", b.name(), err)
	}
	return nil
}

// verifyTuples compares the records of a sorted file, tuple by tuple, with what
// replay reads in their place.
func (s *Store) verifyTuples(ctx context.Context, st *state, f File, damaged map[string]bool) error {
	counts := map[uint64]uint64{}
	if err := s.countTuples(ctx, f, func(tuple, n uint64) { counts[tuple] += n }); err != nil {
		return err
	}
	var of []File
	for _, t := range st.files {
		if (t.Kind == hourly || t.Kind == daily) && slices.Contains(t.Of, f.Name) {
			if damaged[t.Name] {
				return nil
			}
			of = append(of, t)
		}
	}
	if len(of) != 1 {
		return fmt.Errorf("%s/%s: %d files have its tuples instead of 1; the manifest is damaged", s.blobs, f.Name, len(of))
	}
	readers, err := s.openRolls(ctx, st, of, rollNumbers, func(hour int64) bool { return hour == f.Hour.UnixMicro() })
	if err != nil {
		return err
	}
	defer closeAll(readers)
	for {
		more, err := readers[0].next()
		if err != nil {
			return err
		}
		if !more {
			break
		}
		counts[readers[0].now.id] -= uint64(readers[0].now.rows)
	}
	for _, n := range counts {
		if n != 0 {
			return errors.New(s.blobs.String() + "/" + of[0].Name + ": its tuples do not have as many records as " + f.Name + "; remove the hour and import it again")
		}
	}
	return nil
}

// verifyDay compares what the tuples of a day come to with their hours.
func (s *Store) verifyDay(ctx context.Context, st *state, day File, damaged map[string]bool) error {
	files := []File{day}
	for _, f := range st.files {
		if f.Kind == daily && slices.Equal(f.Of, day.Of) {
			files = append(files, f)
		}
	}
	if len(files) != 2 {
		return fmt.Errorf("%s/%s: %d files have the hours of its day instead of 1; the manifest is damaged", s.blobs, day.Name, len(files)-1)
	}
	if damaged[files[1].Name] {
		return nil
	}
	var readers []*rollReader
	defer func() { closeAll(readers) }()
	for i, l := range []*layout{wholeLayout, rollLayout} {
		b, err := s.openFile(ctx, files[i])
		if err != nil {
			return err
		}
		r, err := newRollReader(b, l, append(slices.Clone(tupleNumbers), rollByHour), nil)
		if err != nil {
			return err
		}
		readers = append(readers, r)
	}
	var sums [2]tupleSums // of the tuple, by the day and by its hours
	var hours [2]hoursBySide
	var tuple uint64
	compare := func() error {
		for i := range sums {
			slices.SortFunc(sums[i].sides, func(a, b sideSum) int { return cmp.Compare(a.key, b.key) })
			slices.SortFunc(hours[i], func(a, b sideHours) int { return cmp.Compare(a.key, b.key) })
		}
		if !slices.EqualFunc(sums[0].sides, sums[1].sides, func(a, b sideSum) bool {
			return a.key == b.key && a.flows == b.flows && a.bytes == b.bytes && a.first == b.first && a.last == b.last
		}) || !slices.EqualFunc(hours[0], hours[1], func(a, b sideHours) bool { return a.key == b.key && slices.Equal(a.hours, b.hours) }) {
			return fmt.Errorf("%s/%s: tuple %d does not come to what its hours in %s do; remove the day and import it again", s.blobs, day.Name, tuple, files[1].Name)
		}
		for i := range sums {
			sums[i].sides, hours[i] = sums[i].sides[:0], hours[i][:0]
		}
		return nil
	}
	tuples := [2]knownTuple{{first: -1}, {first: -1}}
	err := mergeTuples(ctx, readers, func(r *rollReader) (err error) {
		if r.now.id != tuple {
			if err := compare(); err != nil {
				return err
			}
			tuple, tuples = r.now.id, [2]knownTuple{{first: -1}, {first: -1}}
		}
		which := slices.Index(readers, r)
		sums[which].addTo(&tuples[which], r)
		hours[which], err = r.addHours(hours[which])
		return err
	})
	return cmp.Or(err, compare())
}
