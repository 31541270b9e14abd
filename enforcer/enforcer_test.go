package enforcer

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/weir-policy/weir/enforcer/conntrack"
	"github.com/weir-policy/weir/enforcer/kernel"
	"github.com/weir-policy/weir/enforcer/nft"
	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/selector"
)

// fake is a kernel that notes what it is asked, and fails where it is told to.
type fake struct {
	mutex sync.Mutex
	asked []string
	fail  map[string][]error // the next answers, by what is asked
	alarm func(kernel.Alarm)
}

func (f *fake) ask(what string) error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.asked = append(f.asked, what)
	if next := f.fail[what]; len(next) > 0 {
		f.fail[what] = next[1:]
		return next[0]
	}
	return nil
}

func (f *fake) Load(*nft.Ruleset) error   { return f.ask("load") }
func (f *fake) Apply(*nft.Change) error   { return f.ask("apply") }
func (f *fake) Verify(*nft.Ruleset) error { return f.ask("verify") }
func (f *fake) Watch(ctx context.Context, ready func(), alarm func(kernel.Alarm)) error {
	f.alarm = alarm
	ready()
	<-ctx.Done()
	return ctx.Err()
}
func (f *fake) Connections(func(*conntrack.Connection) bool) error { return nil }
func (f *fake) Revoke([]conntrack.Connection) (int, error)         { return 0, nil }
func (f *fake) Restore([]conntrack.Connection) (int, error)        { return 0, nil }
func (f *fake) Counters() (map[string]uint64, error)               { return nil, nil }
func (f *fake) Addresses() ([]netip.Addr, error)                   { return nil, nil }

// What the kernel is asked in each situation, where nothing else is.
func TestWhatTheKernelIsAsked(t *testing.T) {
	lost, wrong := errors.Join(kernel.ErrUnknown, errors.New("no buffer space")), errors.New("set x has 7 elements, not 8")
	other := func(m *policies.Model) *policies.Model {
		changed := *m
		changed.Policies = nil
		return &changed
	}
	tests := []struct {
		name string
		fail map[string][]error
		do   func(a *Agent, f *fake, m *policies.Model)
		want string // after the first load
	}{
		{"another world is a change", nil, func(a *Agent, _ *fake, m *policies.Model) { a.Tell(other(m), nil) }, "apply"},
		{"the same one is none", nil, func(a *Agent, f *fake, m *policies.Model) { a.Tell(m, nil); f.alarm(kernel.Tampered) }, "load"},
		{"somebody else's change", nil, func(_ *Agent, f *fake, _ *policies.Model) { f.alarm(kernel.Tampered) }, "load"},
		{"a lost event, and all is well", nil, func(a *Agent, f *fake, m *policies.Model) { f.alarm(kernel.Lost) }, "verify"},
		{"a lost event, and all is not", map[string][]error{"verify": {wrong}}, func(_ *Agent, f *fake, _ *policies.Model) { f.alarm(kernel.Lost) }, "verify load"},
		{"a lost answer", map[string][]error{"apply": {lost}}, func(a *Agent, _ *fake, m *policies.Model) { a.Tell(other(m), nil) }, "apply load"},
		{"a lost answer, twice", map[string][]error{"apply": {lost}, "load": {lost}}, func(a *Agent, _ *fake, m *policies.Model) { a.Tell(other(m), nil) }, "apply load load"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := &fake{}
			a := New(Options{Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
			a.kernel = f
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- a.Run(ctx) }()
			m := worlds.Invented(rand.New(rand.NewPCG(1, 1)), worlds.Small(4), 6)
			a.Tell(m, nil)
			testkit.Eventually(t, a.Ready)
			f.mutex.Lock()
			f.asked, f.fail = nil, test.fail
			f.mutex.Unlock()
			test.do(a, f, m)
			testkit.Eventually(t, func() error {
				f.mutex.Lock()
				defer f.mutex.Unlock()
				if got := strings.Join(f.asked, " "); got != test.want {
					return errors.New("asked " + got + ", want " + test.want)
				}
				return nil
			})
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			if err := a.Ready(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Whose policies are observed: what the policy says, else its namespace, else the flag.
func TestModes(t *testing.T) {
	policy := func(namespace, name, mode string) policies.Policy {
		p := policies.Policy{Ref: policies.Ref{Kind: "NetworkPolicy", Namespace: namespace, Name: name}, Tier: "default", Subject: policies.Match{Pods: selector.Everything()}}
		if mode != "" {
			p.Annotations = map[string]string{Mode: mode}
		}
		return p
	}
	m := &policies.Model{World: policies.World{Namespaces: []policies.Namespace{
		{Name: "plain"}, {Name: "seen", Labels: map[string]string{Mode: ModeObserve}}, {Name: "strict", Labels: map[string]string{Mode: ModeEnforce}},
	}}}
	for _, namespace := range []string{"plain", "seen", "strict"} {
		for _, mode := range []string{"", ModeObserve, ModeEnforce, "nonsense"} {
			m.Policies = append(m.Policies, policy(namespace, "p-"+mode, mode))
		}
	}
	guard := policy("plain", "guard", ModeObserve)
	guard.Tier = GuardTier
	m.Policies = append(m.Policies, guard)
	for observe, want := range map[bool][]string{
		false: {"plain/p-observe", "seen/p-", "seen/p-observe", "strict/p-observe"},
		true:  {"plain/p-", "plain/p-observe", "seen/p-", "seen/p-observe", "strict/p-observe"},
	} {
		all := modesOf(m, observe)
		var got []string
		for ref := range all.policies {
			got = append(got, ref.String())
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("observe %t: %v, want %v", observe, got, want)
		}
		if len(all.refusals) != 3 {
			t.Errorf("%d refusals of nonsense", len(all.refusals))
		}
	}
}
