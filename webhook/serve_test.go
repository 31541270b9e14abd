package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// leader is a Leader that leads.
type leader struct{}

func (leader) Leads() bool { return true }
func (leader) Address(context.Context, bool) (string, error) {
	return "", errors.New("there is no other")
}

func (b *bench) serve() *httptest.Server {
	server := httptest.NewServer(NewServer(b.Decider, leader{}, nil).Review())
	b.Cleanup(server.Close)
	return server
}

// post has a server answer a request.
func post(t *testing.T, server *httptest.Server, query string, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	t.Helper()
	review := &admissionv1.AdmissionReview{TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: r}
	body, err := json.Marshal(review)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := server.Client().Post(server.URL+query, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", answer.Status, text, err)
	}
	review = &admissionv1.AdmissionReview{}
	if err := json.Unmarshal(text, review); err != nil || review.Response == nil {
		t.Fatalf("%s: %v", text, err)
	}
	return review.Response
}

// callers lets nobody ask.
type callers struct{}

func (callers) Check(*tls.ConnectionState) error { return errors.New("who are you") }

// Who may not ask is told so, and nothing is decided.
func TestWhoMayNotAsk(t *testing.T) {
	b := newBench(t, "deny", Options{})
	s := NewServer(b.Decider, leader{}, nil)
	s.Callers = callers{}
	server := httptest.NewServer(s.Review())
	defer server.Close()
	answer, err := server.Client().Post(server.URL, "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if text, _ := io.ReadAll(answer.Body); answer.StatusCode != http.StatusForbidden || string(text) != "who are you\n" || b.ledger.len() > 0 {
		t.Errorf("%s: %s", answer.Status, text)
	}
}

// Those who send a review slowly keep nobody else from being answered.
func TestSlowReviewsKeepNobodyWaiting(t *testing.T) {
	b := newBench(t, "deny", Options{})
	server := b.serve()
	for range 2 * mostAtOnce {
		line, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = line.Close() })
		if _, err := fmt.Fprint(line, "POST /review?timeout=1m HTTP/1.1\r\nHost: weir\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"); err != nil {
			t.Fatal(err)
		}
	}
	answer := post(t, server, "/review?timeout=30s", b.request(admissionv1.Update, policy("shop", "out", "1", allEgress)))
	if !answer.Allowed || answer.AuditAnnotations["undecided"] != "" {
		t.Errorf("%+v", answer)
	}
}

// A review of which nothing more comes is given up.
func TestReviewsHaveToCome(t *testing.T) {
	server := newBench(t, "deny", Options{}).serve()
	line, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer line.Close()
	if _, err := fmt.Fprint(line, "POST /review?timeout=1ms HTTP/1.1\r\nHost: weir\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(line); err != nil || !bytes.HasPrefix(text, []byte("HTTP/1.1 400")) {
		t.Errorf("%q, %v", text, err)
	}
}

// When too many are asked about, the configured verdict is given, and what was let
// through counts.
func TestTooManyAtOnce(t *testing.T) {
	b := newBench(t, "deny", Options{})
	s := NewServer(b.Decider, leader{}, nil)
	for range mostAtOnce {
		s.slots <- struct{}{}
	}
	b.turn <- struct{}{}
	server := httptest.NewServer(s.Review())
	defer server.Close()
	answer := post(t, server, "/review?timeout=1ms", b.request(admissionv1.Update, policy("shop", "out", "1", allEgress)))
	if !answer.Allowed || answer.AuditAnnotations["undecided"] != "there was no time left" {
		t.Errorf("%+v", answer)
	}
	<-b.turn
	b.refuses("the other half", b.ask(admissionv1.Update, policy("payments", "in", "1", allIngress)), broken)
}
