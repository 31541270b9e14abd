package testkit

import (
	"flag"
	"strconv"
	"testing"
)

// Properties runs the tests of a package with properties, and returns the status to
// exit with. They are drawn from one seed, for a run of all tests should say the same
// twice, and checked this many times, or as often as rapid does where that is 0. To
// look further: -rapid.checks=10000 -rapid.seed=0, which is another seed each time.
func Properties(m *testing.M, checks int) int {
	flag.Parse()
	settings := map[string]string{"rapid.seed": "20260310"}
	if checks > 0 {
		settings["rapid.checks"] = strconv.Itoa(checks)
	}
	flag.Visit(func(f *flag.Flag) { delete(settings, f.Name) })
	for name, value := range settings {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	return m.Run()
}
