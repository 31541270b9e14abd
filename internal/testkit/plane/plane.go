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
	out, told, err := p.kubectl(args)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, told)
	}
	return out
}

// KubectlFails runs kubectl, which must fail, and returns what it told of that.
func (p *Plane) KubectlFails(t testing.TB, args ...string) string {
	t.Helper()
	out, told, err := p.kubectl(args)
	if err == nil {
		t.Errorf("kubectl %s: %s", strings.Join(args, " "), out)
	}
	return told
}

func (p *Plane) kubectl(args []string) (out []byte, told string, err error) {
	command := exec.Command(filepath.Join(assets(), "kubectl"), append([]string{"--kubeconfig", p.Kubeconfig}, args...)...)
	var errs bytes.Buffer
	command.Stderr = &errs
	out, err = command.Output()
	return out, errs.String(), err
}

func assets() string { return os.Getenv("KUBEBUILDER_ASSETS") }
