package policies

import "github.com/weir-policy/weir/policies/netset"

// Crowd is pods that a world has one of each kind of, see Pod.Kind: one that stands for
// all whom no policy can tell apart from it. Its addresses are those of one of them, or
// of one that was.
type Crowd struct {
	Members netset.AddressMap[Member]
}

// Member is a pod of a crowd, at one of its addresses.
type Member struct {
	Kind int32 // that of the pod that stands for it
	*Individual
}

// Individual is what a pod of a crowd is itself.
type Individual struct {
	Name string
	// Like is what it shares with others: all but names, addresses, node and place.
	Like *Pod
}
