package lint

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies"
)

// WaiveAnnotation is the annotation of a policy that waives findings about it:
// "CHECK until 2027-01-31: reason", several separated by semicolons.
const WaiveAnnotation = "weir.dev/waive"

// Waiver keeps the findings of one check about one policy from counting, until
// the end of a day in UTC.
type Waiver struct {
	Check  string
	Until  time.Time // the day's beginning
	Reason string
}

// waive parts the findings of a look into those that count and those that are
// waived. What is wrong with the waivers counts too.
func waive(l *look, chosen []Check, now time.Time) (count, waived []Finding) {
	ran := func(name string) bool {
		return slices.ContainsFunc(chosen, func(c Check) bool { return c.Name == name })
	}
	l.check = "waiver"
	objects := l.bearers()
	waivers := make([][]Waiver, len(objects))
	used := map[[2]any]bool{}
	wrong := look{check: "waiver"}
	for i, o := range objects {
		for _, text := range strings.Split(o.text, ";") {
			if text = strings.TrimSpace(text); text == "" {
				continue
			}
			w, err := parseWaiver(text)
			switch {
			case err != nil:
				wrong.reportOf(Error, o.place, i, o.ref, "%v", err)
			case !now.Before(w.Until.AddDate(0, 0, 1)):
				wrong.reportOf(Warning, o.place, i, o.ref, "the waiver of %s expired at the end of %s (%s); cure what it waived, or give it a new date", w.Check, w.Until.Format(time.DateOnly), w.Reason)
			default:
				waivers[i] = append(waivers[i], w)
			}
		}
	}
	for _, f := range l.found {
		at := -1
		if f.policy != noPolicy {
			at = slices.IndexFunc(waivers[f.policy], func(w Waiver) bool { return w.Check == f.Check })
		}
		if at < 0 {
			count = append(count, f.Finding)
			continue
		}
		f.Waiver = &waivers[f.policy][at]
		used[[2]any{f.policy, f.Check}] = true
		waived = append(waived, f.Finding)
	}
	for i, list := range waivers {
		for _, w := range list {
			if ran(w.Check) && !used[[2]any{i, w.Check}] {
				wrong.reportOf(Note, objects[i].place, i, objects[i].ref, "the waiver of %s waives nothing any more; remove it", w.Check)
			}
		}
	}
	if ran("waiver") {
		for _, f := range wrong.found {
			count = append(count, f.Finding)
		}
	}
	return count, waived
}

// bearer is what can bear waivers, with their text.
type bearer struct {
	ref   policies.Ref
	place policies.Place
	text  string
}

// bearers returns the policies, and the staged ones behind them.
func (l *look) bearers() []bearer {
	var all []bearer
	add := func(ref policies.Ref, p *policies.Policy) {
		all = append(all, bearer{ref, p.Place, p.Annotations[WaiveAnnotation]})
	}
	for i := range l.Policies {
		add(l.Policies[i].Ref, &l.Policies[i])
	}
	for i := range l.Staged {
		add(l.Staged[i].Ref, &l.Staged[i].Policy)
	}
	return all
}

func parseWaiver(text string) (Waiver, error) {
	head, reason, _ := strings.Cut(text, ":")
	words := strings.Fields(head)
	w := Waiver{Reason: strings.TrimSpace(reason)}
	if len(words) != 3 || words[1] != "until" || w.Reason == "" {
		return w, fmt.Errorf("waiver %q is not of the form \"CHECK until 2027-01-31: reason\", so it waives nothing", text)
	}
	w.Check = words[0]
	var names []string
	for _, c := range checks {
		if c.Name != "waiver" {
			names = append(names, c.Name)
		}
	}
	if !slices.Contains(names, w.Check) {
		return w, fmt.Errorf("waiver %q names no check%s", text, policies.Near(w.Check, names))
	}
	var err error
	if w.Until, err = time.Parse(time.DateOnly, words[2]); err != nil {
		return w, fmt.Errorf("waiver %q: %s is not a date such as 2027-01-31, so it waives nothing", text, words[2])
	}
	return w, nil
}
