package cert

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/weir-policy/weir/internal/testkit/plane"
)

// shownBy returns what a caller shows whose certificate has a name, of an issuer.
func shownBy(t *testing.T, name string, parts map[string][]byte, usages ...x509.ExtKeyUsage) (*tls.ConnectionState, tls.Certificate) {
	t.Helper()
	m := newMaker(name)
	if len(usages) > 0 {
		m.ExtKeyUsages = &usages
	}
	cert, key, err := m.CreateCertPEM(m.issuer(parts, born), born.Add(-skew), born.Add(shownLife))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{parse(cert)}}, pair
}

func TestWhoMayAsk(t *testing.T) {
	const server = "apiserver"
	parts, foreign := made(t, server), made(t, server)
	file := filepath.Join(t.TempDir(), "ca.crt")
	write := func(text []byte, at time.Time) {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
	c := &Clients{File: file, Name: server, Now: func() time.Time { return born.Add(time.Hour) }}
	if err := c.Load(); err == nil {
		t.Error("it does without a file")
	}
	write([]byte("no"), born)
	if err := c.Load(); err == nil || !strings.Contains(err.Error(), "there is no certificate in it, as PEM") {
		t.Errorf("%v", err)
	}
	write(parts[issuerFile], born.Add(1))
	shown := func(name string, parts map[string][]byte, usages ...x509.ExtKeyUsage) *tls.ConnectionState {
		s, _ := shownBy(t, name, parts, usages...)
		return s
	}
	for _, row := range []struct {
		name  string
		shows *tls.ConnectionState
		want  string
	}{
		{"somebody without TLS", nil, "the caller showed no certificate"},
		{"somebody without a certificate", &tls.ConnectionState{}, "the caller showed no certificate"},
		{"the API server", shown(server, parts), ""},
		{"a kubelet", shown("kubelet", parts), `the caller showed a certificate of "kubelet", not of "apiserver"`},
		{"who may only serve", shown(server, parts, x509.ExtKeyUsageServerAuth), "incompatible key usage"},
		{"somebody else's", shown(server, foreign), "unknown authority"},
	} {
		if err := c.Check(row.shows); (row.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
	// The file is read again when it changes.
	write(foreign[issuerFile], born.Add(time.Hour))
	if err := c.Check(shown(server, foreign)); err != nil {
		t.Error(err)
	}
	if c.Check(shown(server, parts)) == nil {
		t.Error("who issued before may still")
	}
}

// A real API server shows the certificate that docs/install.md has it show.
func TestRealAPIServerMayAsk(t *testing.T) {
	folder := t.TempDir()
	m := newMaker("apiserver")
	parts := renewed(t, nil, time.Now())
	cert, key, err := m.CreateCertPEM(m.issuer(parts, time.Now()), time.Now().Add(-skew), time.Now().Add(shownLife))
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(folder, name) }
	for name, text := range map[string][]byte{
		"ca.crt": parts[issuerFile], "webhooks.crt": cert, "webhooks.key": key,
		"webhooks.yaml": fmt.Appendf(nil, "apiVersion: v1\nkind: Config\nusers:\n- name: '*'\n  user: {client-certificate: %s, client-key: %s}\n", in("webhooks.crt"), in("webhooks.key")),
		"admission.yaml": fmt.Appendf(nil, `apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: ValidatingAdmissionWebhook
  configuration: {apiVersion: apiserver.config.k8s.io/v1, kind: WebhookAdmissionConfiguration, kubeConfigFile: %s}
`, in("webhooks.yaml")),
	} {
		if err := os.WriteFile(in(name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	callers := &Clients{File: in("ca.crt"), Name: "apiserver"}
	hook := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if err := callers.Check(q.TLS); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		review := &admissionv1.AdmissionReview{}
		if err := json.NewDecoder(q.Body).Decode(review); err != nil {
			t.Error(err)
			return
		}
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true, Warnings: []string{"it asked"}}
		if err := json.NewEncoder(w).Encode(review); err != nil {
			t.Error(err)
		}
	}))
	hook.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	hook.Config.ErrorLog = log.New(io.Discard, "", 0)
	hook.StartTLS()
	defer hook.Close()

	e := &envtest.Environment{}
	e.ControlPlane.GetAPIServer().Configure().Set("admission-control-config-file", in("admission.yaml"))
	p := plane.Start(t, e)
	every, err := client.New(p.Config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	none, fail := admissionregistrationv1.SideEffectClassNone, admissionregistrationv1.Fail
	bundle := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hook.Certificate().Raw})
	if err := every.Create(t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "weir"},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: "policies.weir.dev", SideEffects: &none, FailurePolicy: &fail, AdmissionReviewVersions: []string{"v1"},
			ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &hook.URL, CABundle: bundle},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{"CREATE"},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
			}},
		}},
	}); err != nil {
		t.Fatal(err)
	}
	names := 0
	until(t, "the API server asks", func() bool {
		names++
		told := ""
		config := *p.Config
		config.WarningHandler = warnings(func(text string) { told += text })
		who, err := client.New(&config, client.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := who.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("it-%d", names)}}); err != nil {
			t.Fatal(err)
		}
		return told == "it asked"
	})
}

type warnings func(string)

func (w warnings) HandleWarningHeader(_ int, _, text string) { w(text) }
