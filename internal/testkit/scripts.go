package testkit

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// Scripts runs the command-line sessions of dir, one for each .txtar file, each
// in a folder of its own. ROOT is the module's folder, for what lies in
// examples. With WEIR_GOLDEN=1 a `cmp` with a file of the session rewrites it.
//
// The programs come from TestMain of the calling package:
//
//	func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"weir": main}) }
func Scripts(t *testing.T, dir string) {
	t.Helper()
	root := Root(t)
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		UpdateScripts:       rewriting(),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("ROOT", root)
			env.Setenv("NO_COLOR", "1")
			env.Setenv("GIT_CONFIG_NOSYSTEM", "1")
			return nil
		},
	})
}
