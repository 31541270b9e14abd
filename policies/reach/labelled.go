package reach

import (
	"iter"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
)

// labelled is a network set or a host endpoint, which Calico's selectors find by
// its labels and rules by its addresses.
type labelled struct {
	ref       policies.Ref
	labels    map[string]string
	addresses netset.Addresses
	domains   []string
}

// labelledOf returns the network sets and host endpoints of a world.
func labelledOf(w *policies.World) []labelled {
	all := make([]labelled, 0, len(w.Sets)+len(w.Hosts))
	for i := range w.Sets {
		s := &w.Sets[i]
		all = append(all, labelled{s.Ref, s.Labels, netset.Prefixes(s.Nets...), s.Domains})
	}
	for i := range w.Hosts {
		all = append(all, *labelledHost(&w.Hosts[i]))
	}
	return all
}

func labelledHost(h *policies.HostEndpoint) *labelled {
	var addresses netset.Addresses
	for _, a := range h.Addresses {
		addresses = addresses.Union(netset.AddressSpan(a, a))
	}
	return &labelled{ref: h.Ref, labels: h.Labels, addresses: addresses}
}

// isLabelled reports whether a selecting match describes a network set or host
// endpoint of the world.
func isLabelled(w *policies.World, m *policies.Match, l *labelled) policies.Truth {
	if !m.Endpoints {
		return policies.No
	}
	ns := &policies.Namespace{}
	if l.ref.Namespace != "" {
		at := slices.IndexFunc(w.Namespaces, func(n policies.Namespace) bool { return n.Name == l.ref.Namespace })
		if at < 0 {
			return policies.No
		}
		ns = &w.Namespaces[at]
	}
	var in policies.Truth
	if m.Inherited.IsNothing() {
		in = matches(m.Namespaces, ns.Labels, ns.Implied)
	} else {
		in = inSelector(m.Inherited, l, ns)
	}
	if in == policies.No {
		return policies.No
	}
	return in.And(inSelector(m.Pods, l, ns))
}

// inSelector reports whether the labels of a network set or host endpoint, those
// that it inherits from its namespace among them, are in a selector.
func inSelector(s selector.Selector, l *labelled, ns *policies.Namespace) policies.Truth {
	return truths(s.Test(func(key string) (string, bool, bool) {
		if value, has := l.labels[key]; has {
			return value, true, true
		}
		if l.ref.Namespace == "" {
			return "", false, true
		}
		return ns.Inherited(key)
	}))
}

// endpoints returns the columns of all that Calico's selectors describe.
func (b *builder) endpoints(m *policies.Match) peers {
	is := b.selected(m)
	for i := range b.labelledLike(m.Pods) {
		in := isLabelled(b.world, m, &b.labelled[i])
		if in == policies.No {
			continue
		}
		at := b.standsFor(&b.labelled[i])
		is.possible = b.or(is.possible, at.possible)
		if in == policies.Yes {
			is.yes = b.or(is.yes, at.yes)
		}
	}
	return is
}

// labelledLike yields the indexes of the network sets and host endpoints that
// may be in a selector, all of them where it asks for no label of their own.
func (b *builder) labelledLike(s selector.Selector) iter.Seq[int] {
	return func(yield func(int) bool) {
		for _, r := range s.Requirements() {
			if r.Operator != selector.In || policies.IsInherited(r.Key) {
				continue
			}
			for _, v := range r.Values {
				for _, i := range b.byLabel[[2]string{r.Key, v}] {
					if !yield(i) {
						return
					}
				}
			}
			return
		}
		for i := range b.labelled {
			if !yield(i) {
				return
			}
		}
	}
}

// standsFor returns the columns that a network set or host endpoint means.
func (b *builder) standsFor(l *labelled) peers {
	at := b.at(l.addresses, true)
	if len(l.domains) > 0 {
		at.possible = b.or(at.possible, b.withNames(l.domains).possible)
	}
	return at
}

// object returns the columns that an object stands for.
func (b *builder) object(ref policies.Ref) peers {
	is := peers{b.none, b.none}
	if ref.Kind != "Service" {
		for i := range b.labelled {
			if b.labelled[i].ref == ref {
				is = b.standsFor(&b.labelled[i])
			}
		}
		return is
	}
	at := slices.IndexFunc(b.world.Services, func(s policies.Service) bool { return s.Ref == ref })
	switch {
	case at < 0:
	case b.world.Services[at].External != "":
		is.possible = b.all
	default:
		if behind, some := b.values.get(behindService(ref)); some {
			classes, _ := b.posting.get(behind)
			for _, class := range classes {
				b.addClass(class)
			}
		}
		is.yes = b.build()
		b.addSet(is.yes)
		for _, pod := range b.world.Services[at].Pods {
			if b.world.Pods[pod].HostNetwork {
				b.addClass(b.place.pods[pod])
			}
		}
		is.possible = b.build()
	}
	return is
}
