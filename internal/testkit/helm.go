package testkit

import (
	"os"
	"os/exec"
	"testing"
)

// Helm runs helm and returns what it printed, on both streams. Where WEIR_HELM does
// not say what to run, the test is skipped; make chart and make test-cluster set it.
func Helm(t testing.TB, args ...string) (string, error) {
	t.Helper()
	program := os.Getenv("WEIR_HELM")
	if program == "" {
		t.Skip("WEIR_HELM is not set, so the chart is not rendered; make chart sets it")
	}
	out, err := exec.Command(program, args...).CombinedOutput()
	return string(out), err
}
