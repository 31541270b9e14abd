package expression

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
)

// labels are a map in which a key that is not there has the value "", so that
// asking for a label that not everything carries is no error. "in", has() and
// the macros see the keys that are there.
//
// It is no traits.Mapper, for the interpreter itself fails on the missing keys
// of those.
type labels map[string]string

var (
	_ traits.Indexer     = labels(nil)
	_ traits.FieldTester = labels(nil)
	_ traits.Container   = labels(nil)
	_ traits.Sizer       = labels(nil)
	_ traits.Iterable    = labels(nil)
	_ traits.Zeroer      = labels(nil)
)

func (l labels) Get(key ref.Val) ref.Val {
	k, ok := key.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(key)
	}
	return types.String(l[string(k)])
}

func (l labels) IsSet(key ref.Val) ref.Val { return l.Contains(key) }

func (l labels) Contains(key ref.Val) ref.Val {
	k, ok := key.(types.String)
	if !ok {
		return types.False
	}
	_, has := l[string(k)]
	return types.Bool(has)
}

func (l labels) Size() ref.Val        { return types.Int(len(l)) }
func (l labels) IsZeroValue() bool    { return len(l) == 0 }
func (l labels) keys() []string       { return slices.Sorted(maps.Keys(l)) }
func (l labels) Type() ref.Type       { return types.MapType }
func (l labels) Value() any           { return l }
func (l labels) plain() traits.Mapper { return types.NewStringStringMap(types.DefaultTypeAdapter, l) }

func (l labels) Iterator() traits.Iterator {
	return texts(l.keys(), func(key string) string { return key }).(traits.Lister).Iterator()
}

func (l labels) Equal(other ref.Val) ref.Val {
	if m, ok := other.(labels); ok {
		return types.Bool(maps.Equal(l, m))
	}
	return l.plain().Equal(other)
}

func (l labels) ConvertToNative(t reflect.Type) (any, error) {
	if t == reflect.TypeFor[map[string]string]() {
		return map[string]string(l), nil
	}
	return nil, fmt.Errorf("labels cannot become %v", t)
}

func (l labels) ConvertToType(t ref.Type) ref.Val {
	if t == types.TypeType {
		return types.MapType
	}
	return l.plain().ConvertToType(t)
}

// ordered is a map whose keys come in their order.
type ordered struct {
	traits.Mapper
	keys []ref.Val
}

func newOrdered(m traits.Mapper) *ordered {
	o := &ordered{Mapper: m}
	for i := m.Iterator(); i.HasNext() == types.True; {
		o.keys = append(o.keys, i.Next())
	}
	slices.SortFunc(o.keys, func(a, b ref.Val) int {
		if c, ok := a.(traits.Comparer); ok && a.Type() == b.Type() {
			if n, ok := c.Compare(b).(types.Int); ok {
				return int(n)
			}
		}
		return strings.Compare(a.Type().TypeName(), b.Type().TypeName())
	})
	return o
}

func (o *ordered) Iterator() traits.Iterator {
	return types.NewRefValList(types.DefaultTypeAdapter, o.keys).Iterator()
}

func (o *ordered) Fold(f traits.Folder) {
	for _, key := range o.keys {
		if !f.FoldEntry(key, o.Get(key)) {
			return
		}
	}
}
