package webhook

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
)

// elsewhere is a leader at an address.
type elsewhere string

func (elsewhere) Leads() bool                                     { return false }
func (l elsewhere) Address(context.Context, bool) (string, error) { return string(l), nil }
func (elsewhere) Client() *tls.Config                             { return &tls.Config{InsecureSkipVerify: true} }

func (elsewhere) FromReplica(*tls.ConnectionState) error { return errors.New("it is none") }

const review = `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","operation":"CREATE",
	"kind":{"group":"networking.k8s.io","version":"v1","kind":"NetworkPolicy"},"name":"a","namespace":"shop",
	"object":{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"a","namespace":"shop"},"spec":{"podSelector":{}}}}}`

// A request that nobody decides is told of once, with the cause, however often the
// leader was tried.
func TestWhatCannotBeForwardedIsTold(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	angry := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not now", http.StatusBadGateway) }))
	defer angry.Close()
	angryAt := strings.TrimPrefix(angry.URL, "https://")
	for _, row := range []struct{ name, address, want string }{
		{"nobody listens", gone.Addr().String(), "connection refused"},
		{"it does not want", angryAt, angryAt + " answers 502 Bad Gateway: not now"},
	} {
		b := newBench(t, "deny", Options{})
		s := NewServer(b.Decider, elsewhere(row.address), elsewhere(row.address))
		var told []string
		s.Failed = func(err error) { told = append(told, err.Error()) }
		q := httptest.NewRequest(http.MethodPost, ReviewPath+"?timeout=300ms", strings.NewReader(review))
		q.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		s.Review().ServeHTTP(w, q)
		answer := &admissionv1.AdmissionReview{}
		if err := json.Unmarshal(w.Body.Bytes(), answer); err != nil || !answer.Response.Allowed {
			t.Fatalf("%s: %v: %s", row.name, err, w.Body)
		}
		if said := strings.Join(answer.Response.Warnings, ""); !strings.HasPrefix(said, "not checked against the invariants: ") {
			t.Errorf("%s: it is warned of %q", row.name, said)
		}
		told = slices.DeleteFunc(told, func(text string) bool { return strings.Contains(text, context.DeadlineExceeded.Error()) }) // the last try
		if len(told) != 1 || !strings.Contains(told[0], row.want) {
			t.Errorf("%s: it is told %q", row.name, told)
		}
	}
}
