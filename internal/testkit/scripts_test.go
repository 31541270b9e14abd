package testkit

import (
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"greet": func() { fmt.Printf("hello, NO_COLOR=%s\n", os.Getenv("NO_COLOR")) },
	})
}

func TestScripts(t *testing.T) { Scripts(t, "testdata") }
