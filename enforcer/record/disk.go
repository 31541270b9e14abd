//go:build linux

package record

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/weir-policy/weir/simulator/flowline"
)

// record is what one line of a file says.
type record struct {
	line
	sum
}

// unit is what is written at once: all of it, with the checkpoint, or nothing.
type unit struct {
	at         time.Time
	records    []record
	losses     []flowline.Loss
	lost       map[string]uint64 // what the book lost so far
	checkpoint *checkpoint
}

// disk writes records to files in a directory. Each of them consists of whole frames of
// zstd, so that it can be read while it grows.
type disk struct {
	options Options
	wake    chan struct{}
	packer  *zstd.Encoder
	sender  *sender // hears of the files; nil where nothing is sent

	mutex   sync.Mutex
	pending *unit
	written Counts // Records, Bytes, Removed and Lost of it

	// Only run uses these.
	files  []file
	grows  *os.File // the last of the files
	lock   *os.File
	spent  int64             // bytes of the files and the checkpoint
	noted  int64             // bytes of the checkpoint
	told   map[string]uint64 // what of the losses is written down
	toldAt time.Time
}

const (
	filePrefix     = "flows-"
	fileSuffix     = ".jsonl.zst"
	checkpointName = "checkpoint"
	// mostPending is how many records wait for room on the disk.
	mostPending = 1 << 17
	// retry is how long the disk is left alone after it had no room.
	retry = time.Second
)

func newDisk(o Options) *disk {
	return &disk{options: o, wake: make(chan struct{}, 1), told: map[string]uint64{}, written: Counts{Lost: map[string]uint64{}}}
}

// open finds out what is in the directory: the checkpoint, unless there is none, and the
// files as it knows them. What is behind that was never finished.
func (d *disk) open() (*checkpoint, error) {
	if d.options.Dir == "" {
		return nil, nil
	}
	if err := os.MkdirAll(d.options.Dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if d.lock, err = os.OpenFile(d.path("lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: another recorder writes here: %w", d.options.Dir, err), d.lock.Close())
	}
	if d.packer, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1)); err != nil {
		return nil, err
	}
	names, err := d.list()
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(d.path(checkpointName))
	var c *checkpoint
	if err == nil {
		d.noted = int64(len(text))
		if c, err = decodeCheckpoint(text); err != nil {
			d.options.Log(fmt.Errorf("%s: %w; connections that are open are recorded as if they were new", d.path(checkpointName), err))
			c = nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	known := map[string]file{}
	last := ""
	if c != nil {
		for _, f := range c.Files {
			known[f.Name], last = f, f.Name
		}
	}
	for _, name := range names {
		info, err := os.Stat(d.path(name))
		if err != nil {
			return nil, err
		}
		f := file{Name: name, Bytes: info.Size()}
		if of, ok := known[name]; ok {
			f.Records = of.Records
			if f.Bytes > of.Bytes {
				if err := os.Truncate(d.path(name), of.Bytes); err != nil {
					return nil, err
				}
				f.Bytes = of.Bytes
			}
		} else if c != nil && name > last {
			if err := os.Remove(d.path(name)); err != nil {
				return nil, err
			}
			continue
		}
		d.files = append(d.files, f)
		d.spent += f.Bytes
	}
	d.spent += d.noted
	d.tellSender()
	return c, nil
}

func (d *disk) path(name string) string { return filepath.Join(d.options.Dir, name) }

// list returns the names of the files, the oldest first.
func (d *disk) list() ([]string, error) {
	entries, err := os.ReadDir(d.options.Dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if n := e.Name(); strings.HasPrefix(n, filePrefix) && strings.HasSuffix(n, fileSuffix) {
			names = append(names, n)
		}
	}
	return names, nil
}

// put hands over what is to be written, and never waits. What waits already is written
// with it.
func (d *disk) put(u *unit) {
	if d.options.Dir == "" {
		return
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.pending = d.merge(d.pending, u)
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// merge makes one of what waited and what comes.
func (d *disk) merge(first, then *unit) *unit {
	switch {
	case then == nil:
		return first
	case first != nil:
		then.records = append(first.records, then.records...)
		then.losses = append(first.losses, then.losses...)
	}
	if more := len(then.records) - mostPending; more > 0 && d.options.Dir != "" && first != nil {
		for i := range then.records[:more] {
			d.written.Lost[lostDisk] += max(1, then.records[i].count)
		}
		then.records = slices.Delete(then.records, 0, more)
	}
	return then
}

// run writes what is put until ctx ends, and then what is left.
func (d *disk) run(ctx context.Context) {
	for ended := false; !ended; {
		select {
		case <-ctx.Done():
			ended = true
		case <-d.wake:
		}
		d.mutex.Lock()
		u := d.pending
		d.pending = nil
		d.mutex.Unlock()
		if u == nil || d.options.Dir == "" {
			continue
		}
		err := d.write(u)
		if err == nil {
			continue
		}
		d.options.Log(fmt.Errorf("write records: %w; they are tried again", err))
		d.mutex.Lock()
		d.pending = d.merge(u, d.pending)
		if ended {
			for i := range d.pending.records {
				d.written.Lost[lostDisk] += max(1, d.pending.records[i].count)
			}
		}
		d.mutex.Unlock()
		if !ended {
			select {
			case <-ctx.Done():
			case <-time.After(retry):
			}
			select {
			case d.wake <- struct{}{}:
			default:
			}
		}
	}
	if err := d.close(); err != nil {
		d.options.Log(fmt.Errorf("write records: %w", err))
	}
}

// close lets go of the directory.
func (d *disk) close() error {
	var errs []error
	for _, f := range []*os.File{d.grows, d.lock} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	d.grows, d.lock = nil, nil
	return errors.Join(errs...)
}

// write writes a unit, or makes the files what they were.
func (d *disk) write(u *unit) (err error) {
	before := slices.Clone(d.files)
	records, size := uint64(0), int64(0)
	defer func() {
		if err != nil {
			err = errors.Join(err, d.back(before))
			return
		}
		d.mutex.Lock()
		d.written.Records += records
		d.written.Bytes += uint64(size)
		d.mutex.Unlock()
	}()
	losses := d.lossesOf(u)
	var text []byte
	inText := uint64(0)
	most := int(min(1<<20, max(1<<14, d.options.MaxBytes/32)))
	ready := func() error {
		n, err := d.append(text, inText)
		records, size = records+inText, size+n
		text, inText = text[:0], 0
		return err
	}
	slices.SortFunc(u.records, func(a, b record) int { return cmp.Compare(a.first, b.first) })
	for i := range u.records {
		line, err := flowline.Encode(flowOf(u.records[i].line, &u.records[i].sum))
		if err != nil {
			return err
		}
		text = append(append(text, line...), '\n')
		if inText++; len(text) >= most {
			if err := ready(); err != nil {
				return err
			}
		}
	}
	for _, l := range losses {
		line, err := flowline.EncodeLoss(l)
		if err != nil {
			return err
		}
		text = append(append(text, line...), '\n')
	}
	if len(text) > 0 {
		if err := ready(); err != nil {
			return err
		}
	}
	if err := d.note(u.checkpoint); err != nil {
		return err
	}
	d.mutex.Lock()
	for _, l := range losses {
		d.told[l.Cause] += l.Count
	}
	d.mutex.Unlock()
	d.toldAt = u.at
	d.tellSender()
	return nil
}

// lossesOf returns what is lost and not written down yet.
func (d *disk) lossesOf(u *unit) []flowline.Loss {
	lost := maps.Clone(u.lost)
	if lost == nil {
		lost = map[string]uint64{}
	}
	d.mutex.Lock()
	for cause, n := range d.written.Lost {
		lost[cause] += n
	}
	d.mutex.Unlock()
	all := u.losses
	for _, cause := range slices.Sorted(maps.Keys(lost)) {
		if n := lost[cause] - d.told[cause]; n > 0 {
			all = append(all, flowline.Loss{Node: d.options.Node, First: d.toldAt, Last: u.at, Cause: cause, Count: n})
		}
	}
	return all
}

func (d *disk) tellSender() {
	if d.sender != nil {
		d.sender.wrote(d.files)
	}
}

// lose counts what is lost.
func (d *disk) lose(cause string, n uint64) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.written.Lost[cause] += n
}

// fileSize is what a file may grow to.
func (d *disk) fileSize() int64 { return min(64<<20, d.options.MaxBytes/8) }

// append adds a frame to the file that grows, or begins another one.
func (d *disk) append(text []byte, records uint64) (int64, error) {
	frame := d.packer.EncodeAll(text, nil)
	size := int64(len(frame))
	if d.grows == nil || d.files[len(d.files)-1].Bytes+size > d.fileSize() {
		if err := d.begin(); err != nil {
			return 0, err
		}
	}
	// The checkpoint is there twice for a moment.
	for d.spent+size+d.noted > d.options.MaxBytes {
		if len(d.files) < 2 {
			return 0, fmt.Errorf("%d bytes have no room in %d: give the records more", size, d.options.MaxBytes)
		}
		if err := os.Remove(d.path(d.files[0].Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
		d.spent -= d.files[0].Bytes
		d.mutex.Lock()
		d.written.Removed += d.files[0].Records
		d.mutex.Unlock()
		if d.sender != nil {
			d.sender.went(d.files[0])
		}
		d.files = d.files[1:]
	}
	f := &d.files[len(d.files)-1]
	n, err := d.grows.WriteAt(frame, f.Bytes)
	if err != nil {
		return 0, err
	}
	f.Bytes += int64(n)
	f.Records += records
	d.spent += int64(n)
	return int64(n), nil
}

// begin begins another file.
func (d *disk) begin() error {
	if d.grows != nil {
		if err := d.grows.Close(); err != nil {
			return err
		}
		d.grows = nil
	}
	at := d.options.Clock().UTC()
	name := filePrefix + at.Format("20060102T150405.000000000") + fileSuffix
	for n := len(d.files); n > 0 && name <= d.files[n-1].Name; { // the clock was set back, or stood
		last := strings.TrimSuffix(strings.TrimPrefix(d.files[n-1].Name, filePrefix), fileSuffix)
		name = filePrefix + last + "+" + fileSuffix
	}
	grows, err := os.OpenFile(d.path(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	d.grows = grows
	d.files = append(d.files, file{Name: name})
	return nil
}

// back makes the files what they were, but for those that went.
func (d *disk) back(before []file) error {
	var errs []error
	was := map[string]file{}
	for _, f := range before {
		was[f.Name] = f
	}
	for i := len(d.files) - 1; i >= 0; i-- {
		f := &d.files[i]
		old, was := was[f.Name]
		switch {
		case was && old.Bytes == f.Bytes:
			// A frame may stand behind its end that was not written whole.
			if i == len(d.files)-1 && d.grows != nil {
				errs = append(errs, d.grows.Truncate(f.Bytes))
			}
		case was:
			errs = append(errs, os.Truncate(d.path(f.Name), old.Bytes))
			d.spent -= f.Bytes - old.Bytes
			*f = old
		default:
			errs = append(errs, os.Remove(d.path(f.Name)))
			d.spent -= f.Bytes
			d.files = slices.Delete(d.files, i, i+1)
			if d.grows != nil && i == len(d.files) {
				errs = append(errs, d.grows.Close())
				d.grows = nil
			}
		}
	}
	return errors.Join(errs...)
}

// note writes the checkpoint.
func (d *disk) note(c *checkpoint) error {
	c.Files = d.files
	text, err := c.encode()
	if err != nil {
		return err
	}
	name := d.path(checkpointName)
	if err := os.WriteFile(name+".new", text, 0o600); err != nil {
		return errors.Join(err, os.Remove(name+".new"))
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	d.spent += int64(len(text)) - d.noted
	d.noted = int64(len(text))
	return nil
}

// count adds to what is counted.
func (d *disk) count(c *Counts) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	c.Records, c.Bytes, c.Removed = d.written.Records, d.written.Bytes, d.written.Removed
	for cause, n := range d.written.Lost {
		c.Lost[cause] += n
	}
}
