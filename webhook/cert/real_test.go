package cert

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/weir-policy/weir/internal/testkit/plane"
)

// cluster is a real API server with a webhook's configuration.
type cluster struct {
	client.Client
	clock
	config *rest.Config
	hooks  []*hook
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	p := plane.Start(t, &envtest.Environment{})
	every, err := client.New(p.Config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{Client: every, config: p.Config}
	c.configure(t)
	return c
}

func (c *cluster) configure(t *testing.T) {
	t.Helper()
	none, ignore := admissionregistrationv1.SideEffectClassNone, admissionregistrationv1.Ignore
	webhook := func(name string) admissionregistrationv1.ValidatingWebhook {
		return admissionregistrationv1.ValidatingWebhook{
			Name: name, SideEffects: &none, FailurePolicy: &ignore, AdmissionReviewVersions: []string{"v1"},
			ClientConfig: admissionregistrationv1.WebhookClientConfig{Service: &admissionregistrationv1.ServiceReference{Namespace: "default", Name: "weir"}},
		}
	}
	if err := c.Create(t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "weir"},
		Webhooks:   []admissionregistrationv1.ValidatingWebhook{webhook("policies.weir.dev"), webhook("invariants.weir.dev")},
	}); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) replica(t *testing.T) *hook {
	t.Helper()
	h := newHook(t, c.config, &c.clock, Options{Secret: "weir-certificate", Webhook: "weir", Check: 20 * time.Millisecond})
	c.hooks = append(c.hooks, h)
	return h
}

func (c *cluster) secret(t *testing.T) *corev1.Secret {
	t.Helper()
	s := &corev1.Secret{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "weir-certificate"}, s); err != nil {
		t.Fatal(err)
	}
	return s
}

// review calls a replica as the API server does, with what the configuration says.
func (c *cluster) review(t *testing.T, h *hook) (*x509.Certificate, error) {
	t.Helper()
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	if err := c.Get(context.Background(), client.ObjectKey{Name: "weir"}, configuration); err != nil {
		t.Fatal(err)
	}
	var shown *x509.Certificate
	for _, w := range configuration.Webhooks {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(w.ClientConfig.CABundle)
		var err error
		if _, shown, err = h.ask(t, &tls.Config{RootCAs: roots, ServerName: "weir.default.svc", Time: c.read}, "/"); err != nil {
			return nil, err
		}
	}
	return shown, nil
}

// agree waits until every replica shows what the Secret holds, which is none of the
// certificates that were, to the API server and to every other one.
func (c *cluster) agree(t *testing.T, were ...*x509.Certificate) *x509.Certificate {
	t.Helper()
	var held *x509.Certificate
	until(t, "all show the same certificate", func() bool {
		s := &corev1.Secret{}
		if err := c.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "weir-certificate"}, s); err != nil {
			return false
		}
		if held = parse(s.Data[shownFile]); held == nil {
			return false
		}
		for _, w := range were {
			if w.Equal(held) {
				return false
			}
		}
		for _, h := range c.hooks {
			if h.Ready(nil) != nil {
				return false
			}
			if shown, err := c.review(t, h); err != nil || !shown.Equal(held) {
				return false
			}
			for _, other := range c.hooks {
				if answer, _, err := h.ask(t, other.Client(), "/"); err != nil || answer != "a replica" {
					return false
				}
			}
		}
		return true
	})
	return held
}

func TestRealReplicasAgree(t *testing.T) {
	c := newCluster(t)
	a, b := c.replica(t), c.replica(t)
	first := c.agree(t)

	// It is renewed ninety days ahead, while somebody waits for an answer.
	c.set(280 * day)
	type answer struct {
		shown *x509.Certificate
		err   error
	}
	waiting := make(chan answer)
	go func() {
		_, shown, err := a.ask(t, b.Client(), "/wait")
		waiting <- answer{shown, err}
	}()
	<-a.waits
	second := c.agree(t, first)
	close(a.goOn)
	if w := <-waiting; w.err != nil || !w.shown.Equal(first) {
		t.Errorf("a request under way: %v", w.err)
	}

	// All slept for years, past the end of the issuer too.
	c.set(3651 * day)
	third := c.agree(t, first, second)

	// The Secret goes, and comes again with another issuer.
	if err := c.Delete(t.Context(), c.secret(t)); err != nil {
		t.Fatal(err)
	}
	fourth := c.agree(t, third)

	// Somebody empties it.
	s := c.secret(t)
	s.Data = nil
	if err := c.Update(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	fifth := c.agree(t, fourth)

	// A configuration that is applied again, without whom to trust, is told anew.
	configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "weir"}}
	if err := c.Delete(t.Context(), configuration); err != nil {
		t.Fatal(err)
	}
	c.configure(t)
	if held := c.agree(t); !held.Equal(fifth) {
		t.Error("another certificate was made for another configuration")
	}

	// One that comes later finds all in place.
	before := c.secret(t)
	c.replica(t)
	c.agree(t)
	if after := c.secret(t); after.ResourceVersion != before.ResourceVersion || !bytes.Equal(after.Data[keyFile], before.Data[keyFile]) {
		t.Error("a replica that came later changed the Secret")
	}
}

// What it may not do is said where it is not ready.
func TestRealNotAllowed(t *testing.T) {
	c := newCluster(t)
	c.config = rest.CopyConfig(c.config)
	c.config.Impersonate.UserName = "system:serviceaccount:default:weir"
	h := c.replica(t)
	until(t, "it says why there is no certificate", func() bool {
		err := h.Ready(nil)
		return err != nil && strings.Contains(err.Error(), "there is no certificate for weir.default.svc yet") &&
			strings.Contains(err.Error(), `cannot list resource`)
	})
}
