package webhook

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The paths of the server: where the API server asks, and where other replicas hand
// on what they were asked.
const (
	ReviewPath  = "/review"
	ForwardPath = "/forward"
)

// What the server takes of one review, and decides or hands on at once.
const (
	mostReview  = 8 << 20 // an API server stores 1.5 MiB, and a review may hold it twice, and its fields' managers
	mostAtOnce  = 64
	defaultTime = 10 * time.Second
)

// Server answers the API server. It decides where its replica leads, and hands the
// review on to the leader where not.
type Server struct {
	Decider  *Decider
	Leader   Leader
	Replicas Replicas
	// Callers judges who may ask for a review, by the certificate that is shown; nil lets
	// everybody.
	Callers interface {
		Check(*tls.ConnectionState) error
	}
	Failed func(error) // is told why the leader could not be asked, if it is set

	client *http.Client
	slots  chan struct{}
}

// NewServer returns a server that holds nothing until it is asked. Where there is one
// replica only, there need be no replicas.
func NewServer(d *Decider, l Leader, r Replicas) *Server {
	return &Server{Decider: d, Leader: l, Replicas: r, client: clientOf(r), slots: make(chan struct{}, mostAtOnce)}
}

// Review answers the API server.
func (s *Server) Review() http.Handler {
	review := s.handler(func(ctx context.Context, body []byte, r *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
		if !asks(r, s.Decider.Exclude) {
			return (&verdict{Options: &s.Decider.Options, request: r}).response(), nil
		}
		return s.answer(ctx, body, r)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if s.Callers != nil {
			if err := s.Callers.Check(q.TLS); err != nil {
				http.Error(w, err.Error(), http.StatusForbidden)
				return
			}
		}
		review.ServeHTTP(w, q)
	})
}

// Forwarded answers another replica, known by its certificate.
func (s *Server) Forwarded() http.Handler {
	answer := s.handler(func(ctx context.Context, _ []byte, r *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
		if !s.Leader.Leads() {
			return nil, refusal{http.StatusMisdirectedRequest, errors.New("this replica does not lead")}
		}
		return s.Decider.Decide(ctx, r)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if s.Replicas == nil {
			http.NotFound(w, q)
			return
		}
		if err := s.Replicas.FromReplica(q.TLS); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		answer.ServeHTTP(w, q)
	})
}

// answer decides, or has the leader decide. It tries until there is no time left, and
// tells of each cause of a failure once.
func (s *Server) answer(ctx context.Context, body []byte, r *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
	var told string
	for {
		if s.Leader.Leads() {
			return s.Decider.Decide(ctx, r)
		}
		answer, err := s.forward(ctx, body)
		if err == nil || errors.As(err, &refusal{}) {
			return answer, err
		}
		if s.Failed != nil && told != err.Error() {
			told = err.Error()
			s.Failed(err)
		}
		select {
		case <-ctx.Done():
			v := &verdict{Options: &s.Decider.Options, request: r}
			v.undecided(fmt.Errorf("the replica that decides could not be asked: %w", err))
			return v.response(), nil
		case <-time.After(retry):
		}
	}
}

// refusal is an error with the status that it is told by.
type refusal struct {
	status int
	error
}

// handler reads reviews and writes answers. What is no review gets a status of its
// own, since there is nothing to answer.
func (s *Server) handler(answer func(context.Context, []byte, *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		ctx, cancel := context.WithTimeout(q.Context(), timeOf(q))
		defer cancel()
		body, review, err := readReview(ctx, w, q)
		if err == nil {
			select {
			case s.slots <- struct{}{}:
				defer func() { <-s.slots }()
			case <-ctx.Done(): // the answer is that there was no time
			}
			review.Response, err = answer(ctx, body, review.Request)
		}
		if err != nil {
			http.Error(w, err.Error(), statusOf(err))
			return
		}
		review.Request, review.Response.UID = nil, review.Request.UID
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(review) // who asked may have gone
	})
}

func statusOf(err error) int {
	var r refusal
	var big tooLarge
	switch {
	case errors.As(err, &r):
		return r.status
	case errors.As(err, &big):
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusBadRequest
}

// timeOf returns how long an answer may take: as the API server says, less what the
// way back takes.
func timeOf(q *http.Request) time.Duration {
	all, err := time.ParseDuration(q.URL.Query().Get("timeout"))
	if err != nil || all <= 0 || all > time.Minute {
		all = defaultTime
	}
	return all - min(all/5, time.Second)
}

// readReview reads a review. Who sends it slowly has no more time than for the answer,
// and takes none of anybody else's.
func readReview(ctx context.Context, w http.ResponseWriter, q *http.Request) ([]byte, *admissionv1.AdmissionReview, error) {
	if q.Method != http.MethodPost {
		return nil, nil, refusal{http.StatusMethodNotAllowed, errors.New("reviews are posted")}
	}
	if kind, _, err := mime.ParseMediaType(q.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, nil, refusal{http.StatusUnsupportedMediaType, errors.New("a review is application/json")}
	}
	line := http.NewResponseController(w)
	if until, ok := ctx.Deadline(); ok {
		if err := line.SetReadDeadline(until); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return nil, nil, err
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, q.Body, mostReview))
	if err == nil {
		_ = line.SetReadDeadline(time.Time{}) // the line is listened to while there is an answer to make
	}
	if err != nil {
		if big := (*http.MaxBytesError)(nil); errors.As(err, &big) {
			return nil, nil, refusal{http.StatusRequestEntityTooLarge, fmt.Errorf("a review has at most %d bytes", mostReview)}
		}
		return nil, nil, refusal{http.StatusBadRequest, err}
	}
	review := &admissionv1.AdmissionReview{}
	if err := json.Unmarshal(body, review); err != nil {
		return nil, nil, refusal{http.StatusBadRequest, fmt.Errorf("a malformed review: %w", err)}
	}
	want := metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"}
	if review.TypeMeta != want || review.Request == nil || review.Request.UID == "" {
		return nil, nil, refusal{http.StatusBadRequest, fmt.Errorf("not an AdmissionReview of %s with a request", want.APIVersion)}
	}
	return body, review, nil
}
