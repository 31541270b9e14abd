package selector

// Ways returns conjunctions, most of them at the most: a label set is in the
// selector if it is in any of them. Where there are no more than most, it is not
// in the selector otherwise.
func (s Selector) Ways(most int) []Selector {
	if s.IsNothing() || most <= 0 {
		return nil
	}
	ways := []Selector{Everything()}
	if s.join == anyOf {
		ways = nil
	}
	join := func(part []Selector) {
		if s.join == anyOf {
			ways = append(ways, part...)
		} else {
			var both []Selector
			for _, a := range ways {
				for _, b := range part {
					both = append(both, And(a, b))
				}
			}
			ways = both
		}
		ways = ways[:min(most, len(ways))]
	}
	for _, r := range s.get().requirements {
		join([]Selector{Where(r.Key, r.Operator, r.Values...)})
	}
	for _, g := range s.get().groups {
		join(g.Ways(most))
	}
	return ways
}
