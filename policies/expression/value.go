package expression

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Value is what an expression is: nil, a bool, int64, uint64, float64, string,
// []byte, time.Time, time.Duration, policies.Verdict, netset.Ports, List, Map or
// *Object.
type Value any

// List is a list of values.
type List []Value

// Map is a map, its entries in the order of their keys.
type Map []Entry

// Entry is one entry of a map, its key as a text.
type Entry struct {
	Key   string
	Value Value
}

// Object is a thing of the world, such as a Pod.
type Object struct {
	Type   string
	Text   string // what names it, on one line
	Fields []Entry
	// Connection is what a Connection is; nil for others.
	Connection *policies.Connection
}

// valueOf returns a value without what the interpreter needs. An object inside
// another has only the fields that name it.
func (w *World) valueOf(v ref.Val, inside bool) Value {
	w.meter.spend(1)
	switch v := v.(type) {
	case *object:
		if ports, ok := v.of.(netset.Ports); ok {
			return ports
		}
		return w.objectOf(v, inside)
	case labels:
		m := make(Map, 0, len(v))
		for _, key := range v.keys() {
			m = append(m, Entry{key, v[key]})
		}
		return m
	case types.Null:
		return nil
	case *types.Optional:
		if v.HasValue() {
			return w.valueOf(v.GetValue(), inside)
		}
		return nil
	case traits.Mapper:
		m := Map{}
		for i := v.Iterator(); i.HasNext() == types.True; {
			key := i.Next()
			m = append(m, Entry{fmt.Sprint(key.Value()), w.valueOf(v.Get(key), inside)})
		}
		slices.SortFunc(m, func(a, b Entry) int { return cmp.Compare(a.Key, b.Key) })
		return m
	case traits.Lister:
		l := List{}
		for i := v.Iterator(); i.HasNext() == types.True; {
			l = append(l, w.valueOf(i.Next(), inside))
		}
		return l
	case types.Timestamp:
		return v.Time
	case types.Duration:
		return v.Duration
	case verdict, types.Bool, types.Int, types.Uint, types.Double, types.String, types.Bytes:
		return v.Value()
	}
	if text, ok := v.ConvertToType(types.StringType).(types.String); ok {
		return string(text)
	}
	return strings.TrimSpace(fmt.Sprint(v.Value()))
}

// objectOf returns an object as a value. One that is inside many is one value.
func (w *World) objectOf(v *object, inside bool) *Object {
	if known := w.meter.inside[v]; known != nil && inside {
		return known
	}
	o := &Object{Type: v.name, Text: v.text(v.of)}
	for _, f := range v.fields {
		if f.show == always || f.show == alone && !inside {
			o.Fields = append(o.Fields, Entry{f.name, w.valueOf(f.get(w, v.of), true)})
		}
	}
	if c, ok := v.of.(*connection); ok {
		from, to := c.from.of.(*peer).Peer, c.to.of.(*peer).Peer
		o.Connection = &policies.Connection{From: &from, To: &to, Grant: &policies.Grant{
			Allow: c.allow.of.(netset.Ports), Unknown: c.unknown.of.(netset.Ports),
		}}
	}
	if inside {
		w.meter.inside[v] = o
	}
	return o
}
