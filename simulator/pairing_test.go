package simulator

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestTwinsAreMatched(t *testing.T) {
	type report struct {
		hour  int
		side  side
		flows uint64
	}
	for name, row := range map[string]struct {
		reports []report
		want    uint64
	}{
		"both sides":                             {[]report{{0, departed, 3}, {0, arrived, 3}}, 3},
		"the destination's side alone":           {[]report{{0, arrived, 3}}, 0},
		"the source's side alone":                {[]report{{0, departed, 3}}, 0},
		"the source's side has more":             {[]report{{0, departed, 5}, {0, arrived, 3}}, 3},
		"the destination's is in the next hour":  {[]report{{0, departed, 3}, {1, arrived, 3}}, 3},
		"the source's is in the next hour":       {[]report{{0, arrived, 3}, {1, departed, 3}}, 3},
		"no further":                             {[]report{{0, departed, 3}, {2, arrived, 3}}, 0},
		"every hour runs over":                   {[]report{{0, departed, 9}, {1, departed, 9}, {1, arrived, 9}, {2, arrived, 9}}, 18},
		"over midnight":                          {[]report{{23, departed, 1}, {24, arrived, 1}}, 1},
		"more than 16 bits":                      {[]report{{0, departed, 1 << 40}, {0, departed, 70_000}, {1, arrived, 1<<40 + 69_999}}, 1<<40 + 69_999},
		"before 1970":                            {[]report{{-1_000_000, departed, 2}, {-999_999, arrived, 2}}, 2},
		"somebody who is on neither's side":      {[]report{{0, departed, 3}, {0, neither, 3}}, 0},
		"an hour of the source's between others": {[]report{{0, arrived, 1}, {1, departed, 3}, {2, arrived, 1}}, 2},
	} {
		var p pairing
		for _, r := range row.reports {
			p.add(time.Unix(int64(r.hour)*3600+3599, 0), r.side, r.flows)
		}
		if got := p.matched(); got != row.want {
			t.Errorf("%s: %d, want %d", name, got, row.want)
		}
	}
}

// mostTwins matches each report by itself, along augmenting paths.
func mostTwins(left, entered []int) int {
	twin := make([]int, len(entered))
	for i := range twin {
		twin[i] = -1
	}
	var free func(i int, seen []bool) bool
	free = func(i int, seen []bool) bool {
		for k, hour := range entered {
			if seen[k] || max(hour-left[i], left[i]-hour) > 1 {
				continue
			}
			seen[k] = true
			if twin[k] < 0 || free(twin[k], seen) {
				twin[k] = i
				return true
			}
		}
		return false
	}
	n := 0
	for i := range left {
		if free(i, make([]bool, len(entered))) {
			n++
		}
	}
	return n
}

func TestNoMoreTwinsCanBeMatched(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hours := rapid.SliceOfN(rapid.IntRange(20, 30), 0, 12)
		var p pairing
		counts := [2][]int{hours.Draw(t, "departed"), hours.Draw(t, "arrived")}
		for s, list := range counts {
			for _, hour := range list {
				p.add(time.Unix(int64(hour)*3600, 0), side(s), 1)
			}
		}
		if got, want := p.matched(), mostTwins(counts[departed], counts[arrived]); got != uint64(want) {
			t.Fatalf("%d, want %d", got, want)
		}
	})
}

// TestSettledDaysMatchTheSame settles days one after another, whoever reports first
// on each.
func TestSettledDaysMatchTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var kept, settled pairing
		first := rapid.SampledFrom([]int64{-719162, -1, 0, 20513}).Draw(t, "first day")
		for _, day := range []int64{first, first + 1, first + 2, first + 9} {
			for range rapid.IntRange(0, 8).Draw(t, "reports") {
				hour := 24*day + rapid.SampledFrom([]int64{0, 0, 1, 12, 22, 23, 23}).Draw(t, "hour")
				of, flows := side(rapid.IntRange(0, 1).Draw(t, "side")), rapid.Uint64Range(0, 200_000).Draw(t, "flows")
				kept.addHours(of, []HourFlows{{hour, flows}})
				settled.addHours(of, []HourFlows{{hour, flows}})
			}
			if rapid.Bool().Draw(t, "settle") {
				settled.settle(int32(day) + 1)
				if len(settled.days)+len(settled.high) > 0 {
					t.Fatalf("%d days and %d counts are kept", len(settled.days), len(settled.high))
				}
			}
		}
		if want, got := kept.matched(), settled.matched(); got != want {
			t.Fatalf("%d, want %d", got, want)
		}
	})
}
