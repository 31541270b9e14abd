package expression

import (
	"fmt"
	"reflect"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"

	"github.com/weir-policy/weir/policies"
)

// verdictType has the values allow, deny and unknown and no others. It is no
// string, so that a misspelt verdict does not compile rather than differ from
// every verdict.
var verdictType = cel.OpaqueType("Verdict")

type verdict policies.Verdict

func (v verdict) ConvertToNative(t reflect.Type) (any, error) {
	return nil, fmt.Errorf("a verdict cannot become %v", t)
}

func (v verdict) ConvertToType(t ref.Type) ref.Val {
	switch t {
	case types.TypeType:
		return verdictType
	case types.StringType:
		return types.String(policies.Verdict(v).String())
	}
	return types.NewErr("a verdict cannot become a %s", t.TypeName())
}

func (v verdict) Equal(other ref.Val) ref.Val {
	u, ok := other.(verdict)
	return types.Bool(ok && u == v)
}

func (v verdict) Type() ref.Type { return verdictType }
func (v verdict) Value() any     { return policies.Verdict(v) }
