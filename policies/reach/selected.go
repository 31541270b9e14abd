package reach

import (
	"iter"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/selector"
)

// scope is namespaces by number, ascending.
type scope struct{ yes, maybe []int32 }

// namespacesOf returns the namespaces that are in the selector, and those that
// may be because their labels are not known.
func (b *builder) namespacesOf(s selector.Selector) scope {
	key := s.Key()
	known, ok := b.scopes.get(key)
	if ok {
		return known
	}
	for _, i := range b.namedBy(s) {
		switch matches(s, b.namespaces[i].labels, b.namespaces[i].implied) {
		case policies.Yes:
			known.yes = append(known.yes, i)
		case policies.Maybe:
			known.maybe = append(known.maybe, i)
		}
	}
	b.scopes.put(key, known)
	return known
}

// namedBy returns the namespaces that the selector names by NameLabel, or all.
func (f *frame) namedBy(s selector.Selector) []int32 {
	for _, r := range s.Requirements() {
		if r.Key == policies.NameLabel && r.Operator == selector.In {
			var named []int32
			for _, name := range r.Values {
				numbers, _ := f.byName.get(name)
				named = append(named, numbers...)
			}
			slices.Sort(named)
			return named
		}
	}
	all := make([]int32, len(f.namespaces))
	for i := range all {
		all[i] = int32(i)
	}
	return all
}

// matches reports whether something with these labels, and perhaps with others
// where partial is set, is in the selector.
func matches(s selector.Selector, labels map[string]string, partial bool) policies.Truth {
	return truths(s.Test(func(key string) (string, bool, bool) {
		value, has := labels[key]
		return value, has, has || !partial
	}))
}

// truths is what holds for sure, or else perhaps.
func truths(sure, possible bool) policies.Truth {
	switch {
	case sure:
		return policies.Yes
	case possible:
		return policies.Maybe
	}
	return policies.No
}

// classesOf yields the classes of the given namespaces whose labels are, or may
// be, in the selector, in no particular order.
func (f *frame) classesOf(in []int32, s selector.Selector, yield func(int32, policies.Truth)) {
	if len(in) == 0 || s.IsNothing() {
		return
	}
	c := f.compile(s)
	for id := range f.candidates(in, c.requirements) {
		if t := f.meets(&f.classes[id], c); t > policies.No {
			yield(id, t)
		}
	}
}

// compiledSelector is a selector in terms of label value ids.
type compiledSelector struct {
	selector.Selector
	requirements []requirement // every class in the selector meets them
	simple       bool          // and the classes that meet them are in it
}

// requirement is a selector's requirement in terms of label value ids: those of
// the named values that some pod has, and of one that is not known.
type requirement struct {
	operator selector.Operator
	key      int32
	ids      []int32
}

func (f *frame) compile(s selector.Selector) compiledSelector {
	compiled := compiledSelector{Selector: s, simple: s.IsConjunction()}
	for _, r := range s.Requirements() {
		c := requirement{operator: r.Operator, key: f.keys[r.Key]}
		doubt, inDoubt := f.doubt[c.key]
		switch r.Operator {
		case selector.In, selector.NotIn:
			for _, v := range r.Values {
				if id, ok := f.values.get(label{c.key, v}); ok {
					c.ids = append(c.ids, id)
				}
			}
			if inDoubt {
				c.ids = append(c.ids, doubt)
			}
		case selector.Exists, selector.DoesNotExist:
		default:
			compiled.simple = false
			continue
		}
		compiled.simple = compiled.simple && !inDoubt
		if inDoubt && (r.Operator == selector.NotIn || r.Operator == selector.DoesNotExist) {
			continue // no value is told from one that is not known
		}
		compiled.requirements = append(compiled.requirements, c)
	}
	return compiled
}

// meets reports whether a class is in the selector.
func (f *frame) meets(c *class, s compiledSelector) policies.Truth {
	for _, r := range s.requirements {
		has := slices.ContainsFunc(c.labels, func(v int32) bool {
			switch r.operator {
			case selector.In, selector.NotIn:
				return slices.Contains(r.ids, v)
			}
			return f.keyOf[v] == r.key
		})
		if has != (r.operator == selector.In || r.operator == selector.Exists) {
			return policies.No
		}
	}
	if s.simple {
		return policies.Yes
	}
	return truths(s.Test(func(key string) (string, bool, bool) { return f.labelOf(c, key) }))
}

// labelOf returns the label of a class with this key.
func (f *frame) labelOf(c *class, key string) (value string, has, known bool) {
	k := f.keys[key]
	for _, v := range c.labels {
		if f.keyOf[v] == k {
			doubt, inDoubt := f.doubt[k]
			return f.text[v], true, !inDoubt || doubt != v
		}
	}
	return "", false, true
}

// candidates yields classes of the given namespaces, all that can meet the
// requirements among them, starting from the rarest label that one asks for.
func (f *frame) candidates(in []int32, requirements []requirement) iter.Seq[int32] {
	var rarest [][]int32
	found, fewest := false, 0
	for _, r := range requirements {
		var lists [][]int32
		switch r.operator {
		case selector.In:
			for _, id := range r.ids {
				list, _ := f.posting.get(id)
				lists = append(lists, list)
			}
		case selector.Exists:
			list, _ := f.keyed.get(r.key)
			lists = append(lists, list)
		default:
			continue
		}
		n := 0
		for _, l := range lists {
			n += len(l)
		}
		if !found || n < fewest {
			rarest, found, fewest = lists, true, n
		}
	}
	return func(yield func(int32) bool) {
		if !found {
			for _, n := range in {
				for id := f.namespaces[n].first; id < f.namespaces[n].last; id++ {
					if !yield(id) {
						return
					}
				}
				for _, id := range f.namespaces[n].more {
					if !yield(id) {
						return
					}
				}
			}
			return
		}
		for _, list := range rarest {
			switch {
			case len(in) == len(f.namespaces):
				for _, id := range list {
					if !yield(id) {
						return
					}
				}
			case len(in) < len(list)/8:
				for _, n := range in {
					first, _ := slices.BinarySearch(list, f.namespaces[n].first)
					list = list[first:]
					for _, id := range list {
						if id >= f.namespaces[n].last {
							break
						}
						if !yield(id) {
							return
						}
					}
				}
				later, _ := slices.BinarySearch(list, f.runs)
				if !f.eachIn(in, list[later:], yield) {
					return
				}
			default:
				if !f.eachIn(in, list, yield) {
					return
				}
			}
		}
	}
}

// eachIn yields those of a list of classes that are in the given namespaces.
func (f *frame) eachIn(in, list []int32, yield func(int32) bool) bool {
	for _, id := range list {
		if _, is := slices.BinarySearch(in, f.classes[id].namespace); is && !yield(id) {
			return false
		}
	}
	return true
}
