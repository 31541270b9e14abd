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
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
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

// What an Invariant says never happens does not, though policies allow it; all else is
// as they say.
func TestInvariantGuards(t *testing.T) {
	read := func(text string) ([]policies.Policy, error) {
		docs, err := k8s.Parse("guards.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return InvariantGuards(docs)
	}
	guards, err := read(`apiVersion: weir.dev/v1alpha1
kind: Invariant
metadata: {name: db}
spec:
  never:
    from: [{not: {podSelector: {matchLabels: {app: web}}}}]
    to: [{podSelector: {matchLabels: {app: db}}}]
    ports: [5432, admin]
`)
	if err != nil {
		t.Fatal(err)
	}
	pod := func(name string, last byte, ports ...policies.ContainerPort) policies.Pod {
		return policies.Pod{
			Ref: policies.Ref{Kind: "Pod", Namespace: "shop", Name: name}, Labels: map[string]string{"app": name}, Ports: ports, Replicas: 1,
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, last})},
		}
	}
	m := &policies.Model{World: policies.World{
		Namespaces: []policies.Namespace{{Name: "shop", Labels: map[string]string{policies.NameLabel: "shop"}}},
		Pods:       []policies.Pod{pod("cron", 3), pod("db", 2, policies.ContainerPort{Name: "admin", Protocol: netset.TCP, Number: 9000}), pod("web", 1)},
	}}
	judge := reach.New(withGuards(m, guards), reach.Options{})
	cron, db, web, outside := judge.Pod(0), judge.Pod(1), judge.Pod(2), judge.Outside(netip.MustParseAddr("192.0.2.1"))
	for _, row := range []struct {
		name     string
		from, to reach.End
		port     uint16
		want     policies.Verdict
	}{
		{"whom it spares", web, db, 5432, policies.Allow},
		{"others", cron, db, 5432, policies.Deny},
		{"by the name of the port", cron, db, 9000, policies.Deny},
		{"on another port", cron, db, 80, policies.Allow},
		{"from outside", outside, db, 5432, policies.Deny},
		{"elsewhere", db, cron, 5432, policies.Allow},
	} {
		if got := judge.Verdict(row.from, row.to, netset.TCP, row.port); got != row.want {
			t.Errorf("%s: %s, want %s", row.name, got, row.want)
		}
	}
	for _, row := range []struct{ spec, want string }{
		{"{isolated: {pods: [{podSelector: {}}]}}", "guards.yaml:1:88: only an invariant of the form never can be a guard, not isolated"},
		{"{never: {from: [{anyone: true}], to: [{podSelector: {}}]}, waivers: [{reason: x, owner: ann, until: 2030-01-01}]}", "guards.yaml:1:146: a guard forgives nothing; remove the waiver, or the invariant from the guards"},
	} {
		_, err := read("{apiVersion: weir.dev/v1alpha1, kind: Invariant, metadata: {name: x}, spec: " + row.spec + "}\n")
		if err == nil || err.Error() != row.want {
			t.Errorf("%v, want %s", err, row.want)
		}
	}
}
