package flowstore

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/weir-policy/weir/simulator/flowrow"
)

// The manifest is a log: one small file for each commit, numbered, that says
// which files it adds and removes. Whoever creates the next number has
// committed; whoever finds it taken reads what others did, and tries the number
// after it. Now and then a file sums up all commits before it, so that nobody
// reads from the start.

const (
	logFolder    = "manifest/"
	logName      = logFolder + "%016d.json"
	summaryName  = logFolder + "%016d.all.json"
	summaryEvery = 64
)

// kind is what a file of the store holds.
type kind string

const (
	raw    kind = "raw"    // flows of an hour, by time
	sorted kind = "sorted" // flows of an hour, by tuple
	hourly kind = "hourly" // the tuples of an hour
	daily  kind = "daily"  // the tuples of a day, by hour
	whole  kind = "whole"  // the tuples of a day
)

// UnmarshalText reads a kind. One that is not known must not pass for no flows.
func (k *kind) UnmarshalText(text []byte) error {
	switch kind(text) {
	case raw, sorted, hourly, daily, whole:
		*k = kind(text)
		return nil
	}
	return fmt.Errorf("%q is no kind of file that this version of weir knows; a newer one wrote it", text)
}

// File is one file of the store, as the manifest knows it.
type File struct {
	Name   string    `json:"name"`
	Kind   kind      `json:"kind"`
	Hour   time.Time `json:"hour"` // the first of the day, for the file of a day
	Size   int64     `json:"size"`
	Rows   int64     `json:"rows"`
	Flows  uint64    `json:"flows"`          // aggregates counted by what they stand for
	First  time.Time `json:"first,omitzero"` // the earliest start
	Last   time.Time `json:"last,omitzero"`  // the latest end
	SHA256 string    `json:"sha256"`
	// Of names the sorted files whose tuples these are.
	Of []string `json:"of,omitempty"`
}

// commit is one entry of the log.
type commit struct {
	ID     string    `json:"id"` // random: tells whose an entry is
	At     time.Time `json:"at,omitzero"`
	Add    []File    `json:"add,omitempty"`
	Remove []string  `json:"remove,omitempty"`
	// Forget names files that nobody has committed for long, and nobody may now.
	Forget []string        `json:"forget,omitempty"`
	Source *flowrow.Source `json:"source,omitempty"`
	// Grown is what the source was when it was imported before under its name.
	Grown *flowrow.SourceKey `json:"grown,omitempty"`
	// Batches are those whose flows are among what is added.
	Batches []BatchKey `json:"batches,omitempty"`
}

// state is what all commits up to one come to.
type state struct {
	seq     uint64
	files   map[string]File
	sources map[flowrow.SourceKey]flowrow.Source
	senders map[string]sender
	gone    map[string]time.Time // files that were removed, and when
}

// remembered is for how long the manifest tells when a file was removed, what
// a sender has sent, and what a source was before it grew. A file that is still there afterwards is removed whatever
// its age.
const remembered = 7 * 24 * time.Hour

// summary is a state as it is stored.
type summary struct {
	Seq     uint64               `json:"seq"`
	Files   []File               `json:"files"`
	Sources []flowrow.Source     `json:"sources"`
	Senders []sender             `json:"senders,omitempty"`
	Gone    map[string]time.Time `json:"gone"`
}

func newState() *state {
	return &state{files: map[string]File{}, sources: map[flowrow.SourceKey]flowrow.Source{}, senders: map[string]sender{}, gone: map[string]time.Time{}}
}

func (s *state) clone() *state {
	return &state{s.seq, maps.Clone(s.files), maps.Clone(s.sources), maps.Clone(s.senders), maps.Clone(s.gone)}
}

// allows says why a commit cannot follow the state; nil where it can.
func (s *state) allows(c *commit) error {
	for _, name := range c.Remove {
		if _, ok := s.files[name]; !ok {
			return errOvertaken
		}
	}
	for _, f := range c.Add {
		if _, ok := s.gone[f.Name]; ok {
			return errOvertaken
		}
	}
	return nil
}

// errOvertaken is the end of work whose ground somebody else has changed.
var errOvertaken = errors.New("the store was changed meanwhile by another process")

func (s *state) apply(c *commit) {
	s.seq++
	maps.DeleteFunc(s.gone, func(_ string, at time.Time) bool { return at.Before(c.At.Add(-remembered)) })
	maps.DeleteFunc(s.senders, func(_ string, known sender) bool { return known.At.Before(c.At.Add(-remembered)) })
	maps.DeleteFunc(s.sources, func(_ flowrow.SourceKey, known flowrow.Source) bool {
		return !known.Replaced.IsZero() && known.Replaced.Before(c.At.Add(-remembered))
	})
	for _, name := range slices.Concat(c.Remove, c.Forget) {
		delete(s.files, name)
		s.gone[name] = c.At
	}
	for _, f := range c.Add {
		s.files[f.Name] = f
	}
	if c.Grown != nil {
		if before, ok := s.sources[*c.Grown]; ok && before.Replaced.IsZero() {
			before.Replaced = c.At
			s.sources[*c.Grown] = before
		}
	}
	if c.Source != nil {
		s.sources[c.Source.Key()] = *c.Source
	}
	for _, key := range c.Batches {
		s.senders[key.Sender] = s.senders[key.Sender].with(key, c.At)
	}
}

func (s *state) summary() *summary {
	sum := &summary{Seq: s.seq, Gone: s.gone}
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		sum.Files = append(sum.Files, s.files[name])
	}
	for _, src := range s.sources {
		sum.Sources = append(sum.Sources, src)
	}
	slices.SortFunc(sum.Sources, func(a, b flowrow.Source) int { return strings.Compare(a.SHA256, b.SHA256) })
	for _, name := range slices.Sorted(maps.Keys(s.senders)) {
		sum.Senders = append(sum.Senders, s.senders[name])
	}
	return sum
}

func (s *summary) state() *state {
	st := newState()
	st.seq = s.Seq
	for _, f := range s.Files {
		st.files[f.Name] = f
	}
	for _, src := range s.Sources {
		st.sources[src.Key()] = src
	}
	for _, known := range s.Senders {
		st.senders[known.Name] = known
	}
	maps.Copy(st.gone, s.Gone)
	return st
}

// refresh returns the state after a known one, or the same where nothing new
// has happened.
func refresh(ctx context.Context, b blobs, known *state) (*state, error) {
	for {
		st, again, err := follow(ctx, b, known)
		if err != nil || !again {
			return st, err
		}
		known = newState() // entries between were summed up and removed
	}
}

func follow(ctx context.Context, b blobs, known *state) (st *state, again bool, err error) {
	var entries []string
	var newest string
	err = b.list(ctx, logFolder, fmt.Sprintf(logName, known.seq), func(e entry) error {
		if strings.HasSuffix(e.name, ".all.json") {
			newest = e.name
		} else {
			entries = append(entries, e.name)
		}
		return nil
	})
	if err != nil || len(entries)+len(newest) == 0 {
		return known, false, err
	}
	st = known.clone()
	if first := fmt.Sprintf(logName, known.seq+1); newest != "" && (known.seq == 0 || len(entries) == 0 || entries[0] != first) {
		var sum summary
		if err := readJSON(ctx, b, newest, &sum); err != nil {
			return nil, errors.Is(err, fs.ErrNotExist), err
		}
		st = sum.state()
	}
	for _, name := range entries {
		next := fmt.Sprintf(logName, st.seq+1)
		if name < next {
			continue
		}
		if name > next {
			return nil, false, fmt.Errorf("%s: the manifest has no entry %s: it was removed by hand, or the store was copied while it was written; restore that file", b, next)
		}
		var c commit
		if err := readJSON(ctx, b, name, &c); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil, true, nil
			}
			return nil, false, err
		}
		if err := st.allows(&c); err != nil {
			return nil, false, fmt.Errorf("%s/%s: it removes a file that is not there; the manifest is damaged", b, name)
		}
		st.apply(&c)
	}
	return st, false, nil
}

func readJSON(ctx context.Context, b blobs, name string, to any) error {
	data, err := readAll(ctx, b, name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, to); err != nil {
		return fmt.Errorf("%s/%s: it cannot be read: %w", b, name, err)
	}
	return nil
}

// append commits, and returns the state with it. Check is asked for every state
// that the commit would follow; it may change the commit.
func (s *Store) append(ctx context.Context, c *commit, check func(*state) error) error {
	c.ID = rand.Text()
	for {
		st, err := s.refresh(ctx)
		if err != nil {
			return err
		}
		if err := errors.Join(st.allows(c), check(st)); err != nil {
			return err
		}
		data, err := json.Marshal(c)
		if err != nil {
			return err
		}
		name := fmt.Sprintf(logName, st.seq+1)
		err = s.blobs.putNew(ctx, name, append(data, '\n'))
		if errors.Is(err, fs.ErrExist) {
			var theirs commit
			if err := readJSON(ctx, s.blobs, name, &theirs); err != nil {
				return err
			}
			if theirs.ID != c.ID { // else the answer to our own was lost
				continue
			}
			err = nil
		}
		if err != nil {
			return fmt.Errorf("commit to %s: %w", s.blobs, err)
		}
		next := st.clone()
		next.apply(c)
		s.known.Store(next)
		if next.seq%summaryEvery == 0 {
			return s.sumUp(ctx, next)
		}
		return nil
	}
}

// sumUp stores a state. All that do it for the same number store the same.
func (s *Store) sumUp(ctx context.Context, st *state) error {
	data, err := json.Marshal(st.summary())
	if err != nil {
		return err
	}
	err = s.blobs.putNew(ctx, fmt.Sprintf(summaryName, st.seq), append(data, '\n'))
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// refresh returns the state of now.
func (s *Store) refresh(ctx context.Context) (*state, error) {
	st, err := refresh(ctx, s.blobs, s.known.Load())
	if err != nil {
		return nil, err
	}
	s.known.Store(st)
	return st, nil
}
