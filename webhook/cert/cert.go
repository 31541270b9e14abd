// Package cert holds the certificate of the webhook: what it shows to the API
// server, and what its replicas show to each other. It is changed without a restart:
// a connection goes on with what it began with, the next one sees the new.
//
// The certificate is made and renewed here, in a Secret that all replicas share, or
// it is somebody else's, such as cert-manager's, in a folder of files.
package cert

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"
)

// What the Secret and the folder call their parts.
const (
	shownFile  = "tls.crt"
	keyFile    = "tls.key"
	issuerFile = "ca.crt"
	issuerKey  = "ca.key"
)

// Options say whose certificate it is, and who makes it.
type Options struct {
	Namespace, Service string // of the webhook; the certificate is that of its name
	// Folder holds tls.crt, tls.key and ca.crt of somebody else. Where it is "", the
	// certificate is made here.
	Folder string
	// Secret, in the namespace, is where one made here is kept.
	Secret string
	// Webhook is the ValidatingWebhookConfiguration that is told whom to trust when
	// the certificate is made here. One that is not there is waited for by nobody.
	Webhook string
	// Check is how often the time is looked at; every hour unless it is set.
	Check time.Duration
	// Now is the clock; time.Now unless it is set.
	Now func() time.Time
}

// Certificates is the certificate of now. It is safe for concurrent use, and inert
// until Start.
type Certificates struct {
	options Options
	name    string // that the certificate is for
	start   func(context.Context) error
	shown   atomic.Pointer[tls.Certificate]
	issuers atomic.Pointer[x509.CertPool]
	trouble atomic.Pointer[error] // why it could not be looked after at last
}

// New returns the certificate of a webhook in the cluster that a config leads to.
func New(config *rest.Config, o Options) (*Certificates, error) {
	o.Check = cmp.Or(o.Check, time.Hour)
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Certificates{options: o, name: o.Service + "." + o.Namespace + ".svc"}
	if o.Folder != "" {
		c.start = c.watchFolder
		return c, nil
	}
	k, err := newKeeper(config, c)
	if err != nil {
		return nil, err
	}
	c.start = k.run
	return c, nil
}

// NeedLeaderElection lets a manager of controller-runtime start it on every replica.
func (c *Certificates) NeedLeaderElection() bool { return false }

// Start looks after the certificate until ctx ends.
func (c *Certificates) Start(ctx context.Context) error { return c.start(ctx) }

// Ready tells why no review could be answered at the moment: there is no certificate
// yet, or its time is over. It is a check of controller-runtime's healthz.
func (c *Certificates) Ready(*http.Request) error {
	shown, now := c.shown.Load(), c.options.Now()
	var why error
	switch {
	case shown == nil:
		why = fmt.Errorf("there is no certificate for %s yet", c.name)
	case now.Before(shown.Leaf.NotBefore):
		why = fmt.Errorf("the certificate for %s is valid from %s on", c.name, shown.Leaf.NotBefore.UTC().Format(time.RFC3339))
	case now.After(shown.Leaf.NotAfter):
		why = fmt.Errorf("the certificate for %s was valid until %s", c.name, shown.Leaf.NotAfter.UTC().Format(time.RFC3339))
	default:
		return nil
	}
	if trouble := c.trouble.Load(); trouble != nil && *trouble != nil {
		return fmt.Errorf("%w: %w", why, *trouble)
	}
	return why
}

// Server returns how the webhook listens. It takes a caller's certificate and
// judges none, for the API server may have one of its own, see FromReplica.
func (c *Certificates) Server() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		NextProtos:     []string{"h2", "http/1.1"},
		ClientAuth:     tls.RequestClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.show() },
	}
}

// Client returns how a replica calls another one, whatever address that has.
func (c *Certificates) Client() *tls.Config {
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		NextProtos:           []string{"h2", "http/1.1"},
		ServerName:           c.name,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.show() },
		// The library would ask those who issued certificates when the connection was
		// configured; VerifyConnection asks those of now.
		InsecureSkipVerify: true,
		VerifyConnection:   func(s tls.ConnectionState) error { return c.verify(s.PeerCertificates, x509.ExtKeyUsageServerAuth) },
	}
}

// FromReplica returns nil if the caller has shown the certificate of a replica, and
// else why it is not one.
func (c *Certificates) FromReplica(s *tls.ConnectionState) error {
	if s == nil || len(s.PeerCertificates) == 0 {
		return errors.New("the caller showed no certificate")
	}
	return c.verify(s.PeerCertificates, x509.ExtKeyUsageClientAuth)
}

// verify asks for the name of the service too: whoever issues it may issue others.
func (c *Certificates) verify(chain []*x509.Certificate, usage x509.ExtKeyUsage) error {
	issuers := c.issuers.Load()
	if issuers == nil {
		return errors.New("it is not known yet who issues certificates")
	}
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		DNSName: c.name, Roots: issuers, Intermediates: between, CurrentTime: c.options.Now(), KeyUsages: []x509.ExtKeyUsage{usage},
	})
	return err
}

func (c *Certificates) show() (*tls.Certificate, error) {
	if shown := c.shown.Load(); shown != nil {
		return shown, nil
	}
	return nil, fmt.Errorf("there is no certificate for %s yet", c.name)
}

// trust takes who issues certificates from now on.
func (c *Certificates) trust(issuers []byte) error {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(issuers) {
		return fmt.Errorf("%s holds no certificate", issuerFile)
	}
	c.issuers.Store(pool)
	return nil
}
