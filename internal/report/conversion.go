package report

import (
	"bufio"
	"fmt"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/diff"
)

// Conversion is what became of policies that were to be written as others.
type Conversion struct {
	To       string // as the target was asked for
	Policies []policies.Conversion
	YAML     []byte // those that could be converted
	// Change is what the policies decide differently once those that were converted
	// stand in the place of what they were made of.
	Change *diff.Change
	// Compared is how many pairs of workloads, or of a workload and all addresses
	// outside, were looked at for that.
	Compared int
	// Calico is set where both sides are decided as Calico decides.
	Calico bool
}

// Alike reports whether the world is decided as before.
func (c *Conversion) Alike() bool { return len(c.Change.Differences) == 0 }

// Manifests returns the YAML to use, which is none unless it decides alike.
func (c *Conversion) Manifests() []byte {
	if !c.Alike() {
		return nil
	}
	return c.YAML
}

// IsWhole reports whether every policy could be converted and all is decided as
// before.
func (c *Conversion) IsWhole() bool { return c.Alike() && len(c.refused()) == 0 }

func (c *Conversion) converted() []policies.Conversion {
	return slices.DeleteFunc(slices.Clone(c.Policies), isRefused)
}

func (c *Conversion) refused() []policies.Conversion {
	return slices.DeleteFunc(slices.Clone(c.Policies), func(p policies.Conversion) bool { return !isRefused(p) })
}

func isRefused(p policies.Conversion) bool { return p.To == (policies.Ref{}) }

func conversionText(out *bufio.Writer, c *Conversion, paint paint) {
	converted, refused := c.converted(), c.refused()
	for _, part := range []struct {
		policies []policies.Conversion
		verdict  policies.Verdict
		text     string
		remarks  func(*policies.Conversion) []policies.Remark
	}{
		{converted, policies.Allow, "converted", func(p *policies.Conversion) []policies.Remark { return p.Changed }},
		{refused, policies.Deny, "not converted", func(p *policies.Conversion) []policies.Remark { return p.Lost }},
	} {
		for i := range part.policies {
			p := &part.policies[i]
			fmt.Fprintf(out, "%s  %s %s", paint.verdict(part.verdict, part.text), clean(p.From.What()), clean(p.From.String()))
			if !isRefused(*p) {
				fmt.Fprintf(out, " to %s", clean(p.To.What()))
			}
			fmt.Fprintf(out, "  %s\n", paint.dim(clean(p.Place.String())))
			for _, r := range part.remarks(p) {
				fmt.Fprintf(out, "  %s%s  %s\n", ruleText(&r), clean(r.Because), paint.dim(clean(r.Place.String())))
			}
		}
	}
	if len(c.Policies) > 0 {
		out.WriteByte('\n')
	}
	fmt.Fprintf(out, "%s converted, %s not.\n", policiesText(len(converted)), grouped(len(refused)))
	switch {
	case len(converted) == 0:
	case !c.Alike():
		out.WriteString(paint.bold("They would not decide alike, so nothing is written:") + "\n\n")
		movesText(out, movesOf(c.Change), paint)
	case c.Compared == 0:
		out.WriteString("Nothing shows that they decide alike: there are no workloads; name some with -f or --world.\n")
	default:
		fmt.Fprintf(out, "Before and after decide alike in this world: %s compared over every protocol%s.\n", pairsText(c.Compared), calicoText(c))
	}
	warningsText(out, c.Change.Warnings, paint)
}

func policiesText(n int) string { return counted(n, "policy") }

func pairsText(n int) string { return counted(n, "pair") + " of workloads and the outside" }

// calicoText says by whose rules ICMP is decided.
func calicoText(c *Conversion) string {
	if !c.Calico {
		return ""
	}
	return ", as Calico decides, ICMP included; engines of NetworkPolicy differ on ICMP"
}

// ruleText names the rule of a remark, counted from 1 as in other texts.
func ruleText(r *policies.Remark) string {
	if r.Rule < 0 {
		return ""
	}
	return fmt.Sprintf("%s rule %d: ", r.Direction, r.Rule+1)
}

func conversionJSON(o *object, c *Conversion) {
	o.text("to", c.To)
	o.number("converted", uint64(len(c.converted())))
	o.number("refused", uint64(len(c.refused())))
	o.value("alike", fmt.Appendf(nil, "%t", c.Alike()))
	o.number("compared", uint64(c.Compared))
	o.value("calico", fmt.Appendf(nil, "%t", c.Calico))
	list(o, "policies", slices.Values(c.Policies), func(b []byte, p policies.Conversion) []byte {
		b = appendRef(appendName(append(b, '{'), "from"), p.From)
		if !isRefused(p) {
			b = appendRef(appendName(b, "to"), p.To)
		}
		b = appendMember(b, "at", p.Place.String())
		b = appendList(appendName(b, "lost"), p.Lost, appendRemark)
		return append(appendList(appendName(b, "changed"), p.Changed, appendRemark), '}')
	})
	o.text("yaml", string(c.Manifests()))
	change := o.child("change").of(KindChange)
	changeMembers(change, c.Change)
	change.close()
	o.close()
}

func appendRemark(b []byte, r policies.Remark) []byte {
	b = append(b, '{')
	if r.Rule >= 0 {
		b = appendMember(b, "direction", r.Direction.String())
		b = appendNumber(b, "rule", uint64(r.Rule))
	}
	b = appendMember(b, "because", r.Because)
	return append(appendMember(b, "at", r.Place.String()), '}')
}
