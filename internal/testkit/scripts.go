package testkit

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// Scripts runs the command-line sessions of dir, one for each .txtar file, each
// in a folder of its own. ROOT is the module's folder, for what lies in
// examples. Git's commits are the same on every machine. With WEIR_GOLDEN=1 a `cmp` with a file of the session rewrites it.
//
// Sessions know three commands beside testscript's own: `exits 2 weir …` runs a
// program that must end with that status, `huge FILE MIB` makes a file of that
// size which takes no room, and `cut FILE TO BYTES` copies the start of a file.
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
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": exits,
			"huge":  huge,
			"cut":   cut,
		},
		Setup: func(env *testscript.Env) error {
			env.Setenv("ROOT", root)
			env.Setenv("NO_COLOR", "1")
			env.Setenv("GIT_CONFIG_NOSYSTEM", "1")
			for _, who := range []string{"AUTHOR", "COMMITTER"} {
				env.Setenv("GIT_"+who+"_NAME", "Ada")
				env.Setenv("GIT_"+who+"_EMAIL", "ada@example.com")
				env.Setenv("GIT_"+who+"_DATE", "2026-01-01T00:00:00Z")
			}
			return nil
		},
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS PROGRAM ARGS...")
	}
	status := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		ended := (*exec.ExitError)(nil)
		if !errors.As(err, &ended) {
			ts.Fatalf("%v", err)
		}
		status = ended.ExitCode()
	}
	if strconv.Itoa(status) != args[0] {
		ts.Fatalf("exit status %d instead of %s", status, args[0])
	}
}

func huge(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: huge FILE MIB")
	}
	size, err := strconv.ParseInt(args[1], 10, 32)
	ts.Check(err)
	name := ts.MkAbs(args[0])
	ts.Check(os.WriteFile(name, nil, 0o644))
	ts.Check(os.Truncate(name, size<<20))
}

func cut(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: cut FILE TO BYTES")
	}
	size, err := strconv.Atoi(args[2])
	ts.Check(err)
	data := ts.ReadFile(args[0])
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(data[:size]), 0o644))
}
