package query

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// ExposureOf says which workloads addresses outside can reach and which can reach
// them, and what could come to be reached or to reach: a new pod in a new
// namespace, the pods that some rule's selectors describe, and addresses that are
// put into an empty network set, wherever they would have more than anyone new.
func ExposureOf(j *reach.Judge) Answer {
	answer := Answer{Question: Exposure}
	world, err := j.Model().Find("world")
	if err != nil {
		panic(err) // the world outside is always there
	}
	for c := range j.Connections(reach.Listing{From: &world}) {
		answer.Rows = append(answer.Rows, Row{What: "is reached by", Peer: c.To, Other: c.From, Ports: c.Allow, Perhaps: c.Unknown})
	}
	for c := range j.Connections(reach.Listing{To: &world}) {
		answer.Rows = append(answer.Rows, Row{What: "reaches", Peer: c.From, Other: c.To, Ports: c.Allow, Perhaps: c.Unknown})
	}
	answer.Rows = append(answer.Rows, potential(j)...)
	answer.Rows = append(answer.Rows, filled(j)...)
	return answer
}

// chances are what somebody could come to reach, and be reached by, one for each
// resident.
type chances map[string]policies.Grant

// could returns what the first pods of a world, its residents, could come to be
// reached by or to reach: all of it, and as rows what is more than others have.
func could(j *reach.Judge, residents int, text string, who policies.Target, others chances) (chances, []Row) {
	there := policies.Target{}
	for i := range residents {
		there.Pods = append(there.Pods, i)
	}
	all := chances{}
	var rows []Row
	list := func(what string, l reach.Listing, resident func(policies.Connection) *policies.Peer) {
		for c := range j.Connections(l) {
			key := fmt.Sprint(what, *resident(c))
			all[key] = *c.Grant
			other := others[key]
			if !c.Allow.Minus(other.Allow).IsEmpty() || !c.Unknown.Minus(other.Allow).Minus(other.Unknown).IsEmpty() {
				rows = append(rows, Row{What: what, Peer: resident(c), Could: text, Ports: c.Allow, Perhaps: c.Unknown})
			}
		}
	}
	list("could be reached by", reach.Listing{From: &who, To: &there}, func(c policies.Connection) *policies.Peer { return c.To })
	list("could reach", reach.Listing{From: &there, To: &who}, func(c policies.Connection) *policies.Peer { return c.From })
	return all, rows
}

// potential adds a pod for everyone that could come, and asks what it reaches and
// what reaches it.
func potential(j *reach.Judge) []Row {
	residents := len(j.Model().Pods)
	with, strangers := invite(j.Model())
	j = reach.New(with, j.Options())
	var anyone chances
	var all []Row
	for i, s := range strangers {
		has, rows := could(j, residents, s.text, policies.Target{Pods: []int{s.pod}}, anyone)
		if i == 0 {
			anyone = has
		}
		all = append(all, rows...)
	}
	return all
}

// filled gives an address to each network set that has none, and asks what the
// address reaches and is reached by only for that.
func filled(j *reach.Judge) []Row {
	residents, who := len(j.Model().Pods), policies.Target{Addresses: netset.Prefix(nowhere)}
	var anyone chances
	var all []Row
	for i := range j.Model().Sets {
		set := &j.Model().Sets[i]
		if len(set.Nets)+len(set.Domains) > 0 {
			continue
		}
		if anyone == nil {
			anyone, _ = could(j, residents, "", who, nil)
		}
		with := *j.Model()
		with.Sets = slices.Clone(with.Sets)
		with.Sets[i].Nets = []netip.Prefix{nowhere}
		_, rows := could(reach.New(&with, j.Options()), residents, "addresses of "+set.Ref.What()+" "+set.Ref.String()+", which has none", who, anyone)
		all = append(all, rows...)
	}
	return all
}

// nowhere is an address that nobody has, of a range that is reserved.
var nowhere = netip.MustParsePrefix("240.90.90.90/32")
