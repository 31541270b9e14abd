package flowstore

import (
	"testing"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator/flowrow"
)

// The columns of rows in memory are those of the files, in their order.
func TestColumnsAreThoseOfFiles(t *testing.T) {
	columns := flowrow.FlowColumns()
	for i, c := range flowLayout.columns {
		switch {
		case c.name == "tuple":
			if i != len(columns) {
				t.Errorf("%d columns, of %d before the tuple", len(columns), i)
			}
		case columns[i].Name != c.name || (columns[i].Type == flowrow.TextColumn) != c.text || (columns[i].Type == flowrow.MomentColumn) != c.moment:
			t.Errorf("column %d is %+v, and of files %+v", i, columns[i], c)
		}
	}
	for _, c := range columns {
		if v := c.Of(&policies.Flow{}); c.Type == flowrow.MomentColumn && v != nil {
			t.Errorf("%s of nothing is %v", c.Name, v)
		}
	}
}
