package policies

// Conversion is what becomes of a policy that is to be written as one of another
// kind.
type Conversion struct {
	From Ref
	To   Ref // the zero Ref where the policy could not be converted
	// Lost is what cannot be carried over. A policy that would lose anything is
	// not converted at all.
	Lost []Remark
	// Changed is what is written in another way than the kinds alone make it, or
	// left out because it changes no answer.
	Changed []Remark
	Place   Place
}

// Remark is something to say of a policy or of one of its rules.
type Remark struct {
	Direction Direction // of the rule
	Rule      int       // its index, -1 where the whole policy is meant
	Because   string    // one clause, lower case, no full stop
	Place     Place
}
