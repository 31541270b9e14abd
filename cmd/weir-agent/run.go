package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/weir-policy/weir/enforcer"
	"github.com/weir-policy/weir/enforcer/kernel"
	"github.com/weir-policy/weir/enforcer/record"
	"github.com/weir-policy/weir/internal/folder"
	"github.com/weir-policy/weir/internal/live"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
)

// run wires an agent up and runs it until ctx ends, or a part of it cannot go on.
func run(ctx context.Context, o *options, log *slog.Logger) error {
	free, err := alone()
	if err != nil {
		return err
	}
	defer free()
	recorder, err := newRecorder(o, log)
	if err != nil {
		return err
	}
	settled := make(chan struct{}, 1)
	settings := enforcer.Options{
		Settled: func() {
			select {
			case settled <- struct{}{}:
			default:
			}
		},
		Node: o.node, Observe: o.mode == enforcer.ModeObserve, Closed: o.unknown == "deny", Ranges: o.prefixes,
		LogGroup: o.group, LogRate: o.rate, Log: log,
	}
	if recorder != nil {
		settings.Recorder = recorder
	}
	agent := enforcer.New(settings)
	captures, err := newCaptures(o, agent, log)
	if err != nil {
		return err
	}
	worlds, err := newWorlds(o, agent, captures, log)
	if err != nil {
		return err
	}
	servers, err := listen(o, agent, captures)
	if err != nil {
		return err
	}
	parts := slices.Concat(servers, []part{{"the agent", agent.Run}, {"the world", worlds.watch}, {"its memory", func(ctx context.Context) error { return tidy(ctx, settled) }}})
	if o.guards != "" {
		parts = append(parts, part{"the guards", worlds.watchGuards})
	}
	if captures != nil {
		parts = append(parts, part{"the captures", captures.run})
	}
	if worlds.declared != nil {
		parts = append(parts, part{"the PacketCaptures", worlds.declared.run})
	}
	if recorder != nil {
		parts = append(parts, part{"the recorder", func(ctx context.Context) error {
			// The node is guarded even where nothing can be recorded.
			if err := recorder.Run(ctx); err != nil {
				agent.Complain("flows", err)
			}
			<-ctx.Done()
			return ctx.Err()
		}})
	}
	log.Info("weir-agent begins", "version", version, "node", o.node, "mode", o.mode, "unknown-pods", o.unknown)
	return together(ctx, parts)
}

// alone makes this the only agent of its network namespace until free is called, or it ends
// however rudely: two would undo each other's work all the time.
func alone() (free func(), err error) {
	const name = "@weir-agent" // of which every network namespace has its own
	l, err := net.Listen("unix", name)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, errors.New("another weir-agent guards this network namespace; end it first")
	}
	if err != nil {
		return nil, err
	}
	return func() { _ = l.Close() }, nil
}

// part is something that runs until its context ends.
type part struct {
	name string
	run  func(context.Context) error
}

// together runs all parts, until ctx ends or one of them does.
func together(ctx context.Context, parts []part) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var all sync.WaitGroup
	for _, p := range parts {
		all.Go(func() {
			err := p.run(ctx)
			if err == nil || errors.Is(err, context.Canceled) {
				stop(context.Canceled)
				return
			}
			stop(fmt.Errorf("%s: %w", p.name, err))
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// worlds leads what sources say to the agent.
type worlds struct {
	agent    *enforcer.Agent
	captures *captures // nil where nothing is captured
	options  *options
	live     *live.World // nil where the world is a folder
	declared *declared   // in a cluster, unless nothing is captured

	mutex  sync.Mutex
	model  *policies.Model
	guards []policies.Policy
	guard  bool // whether the guards were read
}

func newWorlds(o *options, agent *enforcer.Agent, captures *captures, log *slog.Logger) (*worlds, error) {
	w := &worlds{agent: agent, captures: captures, options: o, guard: o.guards == ""}
	if o.world != "" {
		return w, nil
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("%w; name a kubeconfig, or a folder with --world", err)
	}
	if captures != nil {
		if w.declared, err = newDeclared(config, captures, log); err != nil {
			return nil, err
		}
	}
	read := o.reading()
	read.Node = o.node
	w.live, err = live.New(config, live.Options{
		Read: read, Wanted: wanted, Settle: 10 * time.Millisecond, Unversioned: true,
		Told: func(what string) { log.Warn("the cluster", "says", what) },
	})
	if err != nil {
		return nil, err
	}
	w.live.Subscribe(func(m *policies.Model, c k8s.Change) {
		if w.model == nil {
			debug.FreeOSMemory() // of what all lists left behind
		}
		w.tell(c, func() { w.model = m })
	})
	return w, nil
}

// wanted says what of a cluster an agent watches: no owners of pods, for pods say what
// matters, and no pods that ended.
func wanted(s k8s.Served) (fields string, wanted bool) {
	switch s.Group {
	case "apps", "batch":
		return "", false
	case "":
		if s.Kind == "ReplicationController" {
			return "", false
		}
		if s.Kind == "Pod" {
			return "status.phase!=Succeeded,status.phase!=Failed", true
		}
	}
	return "", true
}

// tell sets something and tells the agent, once all is known, how the world differs from
// before.
func (w *worlds) tell(change k8s.Change, set func()) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	set()
	if w.model != nil && w.guard {
		w.agent.Follow(w.model, w.guards, change)
	}
	if w.model != nil && w.captures != nil {
		w.captures.world(w.model)
	}
}

func (w *worlds) watch(ctx context.Context) error {
	if w.live != nil {
		return w.live.Start(ctx)
	}
	return folder.New(w.options.world, w.options.reading()).Watch(ctx, func(f *folder.World, err error) {
		// One that is not mounted yet, or not any more, is no reason to open everything.
		isEmpty := err == nil && f.Files == 0
		if isEmpty {
			err = fmt.Errorf("%s: there is no manifest in it; weir-agent remove is what opens everything", w.options.world)
		}
		w.agent.Complain("world", err)
		if f == nil || isEmpty {
			return
		}
		w.tell(k8s.Change{Whole: true}, func() { w.model = f.Model })
		if w.captures == nil {
			return
		}
		declared, err := k8s.ReadCaptures(f.Own, w.options.reading())
		w.agent.Complain("captures", err)
		if err == nil {
			w.captures.declare(declared)
		}
	})
}

func (w *worlds) watchGuards(ctx context.Context) error {
	return folder.New(w.options.guards, w.options.reading()).Watch(ctx, func(f *folder.World, err error) {
		var guards []policies.Policy
		if f != nil && err == nil {
			guards, err = readGuards(f)
		}
		w.agent.Complain("guards", err)
		if err == nil {
			w.tell(k8s.Change{Whole: true}, func() { w.guards, w.guard = guards, true })
		}
	})
}

// readGuards returns the guards that a folder holds: policies, and Invariants.
func readGuards(f *folder.World) ([]policies.Policy, error) {
	guards, err := enforcer.Guards(f.Model)
	more, errMore := enforcer.InvariantGuards(f.Own)
	return append(guards, more...), errors.Join(err, errMore)
}

// newRecorder returns the recorder, nil where nothing is recorded.
func newRecorder(o *options, log *slog.Logger) (*record.Recorder, error) {
	if o.flows == "" && o.socket == "" {
		return nil, nil
	}
	client, err := o.send.client()
	if err != nil {
		return nil, err
	}
	return record.New(record.Options{
		Server: o.send.address(), Client: client,
		Node: o.node, LogGroup: o.group, Counters: kernel.New(0).Counters, Dir: o.flows, MaxBytes: o.flowBytes,
		Window: o.flowWindow, Level: record.Level(o.flowLevel), Socket: o.socket,
		Log: func(err error) { log.Error("recording", "error", err) },
	})
}
