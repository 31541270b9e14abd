// Package enforcer keeps a node's kernel doing what the policies of its pods say.
//
// It is told of worlds, compiles what the newest of them asks of the node, puts that
// into the kernel, repairs what others do to it, and ends connections that policy no
// longer allows. Where the worlds come from it does not know, nor how packets are
// matched.
package enforcer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/weir-policy/weir/enforcer/conntrack"
	"github.com/weir-policy/weir/enforcer/kernel"
	"github.com/weir-policy/weir/enforcer/nft"
	"github.com/weir-policy/weir/enforcer/record"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
)

// Options say what is to be enforced, and where. What is zero is chosen.
type Options struct {
	// Netns is the node's network namespace by its file descriptor; 0 is the caller's.
	Netns int
	// Node is the name of the node whose pods are guarded. Without one, all pods of the
	// world are: those that a router forwards for.
	Node string
	// Observe lets what policies deny pass, counted and logged, unless a policy or its
	// namespace says that it is enforced. Guards always are.
	Observe bool
	// Closed denies what is from or for pods of the node that nobody has told of yet:
	// addresses in Ranges, or in those that the Node of that name has, that no pod has.
	Closed bool
	Ranges []netip.Prefix
	// LogGroup is the NFLOG group that gets what is denied; LogRate as nft.Input has it.
	LogGroup uint16
	LogRate  uint64
	// Recorder hears of all that is put in force, if it is set.
	Recorder Recorder
	// Settled is called once in a while, when all that a change led to is done, if it is set.
	Settled func()
	// Settle is for how long changes are gathered, 10 milliseconds.
	Settle time.Duration
	// Verify is how often what is loaded is compared with what should be, a minute.
	Verify time.Duration
	// Log is slog.Default.
	Log *slog.Logger
}

// Recorder remembers connections, as record.Recorder does.
type Recorder interface {
	Enforce(record.Generation)
	Counts() record.Counts
}

// table is the kernel, as kernel.Kernel is.
type table interface {
	Load(*nft.Ruleset) error
	Apply(*nft.Change) error
	Verify(*nft.Ruleset) error
	Watch(ctx context.Context, ready func(), alarm func(kernel.Alarm)) error
	Connections(yield func(*conntrack.Connection) bool) error
	Revoke([]conntrack.Connection) (int, error)
	Restore([]conntrack.Connection) (int, error)
	Counters() (map[string]uint64, error)
	Addresses() ([]netip.Addr, error)
}

// Agent enforces policies on one node.
type Agent struct {
	options Options
	kernel  table
	metrics *metrics
	news    chan struct{} // holds one where something is to be done
	sweeps  chan struct{} // holds one where connections are to be looked at
	doubts  chan struct{} // holds one where it is to be found what is in doubt

	mutex sync.Mutex
	next  told // what was told last
	// change leads from the world that was judged last to that.
	change k8s.Change
	state  Status
	// loaded is the ruleset in force, nil before the first.
	loaded  *nft.Ruleset
	alarmed kernel.Alarm

	busy  time.Time // since when a change is put in force; zero where none is
	asked judgement // in which it is to be found what is in doubt

	// By the loop alone.
	accepted nft.Accepted
	judged   judgement
	compiler nft.Compiler

	refused map[string]bool // what was logged, by who finds what is in doubt
}

// told is a world with the rules that stand above it.
type told struct {
	model  *policies.Model
	guards []policies.Policy
	at     time.Time
}

// New returns an agent, which does nothing until Run.
func New(o Options) *Agent {
	o.Settle, o.Verify = cmp.Or(o.Settle, 10*time.Millisecond), cmp.Or(o.Verify, time.Minute)
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return &Agent{
		options: o, kernel: kernel.New(o.Netns), metrics: newMetrics(), accepted: nft.Accepted{},
		news: make(chan struct{}, 1), sweeps: make(chan struct{}, 1), doubts: make(chan struct{}, 1),
		state: Status{Problems: map[string]error{}},
	}
}

// Tell says what the world is from now on, and which guards stand above all of its
// policies. It returns at once, and may be called from anywhere; of several worlds in
// a short time the last one counts. Neither may change afterwards.
func (a *Agent) Tell(m *policies.Model, guards []policies.Policy) {
	a.tell(m, guards, k8s.Change{Whole: true})
}

// Follow is Tell for a world that differs from the one that was told last in a change
// only, so that no more is judged again than that asks for.
func (a *Agent) Follow(m *policies.Model, guards []policies.Policy, change k8s.Change) {
	a.tell(m, guards, change)
}

func (a *Agent) tell(m *policies.Model, guards []policies.Policy, change k8s.Change) {
	a.mutex.Lock()
	a.change = a.change.And(change)
	a.next = told{m, guards, time.Now()}
	a.mutex.Unlock()
	signal(a.news)
}

// Complain says what is wrong with a source of worlds, so that the last one stays in
// force; nil where nothing is any more. Status and the metrics show it.
func (a *Agent) Complain(source string, err error) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	was := a.state.Problems[source]
	switch {
	case err == nil && was != nil:
		a.options.Log.Info("all is right again", "source", source)
		delete(a.state.Problems, source)
	case err != nil && (was == nil || was.Error() != err.Error()):
		so := "something is wrong"
		switch {
		case !IsWorld(source):
		case a.loaded == nil:
			so = "nothing is put in force yet"
		default:
			so = "the last good world stays in force"
		}
		for _, one := range each(err) {
			a.options.Log.Error(so, "source", source, "problem", one)
		}
		a.state.Problems[source] = err
		a.metrics.complaints.Inc()
	}
}

// IsWorld reports whether a source says what is to be enforced, so that while something
// is wrong with it the last good one stays in force.
func IsWorld(source string) bool { return source == "world" || source == "guards" }

// each returns the errors that an error joins.
func each(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// How long it waits after what failed, at first and at most.
const (
	shortest = 50 * time.Millisecond
	longest  = 5 * time.Second
)

// Run enforces what it is told until ctx ends. What is in force then stays so.
func (a *Agent) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watching := make(chan struct{})
	all.Go(func() { a.watch(ctx, sync.OnceFunc(func() { close(watching) })) })
	all.Go(func() { a.sweepAlways(ctx) })
	all.Go(func() { a.doubtAlways(ctx) })
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-watching:
	}
	verify := time.NewTicker(a.options.Verify)
	defer verify.Stop()
	pause := shortest
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-verify.C:
			a.verify()
			signal(a.sweeps)
		case <-a.news:
			if !sleep(ctx, time.Until(last.Add(a.options.Settle))) {
				return ctx.Err()
			}
		}
		last = time.Now()
		if err := a.sync(); err == nil {
			pause = shortest
			continue
		}
		if !sleep(ctx, pause) {
			return ctx.Err()
		}
		pause = min(2*pause, longest)
		signal(a.news)
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// watch raises an alarm when somebody else changes the table, or may have.
func (a *Agent) watch(ctx context.Context, ready func()) {
	for {
		err := a.kernel.Watch(ctx, func() {
			a.Complain("kernel", nil)
			a.alarm(kernel.Lost) // whatever happened before nobody saw
			ready()
		}, a.alarm)
		if ctx.Err() != nil {
			return
		}
		a.Complain("kernel", err)
		a.metrics.failed("watch")
		if !sleep(ctx, time.Second) {
			return
		}
	}
}

func (a *Agent) alarm(why kernel.Alarm) {
	a.mutex.Lock()
	if a.alarmed != kernel.Tampered {
		a.alarmed = why
	}
	isNews := a.loaded != nil
	a.mutex.Unlock()
	if isNews {
		a.options.Log.Warn("the table is looked after", "alarm", string(why))
		a.metrics.alarms.WithLabelValues(alarmNames[why]).Inc()
	}
	signal(a.news)
}

var alarmNames = map[kernel.Alarm]string{kernel.Tampered: "tampered", kernel.Lost: "lost"}

// verify raises the alarm where what is loaded is not what should be.
func (a *Agent) verify() {
	a.mutex.Lock()
	loaded := a.loaded
	a.mutex.Unlock()
	if loaded == nil {
		return
	}
	a.readCounters() // some are about to go
	if err := a.kernel.Verify(loaded); err != nil {
		a.options.Log.Error("the table is not what was loaded", "error", err)
		a.alarm(kernel.Tampered)
	}
}

// stuck is how long a change may take to be put in force.
const stuck = 5 * time.Minute

// Alive says that a change has been under way for far too long; nil where none has.
func (a *Agent) Alive() error {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if !a.busy.IsZero() && time.Since(a.busy) > stuck {
		return fmt.Errorf("a change is under way since %s", a.busy.Format(time.RFC3339))
	}
	return nil
}

func (a *Agent) setBusy(since time.Time) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.busy = since
}

// sync makes the kernel do what was told last.
func (a *Agent) sync() error {
	a.setBusy(time.Now())
	defer a.setBusy(time.Time{})
	a.mutex.Lock()
	next, loaded, alarm := a.next, a.loaded, a.alarmed
	a.alarmed = ""
	change := a.change
	a.change = k8s.Change{}
	current := a.state.model == next.model && slices.EqualFunc(a.state.guards, next.guards, samePolicy)
	a.mutex.Unlock()
	if next.model == nil || current && alarm == "" && loaded != nil {
		return nil
	}
	if alarm == kernel.Lost && loaded != nil && a.kernel.Verify(loaded) == nil && current {
		return nil
	}
	begin := time.Now()
	ruleset := a.compile(next, change, loaded)
	compiled := time.Now()
	if loaded == nil {
		debug.FreeOSMemory() // of what judging all left behind, before all of it is told
	}
	var update *nft.Change
	var err error
	if loaded == nil || alarm != "" {
		a.readCounters() // they begin anew
		if err = a.kernel.Load(ruleset); err == nil {
			a.metrics.loads.Inc()
		}
	} else {
		update = nft.Diff(loaded, ruleset)
		err = a.kernel.Apply(update)
	}
	if err != nil {
		a.fail("apply", err)
		return err
	}
	now := time.Now()
	a.metrics.synced(next.at, begin, compiled, now)
	a.took(next, ruleset, compiled)
	if update == nil || !update.IsEmpty() {
		signal(a.sweeps)
	}
	signal(a.doubts)
	return nil
}

func samePolicy(p, q policies.Policy) bool { return p.Ref == q.Ref && p.Says(&q) }

// fail takes note that the kernel could not be made to do something: what it does is not
// known until it is loaded again.
func (a *Agent) fail(what string, err error) {
	a.options.Log.Error("the kernel does not take it", "step", what, "error", err)
	a.metrics.failed(what)
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.alarmed = kernel.Tampered
	a.state.Failed = err
}

// took takes note of what is in force since right after some moment.
func (a *Agent) took(next told, r *nft.Ruleset, since time.Time) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	s := &a.state
	if s.model != next.model || len(s.guards) != len(next.guards) {
		s.Generation++
		s.Since = since
	}
	first := a.loaded == nil
	s.model, s.guards, s.Failed = next.model, next.guards, nil
	s.Policies, s.Rules, s.Pods = a.judged.policies, a.judged.rules, len(a.judged.in.Pods)
	a.loaded, a.asked = r, a.judged
	if a.options.Recorder != nil {
		a.options.Recorder.Enforce(record.Generation{Number: s.Generation, Since: since, Input: a.judged.in, Ruleset: r})
	}
	log := a.options.Log.Debug
	if first {
		log = a.options.Log.Info
	}
	log("in force", "generation", s.Generation, "pods", s.Pods, "policies", s.Policies)
}

// mostLogged is how many refusals are logged at once; Status has all.
const mostLogged = 10

// refuse takes note of what is not enforced as it is written, and logs what is new of it.
func (a *Agent) refuse(refusals []nft.Refusal) {
	known := make(map[string]bool, len(refusals))
	logged, more := 0, 0
	for _, r := range refusals {
		text := r.String()
		known[text] = true
		switch {
		case a.refused[text]:
		case logged < mostLogged:
			logged++
			a.options.Log.Warn("not enforced as it is written", "refusal", text)
		default:
			more++
		}
	}
	if more > 0 {
		a.options.Log.Warn("more is not enforced as it is written, see /status", "count", more)
	}
	a.refused = known
	a.mutex.Lock()
	a.state.Refusals = refusals
	a.mutex.Unlock()
}

func elementsOf(r *nft.Ruleset) (n int) {
	if r == nil {
		return 0
	}
	for i := range r.Sets {
		n += r.Sets[i].Len()
	}
	return n
}

// Status is how things stand.
type Status struct {
	// Generation counts the worlds that were put in force; Since is when the last was.
	Generation uint64
	Since      time.Time
	// What is in force: how many policies there are, with how many rules, for how many
	// pods of the node, and in how many elements of sets.
	Policies, Rules, Pods, Elements int
	Refusals                        []nft.Refusal
	Problems                        map[string]error // of sources, by their names
	Failed                          error            // why the kernel did not take the last change

	model  *policies.Model
	guards []policies.Policy
}

// Status returns how things stand.
func (a *Agent) Status() Status {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	s := a.state
	s.Elements = elementsOf(a.loaded)
	s.Problems = map[string]error{}
	for name, err := range a.state.Problems {
		s.Problems[name] = err
	}
	return s
}

// Fate returns what the ruleset in force does with a packet of a new connection; it is
// not known before there is one.
func (a *Agent) Fate(p nft.Packet) (f nft.Fate, known bool) {
	a.mutex.Lock()
	ruleset := a.loaded
	a.mutex.Unlock()
	if ruleset == nil {
		return f, false
	}
	return ruleset.Fate(p), true
}

// Generation returns the number of the generation in force, 0 before there is one.
func (a *Agent) Generation() uint64 {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return a.state.Generation
}

// Ready says why the node is not guarded as it should be; nil where it is. A world that
// cannot be read does not count, since the last good one is in force.
func (a *Agent) Ready() error {
	s := a.Status()
	switch {
	case s.Failed != nil:
		return s.Failed
	case s.Generation > 0:
		return nil
	case len(s.Problems) > 0:
		var all []error
		for _, name := range slices.Sorted(maps.Keys(s.Problems)) {
			all = append(all, fmt.Errorf("%s: %w", name, s.Problems[name]))
		}
		return errors.Join(all...)
	}
	return errors.New("no world was told of yet")
}

// strangers returns the ranges in which there are only pods of the node.
func (a *Agent) strangers(m *policies.Model) []netip.Prefix {
	if !a.options.Closed {
		return nil
	}
	all := slices.Clone(a.options.Ranges)
	for i := range m.Nodes {
		if len(all) == 0 && a.options.Node != "" && m.Nodes[i].Name == a.options.Node {
			return m.Nodes[i].PodCIDRs
		}
	}
	return all
}
