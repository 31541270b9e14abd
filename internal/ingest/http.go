package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator/flowlog"
)

// cause is a reason to refuse a request: as the metrics name it, and its status
// in HTTP and gRPC.
type cause struct {
	reason string
	status int
	code   connect.Code
	retry  bool // it may be sent again, later
}

var (
	badRequest   = &cause{"request", http.StatusBadRequest, connect.CodeInvalidArgument, false}
	badBody      = &cause{"body", http.StatusBadRequest, connect.CodeInvalidArgument, false}
	badType      = &cause{"type", http.StatusUnsupportedMediaType, connect.CodeInvalidArgument, false}
	unauthorized = &cause{"unauthorized", http.StatusUnauthorized, connect.CodeUnauthenticated, false}
	tooLarge     = &cause{"too_large", http.StatusRequestEntityTooLarge, connect.CodeResourceExhausted, false}
	forgotten    = &cause{"forgotten", http.StatusConflict, connect.CodeFailedPrecondition, false}
	slow         = &cause{"slow", http.StatusRequestTimeout, connect.CodeUnavailable, true}
	full         = &cause{"queue_full", http.StatusTooManyRequests, connect.CodeResourceExhausted, true}
	noSpace      = &cause{"disk_full", http.StatusInsufficientStorage, connect.CodeUnavailable, true}
	noStore      = &cause{"store", http.StatusServiceUnavailable, connect.CodeUnavailable, true}
	stopping     = &cause{"stopping", http.StatusServiceUnavailable, connect.CodeUnavailable, true}
)

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !s.ready.Load() {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("POST /v1/flows", s.flows)
	mux.HandleFunc("POST /v1/logs", s.logs)
	mux.Handle("POST "+exportProcedure, s.newExport())
	// Pages that somebody's browser shows may not send to its own machine.
	return http.NewCrossOriginProtection().Handler(mux)
}

// admit refuses who may not send, or not now.
func (s *Server) admit(r *http.Request) error {
	if err := s.authorize(r); err != nil {
		return err
	}
	select {
	case <-s.draining:
		return refuse(stopping, "the server stops; send it again later")
	default:
		return nil
	}
}

// receive reads the body of a request that is not gRPC.
func (s *Server) receive(w http.ResponseWriter, r *http.Request, format string) (stats flowlog.Stats, stored report.Stored, err error) {
	if err := s.admit(r); err != nil {
		return stats, stored, err
	}
	key, err := keyOf(r.Header.Get(batchHeader))
	if err != nil {
		return stats, stored, err
	}
	if encoding := r.Header.Get("Content-Encoding"); !slices.Contains([]string{"", "identity", "gzip", "x-gzip", "zstd"}, strings.ToLower(encoding)) {
		return stats, stored, refuse(badType, "Content-Encoding %.40q is none of gzip, zstd", encoding)
	}
	if r.ContentLength > s.config.MaxBody {
		return stats, stored, tooMuch(s.config.MaxBody)
	}
	h := &hold{of: s.budget}
	defer h.release()
	// The batch is stored even if its sender does not wait for the answer.
	return s.take(context.WithoutCancel(r.Context()), http.MaxBytesReader(w, r.Body, s.config.MaxBody), format, key, h)
}

// protobuf is the type of OTLP's binary messages.
const protobuf = "application/x-protobuf"

// flows answers POST /v1/flows.
func (s *Server) flows(w http.ResponseWriter, r *http.Request) {
	format := r.URL.Query().Get("format")
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && kind == protobuf && format == "" {
		format = "otlp"
	}
	err := error(nil)
	if format != "" && !slices.Contains(flowlog.Formats(), format) {
		err = refuse(badRequest, "format %.40q is none of %s", format, strings.Join(flowlog.Formats(), ", "))
	}
	var stats flowlog.Stats
	var stored report.Stored
	if err == nil {
		stats, stored, err = s.receive(w, r, format)
	}
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		refused := s.refuse(w, err)
		w.Write(append(report.AppendError(nil, policies.Problem{Message: refused.message}), '\n')) //nolint:errcheck // nobody is left to be told
		return
	}
	report.WriteIngest(w, report.JSON, reading(&stats), stored, report.Style{}) //nolint:errcheck // nobody is left to be told
}

// refuse writes the head of an answer that says no.
func (s *Server) refuse(w http.ResponseWriter, err error) *refusal {
	var r *refusal
	if !errors.As(err, &r) {
		r = &refusal{badBody, err.Error()}
	}
	s.metrics.rejected.WithLabelValues(r.reason).Inc()
	if r.retry {
		w.Header().Set("Retry-After", strconv.Itoa(s.retrySeconds()))
	}
	if r.cause == unauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(r.status)
	return r
}

// retrySeconds is when it is worth to come again: after the next commit.
func (s *Server) retrySeconds() int {
	return int(math.Ceil(max(1, s.config.CommitEvery.Seconds())))
}

// logs answers POST /v1/logs, which is OTLP over HTTP.
func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	binary := kind == protobuf
	if !binary && kind != "application/json" || err != nil {
		kind, err = "application/json", refuse(badType, "Content-Type is neither %s nor application/json", protobuf)
	}
	var stats flowlog.Stats
	if err == nil {
		stats, _, err = s.receive(w, r, "otlp")
	}
	w.Header().Set("Content-Type", kind)
	var answer []byte
	switch {
	case err != nil && binary:
		refused := s.refuse(w, err)
		answer = protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(refused.code))
		answer = protowire.AppendString(protowire.AppendTag(answer, 2, protowire.BytesType), refused.message)
	case err != nil:
		refused := s.refuse(w, err)
		answer, _ = json.Marshal(map[string]any{"code": uint32(refused.code), "message": refused.message})
	case binary:
		answer = exported(&stats)
	default:
		partial := map[string]any{}
		if rejected, why := rejections(&stats); rejected > 0 {
			partial["partialSuccess"] = map[string]any{"rejectedLogRecords": strconv.FormatUint(rejected, 10), "errorMessage": why}
		}
		answer, _ = json.Marshal(partial)
	}
	w.Write(answer) //nolint:errcheck // nobody is left to be told
}

// rejections counts the log records that are not stored, and says why.
func rejections(s *flowlog.Stats) (n uint64, why string) {
	var reasons []string
	if n = s.Bad; n > 0 {
		reasons = append(reasons, fmt.Sprintf("%d could not be read, as in: %s", n, s.FirstBad[0].Error()))
	}
	for _, cause := range s.Causes() {
		n += cause.Flows
		reasons = append(reasons, fmt.Sprintf("%d left out: %s", cause.Flows, cause.Text))
	}
	return n, strings.Join(reasons, "; ")
}

// exported is an ExportLogsServiceResponse.
func exported(s *flowlog.Stats) []byte {
	rejected, why := rejections(s)
	if rejected == 0 {
		return nil
	}
	partial := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), rejected)
	partial = protowire.AppendString(protowire.AppendTag(partial, 2, protowire.BytesType), why)
	return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), partial)
}
