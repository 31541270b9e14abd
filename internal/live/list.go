package live

import "github.com/weir-policy/weir/policies/k8s"

// listing is a list on its way. Until somebody has seen a model, its objects are put at
// once, and nothing else is held of them. Later all of it counts at one moment, when it is
// whole, and what is not held already waits for that.
type listing struct {
	seen   map[listed]bool // nil where nothing was held when it began
	differ map[listed]*item
}

type listed struct{ namespace, name string }

// beginList takes note that a list begins, perhaps in place of one that could not be ended.
func (w *World) beginList(k *kind) *listing {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	k.begin()
	return k.listing
}

func (k *kind) begin() {
	isFirst := !k.listed && k.listing == nil
	k.listing = &listing{differ: map[listed]*item{}}
	if !isFirst {
		k.listing.seen = map[listed]bool{}
	}
}

// takeListed takes an object that a list tells of, or that one went meanwhile, unless another
// list has begun since.
func (w *World) takeListed(k *kind, of *listing, i *item, isGone bool) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	switch {
	case !w.isCurrent(k) || k.listing != of || i.entry == nil:
	case isGone:
		w.untake(k, i.entry.Key())
	default:
		w.takeInto(k, i)
	}
}

// takeInto, untake and finish want the mutex.
func (w *World) takeInto(k *kind, i *item) {
	key := i.entry.Key()
	at := listed{key.Namespace, key.Name}
	if k.listing.seen != nil {
		k.listing.seen[at] = true
	}
	delete(k.listing.differ, at)
	switch {
	case w.model == nil:
		w.put(k, i)
	case w.options.Unversioned && w.store.Says(i.entry):
	default:
		k.listing.differ[at] = i
	}
}

func (w *World) untake(k *kind, key k8s.Key) {
	at := listed{key.Namespace, key.Name}
	delete(k.listing.seen, at)
	delete(k.listing.differ, at)
	if w.model == nil {
		w.drop(k, key)
	}
}

// finish makes the list that was told what is held.
func (w *World) finish(k *kind) {
	for _, i := range k.listing.differ {
		w.put(k, i)
	}
	if k.listing.seen != nil {
		var gone []k8s.Key
		id := idOf(k.served)
		for key := range w.store.Each(id.group, id.kind) {
			if !k.listing.seen[listed{key.Namespace, key.Name}] {
				gone = append(gone, key)
			}
		}
		for _, key := range gone {
			w.drop(k, key)
		}
	}
	k.listing = nil
}

// isCurrent reports whether nobody else watches the kind by now. It wants the mutex.
func (w *World) isCurrent(k *kind) bool { return w.watched[idOf(k.served)] == k }
