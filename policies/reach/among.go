package reach

import (
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Has reports whether an end is in a group.
func (j *Judge) Has(g Group, e End) policies.Truth {
	if g.frame == nil {
		return policies.No
	}
	column := j.outside
	if class := j.classOf(e); class >= 0 {
		column = j.classes[class].columns[0]
	} else {
		column += j.atomOf(e.addr)
	}
	switch {
	case g.sure.has(column):
		return policies.Yes
	case g.possible.has(column):
		return policies.Maybe
	}
	return policies.No
}

// Named returns the ports to which an end gives a name.
func (j *Judge) Named(e End, name string) netset.Ports { return j.numbersBehind(e, name) }
