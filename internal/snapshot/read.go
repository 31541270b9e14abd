package snapshot

import (
	"maps"
	"strconv"

	jsoniter "github.com/json-iterator/go"
)

// Reader reads objects of one kind as JSON, with what Trim looks at and little else: what
// nobody asks for, which is most of a pod, never takes memory.
type Reader struct{ wanted fields }

// NewReader returns a reader of objects of an API group and kind.
func NewReader(group, kind string) Reader {
	return Reader{join(join(common, fieldsOf(group, kind)), always)}
}

// always is what is read whatever Trim leaves: what a server says of a version, and what it
// says in place of an object.
var always = paths("metadata.{annotations,deletionTimestamp,resourceVersion,uid}", "code", "message", "reason", "details")

// join returns all fields that either has.
func join(a, b fields) fields {
	all := maps.Clone(a)
	for name, below := range b {
		if had, has := all[name]; has && had != nil && below != nil {
			below = join(had, below)
		} else if has {
			below = nil
		}
		all[name] = below
	}
	return all
}

// Read reads the next value. What is wrong with it is the iterator's Error.
func (r Reader) Read(from *jsoniter.Iterator) Object { return mapping(read(from, r.wanted)) }

// read reads a value as encoding/json does, but for whole numbers, which are of 64 bits. Of
// objects, and of those in lists, it has the fields that are wanted, nil being all.
func read(from *jsoniter.Iterator, wanted fields) any {
	switch from.WhatIsNext() {
	case jsoniter.ObjectValue:
		all := map[string]any{}
		from.ReadMapCB(func(from *jsoniter.Iterator, name string) bool {
			below, has := wanted[name]
			if wanted != nil && !has {
				from.Skip()
				return true
			}
			all[name] = read(from, below)
			return true
		})
		return all
	case jsoniter.ArrayValue:
		all := []any{}
		from.ReadArrayCB(func(from *jsoniter.Iterator) bool {
			all = append(all, read(from, wanted))
			return true
		})
		return all
	case jsoniter.NumberValue:
		n := from.ReadNumber()
		if whole, err := strconv.ParseInt(string(n), 10, 64); err == nil {
			return whole
		}
		f, err := n.Float64()
		if err != nil {
			from.ReportError("number", err.Error())
		}
		return f
	}
	return from.Read() // a text, a truth or nothing
}
