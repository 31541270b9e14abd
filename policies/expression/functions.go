package expression

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/selector"
)

// function is one that CEL does not have.
type function struct {
	name   string
	usage  string // as a hint shows it
	member bool
	args   [][]*cel.Type // for each argument the types that it may have
	result *cel.Type
	call   func(*World, []ref.Val) ref.Val // nil converts to the result
}

var (
	ends   = []*cel.Type{peerType, podType, nodeType, serviceType, cel.StringType}
	onPort = []*cel.Type{cel.IntType, cel.StringType}
)

var functions = []function{
	{"reach", "reach(from, to, port)", false, [][]*cel.Type{ends, ends, onPort}, verdictType, (*World).reach},
	{"explain", "explain(from, to, port)", false, [][]*cel.Type{ends, ends, onPort}, cel.StringType, (*World).explain},
	{"selects", "selects(policy, pod)", false, [][]*cel.Type{{policyType}, {podType}}, cel.BoolType, selectsAtLeast(policies.Yes)},
	{"maySelect", "maySelect(policy, pod)", false, [][]*cel.Type{{policyType}, {podType}}, cel.BoolType, selectsAtLeast(policies.Maybe)},
	{"includes", "ports.includes(port)", true, [][]*cel.Type{{portsType}, onPort}, cel.BoolType, (*World).includes},
	{"selected", "labels.selected(selector)", true, [][]*cel.Type{{labelsType}, {cel.StringType}}, cel.BoolType, (*World).isSelected},
	{"string", "string(value)", false, [][]*cel.Type{{verdictType, portsType, peerType, podType, policyType}}, cel.StringType, nil},
}

// overloads yields each choice of argument types with its name.
func (f *function) overloads(each func(id string, args []*cel.Type)) {
	chosen := make([]*cel.Type, len(f.args))
	var choose func(n int, id string)
	choose = func(n int, id string) {
		if n == len(f.args) {
			each("weir_"+id, slices.Clone(chosen))
			return
		}
		for _, t := range f.args[n] {
			chosen[n] = t
			choose(n+1, id+"_"+strings.ToLower(t.TypeName()))
		}
	}
	choose(0, f.name)
}

// bindings holds the function of each overload.
var bindings = func() map[string]*function {
	all := map[string]*function{}
	for i := range functions {
		if functions[i].call != nil {
			functions[i].overloads(func(id string, _ []*cel.Type) { all[id] = &functions[i] })
		}
	}
	return all
}()

// replaced are functions of the libraries that do the same in less time: theirs
// compares each element with each, and compiles the pattern for each text.
var replaced = map[string]*function{
	"distinct": {name: "distinct", args: [][]*cel.Type{{cel.ListType(cel.DynType)}}, call: (*World).distinct},
	"matches":  {name: "matches", args: [][]*cel.Type{{cel.StringType}, {cel.StringType}}, call: (*World).matches},
}

// check fails where values have types that the function does not take, which
// the checker cannot see of values such as those of a list of lists.
func (f *function) check(values []ref.Val) error {
	for i, v := range values {
		if !slices.ContainsFunc(f.args[i], func(t *cel.Type) bool { return t.TypeName() == v.Type().TypeName() }) {
			return fmt.Errorf("%s takes no %s", f.name, v.Type().TypeName())
		}
	}
	return nil
}

// declare declares a function to the checker. What asks the world comes into a
// program with it.
func (f *function) declare() cel.EnvOption {
	var options []cel.FunctionOpt
	f.overloads(func(id string, args []*cel.Type) {
		declare := cel.Overload
		if f.member {
			declare = cel.MemberOverload
		}
		if f.call == nil {
			options = append(options, declare(id, args, f.result, cel.UnaryBinding(func(v ref.Val) ref.Val { return v.ConvertToType(f.result) })))
			return
		}
		options = append(options, declare(id, args, f.result))
	})
	return cel.Function(f.name, options...)
}

// What a decision costs: one between two pods is looked up, others are put
// together from many.
const (
	lookedUp    = 20
	putTogether = 300
)

// end is one end of a question. It is of nothing where a recorded end is not in
// the world.
type end struct {
	policies.Target
	ends  []reach.End
	known bool // ends are worked out
}

// question is what reach and explain are asked.
type question struct {
	from, to *end
	port     policies.PortQuery
}

func (w *World) question(args []ref.Val) (q question, err error) {
	if q.from, err = w.endOf(args[0]); err != nil {
		return q, err
	}
	if q.to, err = w.endOf(args[1]); err != nil {
		return q, err
	}
	q.port, err = w.port(args[2])
	return q, err
}

// endOf returns what an argument names.
func (w *World) endOf(v ref.Val) (*end, error) {
	var e *end
	var err error
	switch v := v.(type) {
	case types.String:
		e, err = w.endNamed(string(v))
	case *object:
		switch of := v.of.(type) {
		case *peer:
			e = of.end
		case *pod:
			e = of.end
		case *policies.Service:
			e, err = w.endNamed(of.Ref.Namespace + "/svc/" + of.Ref.Name)
		case *policies.Node:
			i := slices.IndexFunc(w.model.Nodes, func(n policies.Node) bool { return n.Name == of.Name })
			e = &end{Target: policies.Target{Text: of.Name, Nodes: []int{i}}}
		}
	}
	if err == nil && !e.known {
		e.ends, e.known = w.judge.Ends(e.Target), true
	}
	return e, err
}

func (w *World) endNamed(text string) (*end, error) {
	return remembered(w.ends, text, func(string) (*end, error) {
		t, err := w.model.Find(text)
		return &end{Target: t}, err
	})
}

func (w *World) reach(args []ref.Val) ref.Val {
	q, err := w.question(args)
	if err != nil {
		return types.WrapErr(err)
	}
	if verdicts, ok := w.lookUp(q); ok {
		return verdict(verdicts)
	}
	d, err := w.decide(q)
	if err != nil {
		return types.WrapErr(err)
	}
	return verdict(d.Verdict)
}

// lookUp answers a question about the numbers of ports, but for those behind a
// Service and for what a pod asks of itself, as decide does and without reasons.
func (w *World) lookUp(q question) (policies.Verdict, bool) {
	if q.to.Service != nil || q.port.Name != "" || !q.from.Addresses.IsEmpty() && !q.to.Addresses.IsEmpty() {
		return policies.Undecided, false
	}
	w.meter.spend(lookedUp * uint64(len(q.from.ends)*len(q.to.ends)))
	verdict := policies.Unknown
	for i, from := range q.from.ends {
		for k, to := range q.to.ends {
			if from == to {
				return policies.Undecided, false
			}
			allowed, unknown := w.judge.Ports(from, to)
			one := policies.Unknown
			switch {
			case q.port.Ports.Minus(allowed).IsEmpty():
				one = policies.Allow
			case q.port.Ports.Intersect(allowed.Union(unknown)).IsEmpty():
				one = policies.Deny
			}
			if i+k > 0 && one != verdict {
				return policies.Unknown, true
			}
			verdict = one
		}
	}
	return verdict, true
}

// decide answers a question with reasons.
func (w *World) decide(q question) (policies.Decision, error) {
	w.meter.spend(putTogether + uint64(len(q.from.Pods)+len(q.to.Pods)))
	if !q.from.Addresses.IsEmpty() && !q.to.Addresses.IsEmpty() {
		return policies.Decision{Verdict: policies.Unknown, Because: "policies decide nothing between addresses outside"}, nil
	}
	named := true
	for _, e := range []*end{q.from, q.to} {
		if len(e.ends) == 0 {
			return policies.Decision{Verdict: policies.Unknown, Because: e.Text + " is not in the world"}, nil
		}
		named = named && (len(e.Pods) > 0 || len(e.Nodes) > 0 || !e.Addresses.IsEmpty())
	}
	if !named { // as a pod's own node is not
		from, to := q.from.ends[0], q.to.ends[0]
		return w.judge.DecideTogether(from, to, [2]policies.Peer{w.judge.Peer(from), w.judge.Peer(to)}, q.port.Ports), nil
	}
	return w.judge.Ask(reach.Question{From: q.from.Target, To: q.to.Target, Port: q.port})
}

func (w *World) explain(args []ref.Val) ref.Val {
	q, err := w.question(args)
	if err != nil {
		return types.WrapErr(err)
	}
	d, err := w.decide(q)
	if err != nil {
		return types.WrapErr(err)
	}
	return types.String(Reason(&d))
}

// Reason says a decision in one line.
func Reason(d *policies.Decision) string {
	var clauses []string
	for _, direction := range policies.Directions {
		side := &d.Sides[direction]
		if side.Because == "" || d.Verdict == policies.Deny && side.Verdict == policies.Allow {
			continue
		}
		clause := direction.String() + ": " + side.Because
		if at := side.At.String(); at != "" {
			clause += " (" + at + ")"
		}
		clauses = append(clauses, clause)
	}
	if len(clauses) == 0 && d.Because != "" {
		clauses = []string{d.Because}
	}
	if len(clauses) == 0 {
		for i := range d.Parts {
			if part := Reason(&d.Parts[i]); !slices.Contains(clauses, part) {
				clauses = append(clauses, part)
			}
		}
	}
	return strings.TrimSuffix(d.Verdict.String()+", "+strings.Join(clauses, "; "), ", ")
}

func (w *World) port(v ref.Val) (policies.PortQuery, error) {
	if n, ok := v.(types.Int); ok {
		return remembered(w.queries, strconv.FormatInt(int64(n), 10), policies.ParsePort)
	}
	return remembered(w.queries, string(v.(types.String)), policies.ParsePort)
}

// remembered parses a text once, for loops ask the same again and again.
func remembered[T any](known map[string]T, text string, parse func(string) (T, error)) (T, error) {
	v, ok := known[text]
	if ok {
		return v, nil
	}
	v, err := parse(text)
	if err == nil {
		known[text] = v
	}
	return v, err
}

func selectsAtLeast(truth policies.Truth) func(*World, []ref.Val) ref.Val {
	return func(w *World, args []ref.Val) ref.Val {
		w.meter.spend(lookedUp)
		return types.Bool(w.selects(args[0].(*object).of.(*policy).index, args[1].(*object).of.(*pod).index) >= truth)
	}
}

// includes reports whether ports hold all of a port or range.
func (w *World) includes(args []ref.Val) ref.Val {
	q, err := w.port(args[1])
	if err != nil {
		return types.WrapErr(err)
	}
	if q.Name != "" {
		return types.NewErr("port %q is a name, which pods give different numbers; give a number, as in 5432 or \"UDP/53\"", q.Name)
	}
	ports := args[0].(*object).of.(netset.Ports)
	return types.Bool(q.Ports.Minus(ports).IsEmpty())
}

func (w *World) isSelected(args []ref.Val) ref.Val {
	s, err := remembered(w.selectors, string(args[1].(types.String)), selector.Parse)
	if err != nil {
		return types.WrapErr(err)
	}
	return types.Bool(s.Matches(plainLabels(args[0])))
}

func plainLabels(v ref.Val) map[string]string {
	if l, ok := v.(labels); ok {
		return l
	}
	plain := map[string]string{}
	m := v.(traits.Mapper)
	for i := m.Iterator(); i.HasNext() == types.True; {
		key := i.Next()
		plain[fmt.Sprint(key.Value())] = fmt.Sprint(m.Get(key).Value())
	}
	return plain
}

// distinct leaves out of a list what it had before.
func (w *World) distinct(args []ref.Val) ref.Val {
	var all []ref.Val
	seen := map[any]bool{}
	var others []ref.Val // that are no keys of a Go map
	for i := args[0].(traits.Lister).Iterator(); i.HasNext() == types.True; {
		v := i.Next()
		key := any(v)
		switch o := v.(type) {
		case *object:
			if ports, ok := o.of.(netset.Ports); ok {
				key = ports.Key()
			} else {
				key = o.of
			}
		case types.String, types.Int, types.Uint, types.Bool, types.Double, verdict:
		default:
			w.meter.spend(uint64(len(others)))
			if slices.ContainsFunc(others, func(o ref.Val) bool { return types.Equal(o, v) == types.True }) {
				continue
			}
			others = append(others, v)
			all = append(all, v)
			continue
		}
		if !seen[key] {
			seen[key] = true
			all = append(all, v)
		}
	}
	return types.NewRefValList(types.DefaultTypeAdapter, all)
}

func (w *World) matches(args []ref.Val) ref.Val {
	pattern, err := remembered(w.patterns, string(args[1].(types.String)), regexp.Compile)
	if err != nil {
		return types.WrapErr(err)
	}
	text := string(args[0].(types.String))
	w.meter.spend(uint64(len(text)) / characters)
	return types.Bool(pattern.MatchString(text))
}
