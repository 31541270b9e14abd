package flowstore

import (
	"cmp"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies"
)

// TestSortByTuple compares with a sort that asks the whole order of every two rows.
func TestSortByTuple(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		table := newTable()
		made := generate(small(rapid.Uint64Range(1, 5).Draw(rt, "seed")), 40)
		var rows []row
		for _, i := range rapid.SliceOf(rapid.IntRange(0, len(made)-1)).Draw(rt, "flows") {
			r := table.row(&made[i])
			r.start += rapid.SampledFrom([]int64{0, 1, -1 << 62, 1 << 60}).Draw(rt, "later")
			r.verdict = rapid.SampledFrom([]policies.Verdict{policies.Allow, policies.Deny, policies.Unknown}).Draw(rt, "verdict")
			r.egressOnly, r.count = rapid.Bool().Draw(rt, "egress only"), uint64(len(rows))
			rows = append(rows, r)
		}
		want := slices.Clone(rows)
		slices.SortStableFunc(want, func(a, b row) int {
			return cmp.Or(table.compareTuples(&table.tuples[a.tuple], &table.tuples[b.tuple]), compareWithin(&a, &b))
		})
		table.sortByTuple(rows)
		if diff := gocmp.Diff(want, rows, gocmp.AllowUnexported(row{})); diff != "" {
			rt.Error(diff)
		}
	})
}
