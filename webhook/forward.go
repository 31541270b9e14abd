package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
)

// Leader knows which replica decides.
type Leader interface {
	// Leads reports whether this one does.
	Leads() bool
	// Address is where the one that does is served, as host:port. Again asks anew,
	// since it was not found there.
	Address(ctx context.Context, again bool) (string, error)
}

// retry is how long a replica waits before it looks for the leader again.
const retry = 50 * time.Millisecond

// Certificates are what a replica shows and what it trusts. They may change at any
// time.
type Certificates interface {
	// Certificate returns the certificate of the webhook; all replicas have the same,
	// or ones of the same authority.
	Certificate() (*tls.Certificate, error)
	// Roots returns the authorities of the webhook's certificate.
	Roots() (*x509.CertPool, error)
}

// Peer is how replicas ask one another: over TLS, with the certificate of the webhook
// on both sides.
type Peer struct {
	Name         string // that the certificate is for
	Certificates Certificates

	client *http.Client
}

// NewPeer returns the way to the other replicas.
func NewPeer(name string, c Certificates) *Peer {
	p := &Peer{Name: name, Certificates: c}
	p.client = &http.Client{Transport: &http.Transport{
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			roots, err := c.Roots()
			if err != nil {
				return nil, err
			}
			dialer := &tls.Dialer{Config: &tls.Config{
				MinVersion: tls.VersionTLS13,
				ServerName: name,
				RootCAs:    roots,
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					return c.Certificate()
				},
			}}
			return dialer.DialContext(ctx, network, address)
		},
		MaxIdleConnsPerHost: mostAtOnce,
		IdleConnTimeout:     time.Minute, // so that a new certificate is soon in use
	}}
	return p
}

// Serve sets up the server's side: it shows the webhook's certificate and asks for
// one, which the API server need not have.
func (p *Peer) Serve(c *tls.Config) {
	c.MinVersion = tls.VersionTLS12
	c.ClientAuth = tls.RequestClientCert
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.Certificates.Certificate() }
}

// check reports why the other side of a connection is no replica.
func (p *Peer) check(state *tls.ConnectionState) error {
	if p == nil || state == nil || len(state.PeerCertificates) == 0 {
		return errors.New("only the replicas of the webhook are answered here")
	}
	roots, err := p.Certificates.Roots()
	if err != nil {
		return err
	}
	between := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err = state.PeerCertificates[0].Verify(x509.VerifyOptions{
		DNSName: p.Name, Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err
}

// forward has the leader answer a review, with the time that is left.
func (s *Server) forward(ctx context.Context, body []byte) (*admissionv1.AdmissionResponse, error) {
	if s.Peer == nil {
		return nil, errors.New("no replica leads yet")
	}
	answer, err := s.forwardTo(ctx, body, false)
	if err != nil && ctx.Err() == nil && !errors.As(err, &refusal{}) {
		answer, err = s.forwardTo(ctx, body, true)
	}
	return answer, err
}

func (s *Server) forwardTo(ctx context.Context, body []byte, again bool) (*admissionv1.AdmissionResponse, error) {
	address, err := s.Leader.Address(ctx, again)
	if err != nil {
		return nil, err
	}
	u := url.URL{Scheme: "https", Host: address, Path: ForwardPath}
	if until, ok := ctx.Deadline(); ok {
		u.RawQuery = url.Values{"timeout": {time.Until(until).String()}}.Encode()
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	q.Header.Set("Content-Type", "application/json")
	answer, err := s.Peer.client.Do(q)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, mostReview))
	switch status := answer.StatusCode; {
	case err != nil:
		return nil, err
	case status == http.StatusBadRequest || status == http.StatusRequestEntityTooLarge:
		return nil, refusal{status, errors.New(string(bytes.TrimSpace(text)))}
	case status != http.StatusOK:
		return nil, fmt.Errorf("%s answers %s: %s", address, answer.Status, bytes.TrimSpace(text))
	}
	review := &admissionv1.AdmissionReview{}
	if err := json.Unmarshal(text, review); err != nil {
		return nil, err
	}
	if review.Response == nil {
		return nil, fmt.Errorf("%s answers without a response", address)
	}
	return review.Response, nil
}
