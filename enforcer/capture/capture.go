//go:build linux

// Package capture keeps packets of a node's pods in files, as PacketCaptures ask for.
//
// It owns the sockets that see the packets, the folder that holds the files, and when
// to begin and to end. Who wants what of whom it is told by Set.
//
// A filter runs in the kernel: what nobody asked for never leaves it. The ring between
// the two is bounded, so that a disk that is slow loses packets of the capture, which
// are counted, and delays nobody's. The files of a capture, and of all together, are
// bounded, too, and so is what they leave of the disk.
package capture

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// What a capture gets that does not say how much it wants.
const (
	fileBytes = 10_000_000
	rotate    = time.Hour
	files     = 2
)

// Options say where packets are kept, and how many.
type Options struct {
	Netns int    // file descriptor of the node's network namespace; 0 is the caller's
	Dir   string // of the files; it is made, for nobody but its owner to read
	Node  string
	Clock func() time.Time // time.Now unless it is set

	MaxBytesTotal int64 // of all files, 1 GB unless it is set
	MinFreeBytes  int64 // that the disk keeps free, 1 GB unless it is set; below 0 is not looked at
	RingBytes     int   // of memory for each interface, 8 MiB unless it is set
	MaxInterfaces int   // captured at a time, 16 unless it is set

	// Verdict says what the policies make of a connection; nil is nothing, and every
	// verdict is unknown. Its answers are remembered while Generation says the same, if
	// it is set, and Set is not called.
	Verdict    func(Attempt) policies.Verdict
	Generation func() uint64
	// Connections yields the connections that are open, in the direction in which they
	// were opened, each with its ends as either side sees them where that differs. Where
	// it is nil, nobody can tell who opened a connection whose beginning was not seen.
	Connections func(yield func(Attempt) bool) error
	// Warn is told what goes wrong without ending a capture; it may be nil.
	Warn func(error)
}

// Capturer keeps packets.
type Capturer struct {
	options Options
	room    *room
	wake    chan struct{}
	changes atomic.Uint64 // how often Set was called

	mutex  sync.Mutex
	wanted []Request
	set    bool
	states []v1alpha1.PacketCapture

	// Of the goroutine that runs.
	captures map[policies.Ref]*capture
	written  []byte // in the state file
	warned   string // what of it could not be written
	find     func(int, Pod) (device, error)
	open     func(int, device, int, []policies.CaptureFilter, int) (source, error)
}

// capture is one that somebody wants.
type capture struct {
	request Request
	pods    map[policies.Ref]*subject
	before  counts // of pods that are not there any more
}

type counts struct{ packets, bytes, lost int64 }

func (c *counts) add(s *session) {
	c.packets += s.packets.Load()
	c.bytes += s.bytes.Load()
	c.lost += s.lost.Load()
}

// subject is one of its pods.
type subject struct {
	pod     Pod
	session *session
	before  counts // of sessions that are over
	over    bool   // all was kept that was asked for
	failed  error  // why it was given up
	waiting string // why it has not begun
	looked  time.Time
}

// New returns a capturer that does nothing until it runs.
func New(o Options) (*Capturer, error) {
	if o.Dir == "" || o.Node == "" {
		return nil, errors.New("a capturer needs a folder and the name of its node")
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	o.MaxBytesTotal = cmp.Or(o.MaxBytesTotal, 1_000_000_000)
	o.MinFreeBytes = cmp.Or(o.MinFreeBytes, 1_000_000_000)
	o.RingBytes = cmp.Or(o.RingBytes, 8<<20)
	o.MaxInterfaces = cmp.Or(o.MaxInterfaces, 16)
	c := &Capturer{
		options: o, wake: make(chan struct{}, 1), captures: map[policies.Ref]*capture{}, find: find, open: openRing,
		room: &room{dir: o.Dir, most: o.MaxBytesTotal, minFree: o.MinFreeBytes},
	}
	c.room.evict = c.evict
	return c, nil
}

// Set says what is wanted from now on, in place of what was. The files of a capture
// that was wanted and is not any more are removed; those of pods that went away stay.
// Verdicts that were remembered are asked for again.
func (c *Capturer) Set(requests []Request) {
	c.mutex.Lock()
	c.wanted, c.set = slices.Clone(requests), true
	c.mutex.Unlock()
	c.changes.Add(1)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// States returns how each wanted capture is, as its status says it.
func (c *Capturer) States() []v1alpha1.PacketCapture {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return slices.Clone(c.states)
}

// every is how often a capturer looks what time it is, and which pods came and went.
const every = 500 * time.Millisecond

// Run keeps packets until ctx ends. Then all files are whole.
func (c *Capturer) Run(ctx context.Context) error {
	if err := c.prepare(); err != nil {
		return err
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		c.step()
		select {
		case <-ctx.Done():
			for _, capture := range c.captures {
				capture.end(c.options.Clock())
			}
			c.publish()
			return nil
		case <-ticker.C:
		case <-c.wake:
		}
	}
}

// prepare makes the folder, mends what a crash left in it, and counts it.
func (c *Capturer) prepare() error {
	if err := os.MkdirAll(c.options.Dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of captures: %w", err)
	}
	err := filepath.WalkDir(c.options.Dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, v1alpha1.CaptureFileSuffix) || isFinished(entry.Name()) {
			return err
		}
		return mend(path)
	})
	if err != nil {
		return fmt.Errorf("mend captures of before: %w", err)
	}
	used, err := sizeOf(c.options.Dir)
	c.room.give(-used)
	return err
}

// isFinished reports whether a file's name says when it began.
func isFinished(name string) bool {
	name = strings.TrimSuffix(name, v1alpha1.CaptureFileSuffix)
	_, err := time.Parse(stampLayout, name[strings.LastIndex(name, "_")+1:])
	return err == nil
}

// evict removes the oldest folder of a capture that nobody declares.
func (c *Capturer) evict() bool {
	folders, err := filepath.Glob(filepath.Join(c.options.Dir, "*", "*"))
	if err != nil {
		return false
	}
	c.mutex.Lock()
	declared, set := map[string]bool{}, c.set
	for _, r := range c.wanted {
		declared[c.folder(r.Ref)] = true
	}
	c.mutex.Unlock()
	oldest, since := "", time.Time{}
	for _, f := range folders {
		info, err := os.Stat(f)
		if err != nil || !info.IsDir() || declared[f] || !set {
			continue
		}
		if oldest == "" || info.ModTime().Before(since) {
			oldest, since = f, info.ModTime()
		}
	}
	return oldest != "" && c.room.remove(oldest) == nil
}

func (c *Capturer) folder(r policies.Ref) string {
	return filepath.Join(c.options.Dir, r.Namespace, r.Name)
}

// step makes what is kept what is wanted at this time.
func (c *Capturer) step() {
	c.mutex.Lock()
	wanted, set := c.wanted, c.set
	c.mutex.Unlock()
	if !set {
		return
	}
	now := c.options.Clock()
	there := map[policies.Ref]bool{}
	for _, r := range wanted {
		there[r.Ref] = true
	}
	for ref, capture := range c.captures {
		if there[ref] {
			continue
		}
		capture.end(now)
		if err := c.room.remove(c.folder(ref)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.options.Warn(fmt.Errorf("remove the files of %s: %w", ref, err))
		}
		delete(c.captures, ref)
	}
	for _, r := range wanted {
		c.follow(r, now)
	}
	c.publish()
}

// follow makes one capture what it should be.
func (c *Capturer) follow(r Request, now time.Time) {
	k := c.captures[r.Ref]
	if k == nil || !sameTask(k.request.Capture, r.Capture) {
		if k != nil {
			k.end(now)
			before := k.total()
			k = &capture{before: before}
		} else {
			k = &capture{}
		}
		k.pods = map[policies.Ref]*subject{}
		c.captures[r.Ref] = k
	}
	k.request = r
	there := map[policies.Ref]bool{}
	for _, p := range r.Pods {
		there[p.Ref] = true
		s := k.pods[p.Ref]
		if s != nil && !reflect.DeepEqual(s.pod, p) {
			s.stop(now)
			s.before = s.total()
			s.session, s.pod, s.looked = nil, p, time.Time{}
		}
		if s == nil {
			s = &subject{pod: p}
			k.pods[p.Ref] = s
		}
	}
	for ref, s := range k.pods {
		if !there[ref] {
			s.stop(now)
			t := s.total()
			k.before = counts{k.before.packets + t.packets, k.before.bytes + t.bytes, k.before.lost + t.lost}
			delete(k.pods, ref)
		}
	}
	state := timed(r.Start, r.End, now)
	for _, p := range r.Pods {
		c.attend(k, k.pods[p.Ref], state, now)
	}
}

// sameTask reports whether what is to be kept of a pod is the same, so that what was
// kept already counts. The end may change.
func sameTask(a, b policies.Capture) bool {
	return reflect.DeepEqual(a.Filters, b.Filters) && a.MaxFileBytes == b.MaxFileBytes && a.MaxFiles == b.MaxFiles && a.Rotate == b.Rotate &&
		a.MaxPackets == b.MaxPackets && a.SnapLength == b.SnapLength && a.Start.Equal(b.Start)
}

// timed is what the times alone say.
func timed(start, end, now time.Time) string {
	switch {
	case !end.IsZero() && !now.Before(end):
		return v1alpha1.CaptureFinished
	case start.After(now):
		return v1alpha1.CaptureScheduled
	}
	return v1alpha1.CaptureCapturing
}

// attend begins or ends the capture of one pod.
func (c *Capturer) attend(k *capture, s *subject, state string, now time.Time) {
	if s.session != nil {
		select {
		case <-s.session.done:
			err := s.session.err
			s.before = s.total()
			s.session = nil
			switch {
			case errors.Is(err, errEnough):
				s.over = true
			case errors.Is(err, errGone):
				s.waiting, s.looked = err.Error(), time.Time{}
			case err != nil:
				s.failed = err
			}
		default:
		}
	}
	if state != v1alpha1.CaptureCapturing {
		end := now
		if state == v1alpha1.CaptureFinished {
			end = k.request.End
		}
		s.stop(end)
		return
	}
	if s.session != nil {
		end := int64(0)
		if !k.request.End.IsZero() {
			end = k.request.End.UnixNano()
		}
		s.session.end.Store(end)
		c.check(s, now)
		return
	}
	pause := every
	if s.failed != nil {
		pause = retryEvery
	}
	if s.over || errors.Is(s.failed, errFull) || now.Sub(s.looked) < pause && !now.Before(s.looked) {
		return
	}
	s.looked, s.failed = now, nil
	if err := c.begin(k, s); errors.Is(err, errNoWay) || errors.Is(err, errGone) {
		s.waiting = err.Error()
	} else {
		s.failed = err
	}
}

// retryEvery is how often what failed is tried again, but for want of room: who makes
// some says so by another PacketCapture.
const retryEvery = 10 * time.Second

// checkEvery is how often the way to a pod that is captured is looked at again.
const checkEvery = 2 * time.Second

// check ends a session at an interface that is not the pod's any more.
func (c *Capturer) check(s *subject, now time.Time) {
	if now.Sub(s.looked) < checkEvery && !now.Before(s.looked) {
		return
	}
	s.looked = now
	if d, err := c.find(c.options.Netns, s.pod); err == nil && d != s.session.device {
		s.stop(now)
	}
}

func (c *Capturer) begin(k *capture, s *subject) error {
	running := 0
	for _, k := range c.captures {
		for _, s := range k.pods {
			if s.session != nil {
				running++
			}
		}
	}
	if running >= c.options.MaxInterfaces {
		s.waiting = fmt.Sprintf("%d interfaces are captured already, the most at a time", running)
		return nil
	}
	r := &k.request
	for _, part := range []string{r.Ref.Namespace, r.Ref.Name, s.pod.Ref.Name} {
		if part == "" || part != filepath.Base(part) || !filepath.IsLocal(part) {
			return fmt.Errorf("%q is no name that a file can have", part)
		}
	}
	d, err := c.find(c.options.Netns, s.pod)
	if err != nil {
		return err
	}
	most := uint64(0)
	if r.MaxPackets > 0 {
		if most = r.MaxPackets - min(r.MaxPackets, uint64(s.before.packets)); most == 0 {
			s.over = true
			return nil
		}
	}
	size := cmp.Or(r.MaxFileBytes, fileBytes)
	snap := min(cmp.Or(r.SnapLength, 256<<10), int(min(size/2, 1<<20)))
	from, err := c.open(c.options.Netns, d, c.options.RingBytes, r.Filters, snap)
	if err != nil {
		return err
	}
	pod := "pod " + s.pod.Ref.String()
	about := pcapgo.NgInterface{
		Name: d.name, LinkType: layers.LinkTypeEthernet, SnapLength: uint32(snap),
		Comment: fmt.Sprintf("%s on node %s, by PacketCapture %s; egress is what the pod sends", pod, c.options.Node, r.Ref),
	}
	if d.link == 0 {
		about.LinkType = layers.LinkTypeRaw
	}
	s.waiting, s.session = "", &session{
		device: d, source: from, most: most, done: make(chan struct{}),
		recording: &recording{
			room: c.room, dir: c.folder(r.Ref), stem: short(s.pod.Ref.Name) + "_" + d.name, about: about, lostSoFar: from.lost,
			fileBytes: size, rotate: cmp.Or(r.Rotate, rotate), files: cmp.Or(r.MaxFiles, files),
		},
		comments: &commenter{pod: pod, addresses: s.pod.Addresses, link: d.link, verdict: c.options.Verdict, age: c.age},
	}
	if !r.End.IsZero() {
		s.session.stopAt(r.End)
	}
	if c.options.Connections != nil {
		if err := s.session.comments.learn(c.options.Connections); err != nil {
			c.options.Warn(fmt.Errorf("which connections are open is not known: %w", err))
		}
	}
	go s.session.run(c.options.Clock)
	return nil
}

// learn remembers who opened the connections of the pod.
func (c *commenter) learn(open func(yield func(Attempt) bool) error) error {
	c.known = map[conversation]int{}
	err := open(func(a Attempt) bool {
		if !slices.Contains(c.addresses, a.From.Addr()) && !slices.Contains(c.addresses, a.To.Addr()) {
			return true
		}
		talk, opener := conversation{a.Protocol, [2]netip.AddrPort{a.From, a.To}}, 0
		if a.To.Compare(a.From) < 0 {
			talk.ends[0], talk.ends[1], opener = a.To, a.From, 1
		}
		c.known[talk] = opener
		return true
	})
	c.told = err == nil
	return err
}

// short returns a pod's name, or, where a file could not have it with all that comes
// behind, its beginning with a hash.
func short(name string) string {
	const most = 180
	if len(name) <= most {
		return name
	}
	hash := fnv.New64a()
	hash.Write([]byte(name))
	return fmt.Sprintf("%s-%016x", name[:most-17], hash.Sum64())
}

// age is a number that changes when verdicts may.
func (c *Capturer) age() uint64 {
	age := c.changes.Load()
	if c.options.Generation != nil {
		age += c.options.Generation() << 32
	}
	return age
}

// stop ends the subject's session, with what came before a time in its files.
func (s *subject) stop(at time.Time) {
	if s.session == nil {
		return
	}
	s.session.stopAt(at)
	<-s.session.done
	switch err := s.session.err; {
	case errors.Is(err, errEnough):
		s.over = true
	case err != nil && !errors.Is(err, errGone):
		s.failed = err
	}
	s.before = s.total()
	s.session = nil
}

func (s *subject) total() counts {
	t := s.before
	if s.session != nil {
		t.add(s.session)
	}
	return t
}

// end ends all sessions.
func (k *capture) end(at time.Time) {
	for _, s := range k.pods {
		if s.session != nil {
			s.session.stopAt(at)
		}
	}
	for _, s := range k.pods {
		s.stop(at)
	}
}

func (k *capture) total() counts {
	t := k.before
	for _, s := range k.pods {
		of := s.total()
		t = counts{t.packets + of.packets, t.bytes + of.bytes, t.lost + of.lost}
	}
	return t
}

// publish says how all is.
func (c *Capturer) publish() {
	now := c.options.Clock()
	var states []v1alpha1.PacketCapture
	for _, ref := range slices.SortedFunc(maps.Keys(c.captures), policies.Ref.Compare) {
		states = append(states, c.status(c.captures[ref], now))
	}
	c.mutex.Lock()
	c.states = states
	c.mutex.Unlock()
	text, err := json.MarshalIndent(map[string]any{
		"apiVersion": v1alpha1.APIVersion, "kind": v1alpha1.KindPacketCapture + "List", "items": append([]v1alpha1.PacketCapture{}, states...),
	}, "", "  ")
	if err == nil && !bytes.Equal(text, c.written) {
		if err = writeWhole(filepath.Join(c.options.Dir, v1alpha1.CaptureStateFile), append(text, '\n')); err == nil {
			c.written = text
		}
	}
	switch {
	case err == nil:
		c.warned = ""
	case err.Error() != c.warned: // for a disk may stay full for long
		c.warned = err.Error()
		c.options.Warn(fmt.Errorf("write the state of captures: %w", err))
	}
}

// writeWhole makes a file that is there as a whole, or not at all.
func writeWhole(name string, text []byte) error {
	if err := os.WriteFile(name+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

func (c *Capturer) status(k *capture, now time.Time) v1alpha1.PacketCapture {
	r := &k.request
	of := v1alpha1.PacketCapture{
		APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindPacketCapture,
		Metadata: v1alpha1.Metadata{Namespace: r.Ref.Namespace, Name: r.Ref.Name},
		Spec:     v1alpha1.PacketCaptureSpec{StartTime: moment(r.Start), EndTime: moment(r.End)},
	}
	total := k.total()
	f := v1alpha1.CaptureFiles{
		Node: c.options.Node, Directory: c.folder(r.Ref), State: timed(r.Start, r.End, now),
		Packets: total.packets, Bytes: total.bytes, Dropped: total.lost,
	}
	messages, states := slices.Clone(r.Refused), map[string]int{}
	for _, s := range k.pods {
		state := v1alpha1.CaptureCapturing
		switch {
		case s.failed != nil:
			state = v1alpha1.CaptureError
			messages = append(messages, "pod "+s.pod.Ref.Name+": "+s.failed.Error())
		case f.State != v1alpha1.CaptureCapturing:
			state = f.State
		case s.over:
			state = v1alpha1.CaptureFinished
		case s.session == nil:
			state = v1alpha1.CaptureWaitingForTraffic
			messages = append(messages, "pod "+s.pod.Ref.Name+": "+s.waiting)
		case s.total().packets == 0:
			state = v1alpha1.CaptureWaitingForTraffic
		}
		states[state]++
	}
	if f.State == v1alpha1.CaptureCapturing || states[v1alpha1.CaptureError] > 0 {
		f.State = stateOf(states)
	}
	switch {
	case len(k.pods) > 0 || f.State != v1alpha1.CaptureWaitingForTraffic:
	case len(r.Refused) > 0:
		f.State = v1alpha1.CaptureError
	default:
		messages = append(messages, "no pod of this node is selected")
	}
	f.Message = messageOf(messages)
	entries, err := os.ReadDir(f.Directory)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.options.Warn(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), v1alpha1.CaptureFileSuffix) {
			f.FileNames = append(f.FileNames, e.Name())
		}
	}
	of.Status.Files = []v1alpha1.CaptureFiles{f}
	return of
}

// moment prints a time; none as nothing.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
