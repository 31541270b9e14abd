package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// Replicas are how replicas know one another: each shows the certificate of the
// webhook, see package cert.
type Replicas interface {
	Client() *tls.Config
	// FromReplica returns nil if a caller is a replica.
	FromReplica(*tls.ConnectionState) error
}

func clientOf(r Replicas) *http.Client {
	if r == nil {
		return nil
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:     r.Client(),
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: mostAtOnce,
		IdleConnTimeout:     time.Minute, // so that a new certificate is soon in use
	}}
}

// forward has the leader answer a review, with the time that is left.
func (s *Server) forward(ctx context.Context, body []byte) (*admissionv1.AdmissionResponse, error) {
	if s.client == nil {
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
	answer, err := s.client.Do(q)
	if failed := (*url.Error)(nil); errors.As(err, &failed) {
		return nil, fmt.Errorf("%s: %w", address, failed.Err) // without the time that was left
	}
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
