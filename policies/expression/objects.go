package expression

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// class is a type of objects, such as Pod.
type class struct {
	name   string
	typ    *cel.Type
	fields []field // in the order in which an object is shown
	text   func(of any) string
}

// field is what an object of a class can be asked for.
type field struct {
	name string
	typ  *cel.Type
	show show
	get  func(w *World, of any) ref.Val
}

// show says where a field is part of an answer.
type show int

const (
	hidden show = iota // nowhere: it leads to other objects, or is seldom wanted
	alone              // where the object is an answer or in a list of them
	always             // also where the object is part of another
)

// of makes a field of objects that hold a T.
func of[T any](name string, typ *cel.Type, s show, get func(w *World, of T) ref.Val) field {
	return field{name, typ, s, func(w *World, of any) ref.Val { return get(w, of.(T)) }}
}

func (c *class) field(name string) *field {
	for i := range c.fields {
		if c.fields[i].name == name {
			return &c.fields[i]
		}
	}
	return nil
}

func (c *class) fieldNames() []string {
	var names []string
	for _, f := range c.fields {
		names = append(names, f.name)
	}
	return names
}

// object is a thing of the world as expressions see it. But for ports, what it is
// of is a value that stands for nothing else, so equal ones are equal objects.
type object struct {
	*class
	world *World
	of    any
}

var (
	_ traits.Indexer     = (*object)(nil)
	_ traits.FieldTester = (*object)(nil)
)

func (o *object) ConvertToNative(t reflect.Type) (any, error) {
	return nil, fmt.Errorf("%s cannot become %v", o.name, t)
}

func (o *object) ConvertToType(t ref.Type) ref.Val {
	switch t {
	case types.TypeType:
		return o.typ
	case types.StringType:
		return types.String(o.text(o.of))
	}
	return types.NewErr("a %s cannot become a %s", o.name, t.TypeName())
}

func (o *object) Equal(other ref.Val) ref.Val {
	p, ok := other.(*object)
	if !ok || o.class != p.class {
		return types.False
	}
	if ports, ok := o.of.(netset.Ports); ok {
		return types.Bool(ports.Equal(p.of.(netset.Ports)))
	}
	return types.Bool(o.of == p.of)
}

func (o *object) Type() ref.Type { return o.typ }
func (o *object) Value() any     { return o }

// Get and IsSet serve values whose type was not known when the expression was
// compiled; those of known types go through the provider.
func (o *object) Get(name ref.Val) ref.Val {
	text, ok := name.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(name)
	}
	if f := o.field(string(text)); f != nil {
		return f.get(o.world, o.of)
	}
	return types.NewErr("no field %s in %s%s", text, o.name, meant(string(text), o.fieldNames()))
}

func (o *object) IsSet(name ref.Val) ref.Val {
	v := o.Get(name)
	if types.IsError(v) {
		return v
	}
	return types.Bool(isSet(v))
}

// isSet reports whether a field says something: what has() asks.
func isSet(v ref.Val) bool {
	if z, ok := v.(traits.Zeroer); ok {
		return !z.IsZeroValue()
	}
	if s, ok := v.(traits.Sizer); ok {
		return s.Size() != types.IntZero
	}
	return v != types.NullValue
}

// provider lets the checker see the classes, beside the types it knows already.
// Where misses is set, it notes each field that no class has.
type provider struct {
	types.Provider
	classes map[string]*class
	misses  *[]miss
}

type miss struct{ class, field string }

func (p provider) FindStructType(name string) (*types.Type, bool) {
	if c, ok := p.classes[name]; ok {
		return types.NewTypeTypeWithParam(c.typ), true
	}
	return p.Provider.FindStructType(name)
}

func (p provider) FindStructFieldNames(name string) ([]string, bool) {
	if c, ok := p.classes[name]; ok {
		return c.fieldNames(), true
	}
	return p.Provider.FindStructFieldNames(name)
}

func (p provider) FindStructFieldType(name, fieldName string) (*types.FieldType, bool) {
	c, ok := p.classes[name]
	if !ok {
		return p.Provider.FindStructFieldType(name, fieldName)
	}
	f := c.field(fieldName)
	if f == nil {
		if p.misses != nil {
			*p.misses = append(*p.misses, miss{name, fieldName})
		}
		return nil, false
	}
	get := func(of any) ref.Val {
		o, ok := of.(*object)
		if !ok || o.class != c {
			return types.NewErr("%v is no %s", of, name)
		}
		return f.get(o.world, o.of)
	}
	return &types.FieldType{
		Type:  f.typ,
		IsSet: func(of any) bool { return isSet(get(of)) },
		GetFrom: func(of any) (any, error) {
			v := get(of)
			if err, ok := v.(*types.Err); ok {
				return nil, err
			}
			return v, nil
		},
	}, true
}

func (p provider) NewValue(name string, fields map[string]ref.Val) ref.Val {
	if _, ok := p.classes[name]; ok {
		return types.NewErr("a %s comes from the world; an expression cannot make one", name)
	}
	return p.Provider.NewValue(name, fields)
}

// list makes a list of what wrap makes of each value.
func list[T any](values []T, wrap func(*T) ref.Val) ref.Val {
	all := make([]ref.Val, len(values))
	for i := range values {
		all[i] = wrap(&values[i])
	}
	return types.NewRefValList(types.DefaultTypeAdapter, all)
}

func texts[T any](values []T, text func(T) string) ref.Val {
	return list(values, func(v *T) ref.Val { return types.String(text(*v)) })
}

// meant returns the hint "; did you mean from?" where one of the names is near
// enough to be what was meant, else "; it has …" with all of them.
func meant(name string, names []string) string {
	best, distance := "", 0
	for _, n := range slices.Sorted(slices.Values(names)) {
		if d := policies.Distance(name, n); best == "" || d < distance {
			best, distance = n, d
		}
	}
	if best != "" && distance <= max(1, min(len(name), len(best))/2) {
		return "; did you mean " + best + "?"
	}
	return "; it has " + enumerated(names)
}
