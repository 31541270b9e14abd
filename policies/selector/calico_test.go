package selector_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies/selector"
)

// Every row is as Calico's own parser prints what it reads.
func TestParseCalicoPrintsAsCalicoDoes(t *testing.T) {
	for _, row := range []struct{ text, prints string }{
		{"", `all()`},
		{" \t", `all()`},
		{"all()", `all()`},
		{"all( )", `all()`},
		{"global(\t)", `global()`},
		{"has( a )", `has(a)`},
		{`a=="b"&&c=="d"`, `(a == "b" && c == "d")`},
		{"a == 'b' && c == 'd' || e == 'f'", `((a == "b" && c == "d") || e == "f")`},
		{"a == 'b' && (c == 'd' || e == 'f')", `(a == "b" && (c == "d" || e == "f"))`},
		{"(((a == 'b')))", `a == "b"`},
		{"((a == 'b') && ((has(c))))", `(a == "b" && has(c))`},
		{"(has(a) && has(b)) && has(c)", `((has(a) && has(b)) && has(c))`},
		{"!!has(a)", `has(a)`},
		{"! ! !has(a)", `!has(a)`},
		{"!(!has(a))", `!!has(a)`},
		{"!(a == 'b')", `!a == "b"`},
		{"!(a == 'b' || has(c))", `!(a == "b" || has(c))`},
		{"!a == 'b'", `!a == "b"`},
		{"a in {'z', 'x', 'z', \"y\"}", `a in {"x", "y", "z"}`},
		{"a notin {'x'}", `a not in {"x"}`},
		{"a not  in{'x'}", `a not in {"x"}`},
		{"a in {}", `a in {}`},
		{"a in {'x',}", `a in {"x"}`},
		{"a == 'say \"x\"'", `a == 'say "x"'`},
		{`a == "it's"`, `a == "it's"`},
		{`a in {'it"s', "it's"}`, `a in {'it"s', "it's"}`},
		{"a == 'x\ny'", "a == \"x\ny\""},
		{"a contains''", `a contains ""`},
		{"a startswith 'x'", `a starts with "x"`},
		{"a starts \t with'x'", `a starts with "x"`},
		{"a endswith 'x'", `a ends with "x"`},
		{"a != 'x'", `a != "x"`},
		{"in == 'x'", `in == "x"`},
		{"in in {'x'}", `in in {"x"}`},
		{"has == 'x'", `has == "x"`},
		{"all == 'x'", `all == "x"`},
		{"global != 'x'", `global != "x"`},
		{"notin == 'x'", `notin == "x"`},
		{"contains contains 'x'", `contains contains "x"`},
		{"not not in {'x'}", `not not in {"x"}`},
		{"-a == 'x'", `-a == "x"`},
		{"1 == 'x'", `1 == "x"`},
		{"./_- == 'x'", `./_- == "x"`},
		{"has(in)", `has(in)`},
		{"all() && has(x)", `(all() && has(x))`},
		{strings.Repeat("a", 512) + " == ''", strings.Repeat("a", 512) + ` == ""`},
	} {
		e, err := selector.ParseCalico(row.text)
		if err != nil || e.String() != row.prints {
			t.Errorf("%q prints %s (error %v), want %s", row.text, e, err, row.prints)
		}
	}
}

func TestParseCalicoSaysWhatItCannotRead(t *testing.T) {
	for _, row := range []struct{ text, column, want string }{
		{"has(a)\n", "7", "a selector has no line breaks outside quotes; take it out"},
		{"a\n== 'x'", "2", "a selector has no line breaks outside quotes; take it out"},
		{"has (a)", "5", "no space may stand between has and its bracket"},
		{"all ()", "5", "no space may stand between all and its bracket"},
		{"all", "1", "all is the key of a label here; write all() if that is not meant"},
		{"app && has(b)", "1", "app is no condition by itself; write has(app) if the label must be there"},
		{"all() == 'x'", "7", "after a condition comes && or ||"},
		{"all(a)", "5", "all( takes nothing but the closing bracket"},
		{"anotin{'x'}", "7", "after anotin comes one of ==, !=, in, not in, contains, starts with, ends with"},
		{`'it\'s'`, "1", "a condition is missing, such as app == 'web', has(app) or all()"},
		{`a == 'it\'s'`, "11", "after a condition comes && or ||"},
		{"a == 'x", "6", `the text that begins with this quote is not closed; there are no escapes, but a value with ' in it may stand in "" and the other way round`},
		{"a = 'x'", "3", "a single = is no operator; write =="},
		{"a == 'x' & has(b)", "10", "a single & is no operator; write &&"},
		{"a == 'x' | has(b)", "10", "a single | is no operator; write ||"},
		{"a == 'x' and has(b)", "10", `"and" joins nothing; write &&`},
		{"a == 'x', b == 'y'", "9", "a comma joins nothing; write && where both sides must hold"},
		{"a == x", "6", "a value stands in quotes: write 'x'"},
		{"a ==", "5", "a value in quotes is missing after ==, as in app == 'web'"},
		{"a contain 'x'", "3", `"contain" is no operator; near it is "contains"`},
		{"a starts 'x'", "3", `"starts" is no operator; near it is "starts with"`},
		{"a is 'x'", "3", `"is" is no operator; near it is "=="`},
		{"a like 'x'", "3", `"like" is no operator; there are ==, !=, in, not in, contains, starts with, ends with`},
		{"a inside {'x'}", "3", `"inside" is no operator; near it is "in"`},
		{"a in 'x'", "6", "a set is missing: values in braces, as in tier in {'a', 'b'}"},
		{"a in b", "6", "a set is missing: values in braces, as in tier in {'a', 'b'}"},
		{"a in (x)", "6", "a set is missing: values in braces, as in tier in {'a', 'b'}"},
		{"a in {x}", "7", "a value stands in quotes: write 'x'"},
		{"a in {,}", "7", "a value in quotes is missing after {, as in tier in {'a', 'b'}"},
		{"a in {'x' 'y'}", "11", "a comma or the closing brace is missing, as in tier in {'a', 'b'}"},
		{"a in {'x'", "10", "a comma or the closing brace is missing, as in tier in {'a', 'b'}"},
		{"(has(a)", "8", "after a condition comes &&, || or the bracket that closes the one in column 1"},
		{"has(a))", "7", "no bracket is open that this one could close"},
		{"()", "2", "a condition is missing, such as app == 'web', has(app) or all()"},
		{"has(a) &&", "10", "a condition is missing, such as app == 'web', has(app) or all()"},
		{"has('a')", "5", "has( takes a label's key without quotes"},
		{"has()", "5", "has( takes a label's key, such as app or example.com/tier"},
		{"has(a b)", "7", "the bracket of has(a is not closed"},
		{"é == 'x'", "1", `"é" may stand in quotes only`},
		{"a == 'é' é", "10", `"é" may stand in quotes only`},
		{"has(" + strings.Repeat("a", 513) + ")", "5", "a label's key has at most 512 characters, not 513"},
		{strings.Repeat("(", 1100) + "has(a)" + strings.Repeat(")", 1100), "1026", "brackets stand in each other more than 1024 deep"},
	} {
		e, err := selector.ParseCalico(row.text)
		if want := fmt.Sprintf("selector %q, column %s: %s", row.text, row.column, row.want); err == nil || err.Error() != want {
			t.Errorf("got %s, error\n%v, want\n%s", e, err, want)
		}
	}
}

func TestCalicoSelects(t *testing.T) {
	everything := []string{"-", "a=", "a=x", "a=xyz", "b=x"}
	for _, row := range []struct {
		text    string
		selects []string // of everything; - is no label at all
	}{
		{"", everything},
		{"all()", everything},
		{"global()", everything},
		{"!all()", nil},
		{"has(a)", []string{"a=", "a=x", "a=xyz"}},
		{"!has(a)", []string{"-", "b=x"}},
		{"a == 'x'", []string{"a=x"}},
		{"a != 'x'", []string{"-", "a=", "a=xyz", "b=x"}},
		{"!a == 'x'", []string{"-", "a=", "a=xyz", "b=x"}},
		{"!a != 'x'", []string{"a=x"}},
		{"a == ''", []string{"a="}},
		{"a in {'x', ''}", []string{"a=", "a=x"}},
		{"a not in {'x', ''}", []string{"-", "a=xyz", "b=x"}},
		{"a in {}", nil},
		{"a not in {}", everything},
		{"!a in {} && has(b)", []string{"b=x"}},
		{"a contains 'y'", []string{"a=xyz"}},
		{"!a contains 'y'", []string{"-", "a=", "a=x", "b=x"}},
		{"a contains ''", []string{"a=", "a=x", "a=xyz"}},
		{"a starts with 'x'", []string{"a=x", "a=xyz"}},
		{"a ends with 'z'", []string{"a=xyz"}},
		{"!(a starts with 'x' || has(b))", []string{"-", "a="}},
		{"!has(b) && a != 'x' || b == 'x'", []string{"-", "a=", "a=xyz", "b=x"}},
		{"has(a) && all()", []string{"a=", "a=x", "a=xyz"}},
		{"has(a) || all()", everything},
	} {
		e, err := selector.ParseCalico(row.text)
		if err != nil {
			t.Error(err)
			continue
		}
		var got []string
		for _, l := range everything {
			labels := map[string]string{}
			if key, value, ok := strings.Cut(l, "="); ok {
				labels[key] = value
			}
			if e.Selector().Matches(labels) {
				got = append(got, l)
			}
		}
		if diff := cmp.Diff(row.selects, got); diff != "" {
			t.Errorf("%s selects (-want +got)\n%s", row.text, diff)
		}
	}
}

func TestCalicoMeansTheSame(t *testing.T) {
	for _, row := range []struct{ one, other string }{
		{"a == 'x'", "a in {'x', 'x'}"},
		{"a != 'x'", "!a == 'x'"},
		{"a not in {'y', 'x'}", "!(a in {'x', 'y'})"},
		{"!(has(a) || has(b))", "!has(b) && !has(a)"},
		{"has(a) && (has(b) && has(c))", "has(c) && has(b) && has(a) && all()"},
		{"!(!has(a))", "has(a) || a in {}"},
		{"global()", ""},
	} {
		if one, other := calico(t, row.one).Selector(), calico(t, row.other).Selector(); one.Key() != other.Key() {
			t.Errorf("%s is %s, but %s is %s", row.one, one, row.other, other)
		}
	}
}

func TestExpressionSaysWhatItIs(t *testing.T) {
	type facts struct{ All, Global, HasGlobal, Indexed bool }
	for _, row := range []struct {
		text string
		want facts
	}{
		{"", facts{All: true}},
		{"(all())", facts{All: true}},
		{"!!all()", facts{All: true}},
		{"all() && all()", facts{}},
		{"all() && has(a)", facts{Indexed: true}},
		{"global()", facts{Global: true, HasGlobal: true}},
		{"!global()", facts{HasGlobal: true}},
		{"has(a) && (has(b) || global())", facts{HasGlobal: true, Indexed: true}},
		{"a == 'global()'", facts{Indexed: true}},
		{"a == 'x'", facts{Indexed: true}},
		{"a in {'x'}", facts{Indexed: true}},
		{"has(a)", facts{Indexed: true}},
		{"a != 'x' && (has(b) && a contains 'y')", facts{Indexed: true}},
		{"a != 'x'", facts{}},
		{"a not in {'x'}", facts{}},
		{"a starts with 'x'", facts{}},
		{"!has(a)", facts{}},
		{"has(a) || has(b)", facts{}},
		{"!has(a) && (has(b) || has(c))", facts{}},
	} {
		e := calico(t, row.text)
		if got := (facts{e.IsAll(), e.IsGlobal(), e.HasGlobal(), e.IsIndexed()}); got != row.want {
			t.Errorf("%q is %+v, want %+v", row.text, got, row.want)
		}
	}
}

func TestExpressionOfInherited(t *testing.T) {
	for _, row := range []struct{ text, of, keeping string }{
		{"", `has(owner)`, `all()`},
		{"all()", `has(owner)`, `all()`},
		{"global()", `!has(owner)`, `global()`},
		{"!global()", `!!has(owner)`, `!global()`},
		{"team == 'shop'", `p.team == "shop"`, `p.team == "shop"`},
		{"!has(a) && (all() || b in {'x'}) && global()", `(!has(p.a) && (has(owner) || p.b in {"x"}) && !has(owner))`, `(!has(p.a) && (all() || p.b in {"x"}) && global())`},
	} {
		e := calico(t, row.text)
		before := e.String()
		if got := e.Of("p.", "owner").String(); got != row.of {
			t.Errorf("%q reads %s, want %s", row.text, got, row.of)
		}
		if got := e.Of("p.", "").String(); got != row.keeping {
			t.Errorf("%q reads %s without an owner, want %s", row.text, got, row.keeping)
		}
		if e.String() != before {
			t.Errorf("%q has become %s", row.text, e)
		}
	}
}

func calico(t rapid.TB, text string) selector.Expression {
	t.Helper()
	e, err := selector.ParseCalico(text)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// tree is a selector as the grammar has it, and what it means by the words of
// Calico's documentation.
type tree struct {
	text    string
	matches func(labels map[string]string) bool
}

// trees draws trees that are so deep at most.
func trees(depth int) *rapid.Generator[tree] {
	return rapid.Custom(func(t *rapid.T) tree {
		space := rapid.SampledFrom([]string{"", " ", "\t "})
		s := func() string { return space.Draw(t, "space") }
		key := rapid.SampledFrom([]string{"a", "b", "in", "has"}).Draw(t, "key")
		value := func() string { return rapid.SampledFrom([]string{"", "x", "y", "xy", `q"`}).Draw(t, "value") }
		quoted := func(v string) string {
			if quote := rapid.SampledFrom([]string{"'", `"`}).Draw(t, "quote"); !strings.Contains(v, quote) {
				return quote + v + quote
			}
			return "'" + v + "'"
		}
		compare := func(operator string, holds func(value string, has bool, given string) bool) tree {
			v := value()
			return tree{key + operator + s() + quoted(v), func(l map[string]string) bool {
				value, has := l[key]
				return holds(value, has, v)
			}}
		}
		set := func(operator string, without bool) tree {
			var values, texts []string
			for range rapid.IntRange(0, 3).Draw(t, "values") {
				v := value()
				values, texts = append(values, v), append(texts, s()+quoted(v)+s())
			}
			return tree{key + operator + s() + "{" + strings.Join(texts, ",") + "}" + s(), func(l map[string]string) bool {
				value, has := l[key]
				return (has && slices.Contains(values, value)) != without
			}}
		}
		most := 8
		if depth > 0 {
			most = 12
		}
		switch rapid.IntRange(0, most).Draw(t, "form") {
		case 0:
			return compare(s()+"==", func(value string, has bool, given string) bool { return has && value == given })
		case 1:
			return compare(s()+"!=", func(value string, has bool, given string) bool { return !has || value != given })
		case 2:
			return compare(" contains", func(value string, has bool, given string) bool { return has && strings.Contains(value, given) })
		case 3:
			return compare(" starts"+s()+"with", func(value string, has bool, given string) bool { return has && strings.HasPrefix(value, given) })
		case 4:
			return compare(" ends"+s()+"with", func(value string, has bool, given string) bool { return has && strings.HasSuffix(value, given) })
		case 5:
			return set(" in", false)
		case 6:
			return set(" not"+s()+"in", true)
		case 7:
			return tree{"has(" + s() + key + s() + ")", func(l map[string]string) bool { _, has := l[key]; return has }}
		case 8:
			return tree{rapid.SampledFrom([]string{"all()", "global( )"}).Draw(t, "every"), func(map[string]string) bool { return true }}
		case 9, 10:
			x := trees(depth-1).Draw(t, "negated")
			return tree{"!" + s() + "(" + x.text + ")", func(l map[string]string) bool { return !x.matches(l) }}
		case 11:
			x, y := trees(depth-1).Draw(t, "left"), trees(depth-1).Draw(t, "right")
			return tree{"(" + x.text + ")" + s() + "&&" + s() + "(" + y.text + ")", func(l map[string]string) bool { return x.matches(l) && y.matches(l) }}
		}
		x, y := trees(depth-1).Draw(t, "left"), trees(depth-1).Draw(t, "right")
		return tree{x.text + s() + "||" + s() + y.text, func(l map[string]string) bool { return x.matches(l) || y.matches(l) }}
	})
}

var labelSets = rapid.MapOf(rapid.SampledFrom([]string{"a", "b", "in", "has"}), rapid.SampledFrom([]string{"", "x", "y", "xyx", `q"`}))

func TestCalicoAgreesWithNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, y := trees(3).Draw(t, "x"), trees(2).Draw(t, "y")
		e, other := calico(t, x.text), calico(t, y.text)
		s, o := e.Selector(), other.Selector()
		both, either, neither := selector.And(s, o), selector.Or(s, o), selector.Not(s)
		for range 4 {
			l := labelSets.Draw(t, "labels")
			for _, row := range []struct {
				what      string
				got, want bool
			}{
				{"x", s.Matches(l), x.matches(l)},
				{"x && y", both.Matches(l), x.matches(l) && y.matches(l)},
				{"x || y", either.Matches(l), x.matches(l) || y.matches(l)},
				{"!x", neither.Matches(l), !x.matches(l)},
			} {
				if row.got != row.want {
					t.Fatalf("x %s (%s), y %s on %v: %s is %v", e, s, other, l, row.what, row.got)
				}
			}
		}
		for _, law := range []struct {
			what       string
			one, other selector.Selector
		}{
			{"twice not", s, selector.Not(neither)},
			{"and has no order", both, selector.And(o, s)},
			{"or has no order", either, selector.Or(o, s)},
			{"not of and", selector.Not(both), selector.Or(neither, selector.Not(o))},
			{"and of itself", s, selector.And(s, s)},
			{"as text", both, calico(t, "("+x.text+") && ("+y.text+")").Selector()},
		} {
			if law.one.Key() != law.other.Key() {
				t.Fatalf("%s: %s, but %s", law.what, law.one, law.other)
			}
		}
		readsBack(t, e)
		if written := calico(t, s.Calico()).Selector(); written.Key() != s.Key() {
			t.Fatalf("%s is written as %s", s, s.Calico())
		}
	})
}

// readsBack checks that what is printed reads as the same selector.
func readsBack(t rapid.TB, e selector.Expression) {
	back := calico(t, e.String())
	if back.Selector().Key() != e.Selector().Key() {
		t.Fatalf("%s selects %s, but reads back as %s", e, e.Selector(), back.Selector())
	}
	// Calico itself does not print !(!x) so that it would print the same again.
	if !strings.Contains(e.String(), "!!") && back.String() != e.String() {
		t.Fatalf("%s reads back as %s", e, back)
	}
	if again := calico(t, back.String()); again.String() != back.String() {
		t.Fatalf("%s reads back as %s", back, again)
	}
}

var calicoSeeds = []string{
	"", "all()", "!global()", `! (a == "b"&&! c != "d") || !(a == "b" && !c != "d")`, "a in {'x',}", "a not  in {}", "contains contains 'x'",
	"has( a ) && (b startswith '' || b ends with 'x')", "has (a)", "a = 'x'", `'it\'s'`, "all() == 'x'", "has(a)\n", "!(!(!has(a)))", "a == 'x' & b", "((a",
}

// Whatever ParseCalico reads prints as what reads the same, and nothing else but
// spaces is a selector of kubectl, too.
func FuzzParseCalico(f *testing.F) {
	for _, seed := range calicoSeeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := selector.ParseCalico(text)
		if err != nil {
			return
		}
		if _, err := selector.Parse(text); err == nil && strings.Trim(text, " \t") != "" {
			t.Fatalf("%q is a selector of both languages", text)
		}
		readsBack(t, e)
		readsBack(t, e.Of("pcns.", "owner"))
	})
}

// What is sure is possible, stays so whatever the labels are that are not known,
// and is the same once all are known.
func FuzzTestSelector(f *testing.F) {
	for i, seed := range calicoSeeds {
		f.Add(seed, uint64(i))
	}
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		e, err := selector.ParseCalico(text)
		if err != nil {
			return
		}
		s := e.Selector()
		random := rand.New(rand.NewPCG(seed, 0))
		keys := s.Keys()
		labels, hidden := map[string]string{}, map[string]bool{}
		draw := func(key string) {
			delete(labels, key)
			if values := append(valuesOf(e), "", "x"); random.IntN(3) > 0 {
				labels[key] = values[random.IntN(len(values))]
			}
		}
		for _, key := range keys {
			draw(key)
			hidden[key] = random.IntN(2) == 0
		}
		test := func(known func(key string) bool) (sure, possible bool) {
			return s.Test(func(key string) (string, bool, bool) {
				if !known(key) {
					return "", false, false
				}
				value, has := labels[key]
				return value, has, true
			})
		}
		sure, possible := test(func(key string) bool { return !hidden[key] })
		if sure && !possible {
			t.Fatalf("%s on %v without %v: sure, but not possible", s, labels, hidden)
		}
		for range 8 {
			matches := s.Matches(labels)
			if matches && !possible || !matches && sure {
				t.Fatalf("%s on %v without %v: sure %v, possible %v, but matches: %v", s, labels, hidden, sure, possible, matches)
			}
			if a, b := test(func(string) bool { return true }); a != matches || b != matches {
				t.Fatalf("%s on %v: sure %v, possible %v, matches %v", s, labels, a, b, matches)
			}
			for _, key := range keys {
				if hidden[key] {
					draw(key)
				}
			}
		}
	})
}

// valuesOf returns what stands in quotes in an expression, more or less.
func valuesOf(e selector.Expression) []string { return strings.Split(e.String(), `"`) }

func BenchmarkParseCalico(b *testing.B) {
	for _, row := range []struct{ name, text string }{
		{"one condition", `app == "web"`},
		{"typical", `app == "web" && tier in {"frontend", "edge"} && !has(quarantine)`},
		{"nested", `(app == "web" || app == "api") && !(env in {"dev", "test"} || has(canary)) && team != "core"`},
		{"sixteen accounts", `projectcalico.org/serviceaccount in {'a','b','c','d','e','f','g','h','i','j','k','l','m','n','o','p'}`},
		{"800 characters", strings.Repeat(`app.kubernetes.io/name == "checkout" || `, 20) + `has(x)`},
	} {
		b.Run(row.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				calico(b, row.text)
			}
		})
		b.Run(row.name+", what it selects", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				calico(b, row.text).Selector()
			}
		})
	}
}
