package expression

import (
	"context"

	"github.com/weir-policy/weir/policies/reach"
)

// Program is a policy in another language, such as Rego: it says what breaks it. It is
// an interface so that who only reads policies need not bring along the language.
type Program interface {
	// String returns the policy as it was written.
	String() string
	// AsksFlows reports whether it asks what was recorded.
	AsksFlows() bool
	// Evaluate returns what breaks it in the world of a judge, in at most so many steps,
	// sorted. Memory is what an evaluation in the same world returned before, nil for
	// none: what is worked out for one need not be again.
	Evaluate(ctx context.Context, j *reach.Judge, recorded Recorded, memory any, steps uint64) ([]Violation, any, error)
}

// ProgramSteps is how many steps a Program may take by default: a second or two on one
// core.
const ProgramSteps = 2_000_000

// Violation is one thing that breaks a Program. From, To and Port are empty where it
// does not say them; else they are as weir explain takes them.
type Violation struct{ Message, From, To, Port string }
