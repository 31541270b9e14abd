// Package plane starts a real Kubernetes API server with its store for tests.
package plane

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// Plane is a running API server. Kubeconfig is the file of an administrator.
type Plane struct {
	*envtest.Environment
	Kubeconfig string
}

// Start runs the environment until the test ends. Where KUBEBUILDER_ASSETS does not
// say what to run, the test is skipped; make test-cluster sets it.
func Start(t testing.TB, e *envtest.Environment) *Plane {
	t.Helper()
	if assets() == "" {
		t.Skip("KUBEBUILDER_ASSETS is not set, so nothing here is tried with a real API server; make test-cluster sets it")
	}
	if _, err := e.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Stop(); err != nil {
			t.Error(err)
		}
	})
	p := &Plane{e, filepath.Join(t.TempDir(), "admin")}
	if err := os.WriteFile(p.Kubeconfig, e.KubeConfig, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// Kubectl runs kubectl as the administrator and returns what it printed.
func (p *Plane) Kubectl(t testing.TB, args ...string) []byte {
	t.Helper()
	command := exec.Command(filepath.Join(assets(), "kubectl"), append([]string{"--kubeconfig", p.Kubeconfig}, args...)...)
	var told bytes.Buffer
	command.Stderr = &told
	out, err := command.Output()
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, told.String())
	}
	return out
}

func assets() string { return os.Getenv("KUBEBUILDER_ASSETS") }
