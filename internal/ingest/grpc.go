package ingest

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// exportProcedure is that of OTLP's LogsService.
const exportProcedure = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"

// newExport answers LogsService/Export.
func (s *Server) newExport() http.Handler {
	options := []connect.HandlerOption{
		connect.WithCodec(asItIs{}), connect.WithReadMaxBytes(int(s.config.MaxBody)),
		connect.WithCompression("gzip", newPacked, newGzip), connect.WithCompression("zstd", newPacked, newGzip),
		connect.WithCompressMinBytes(int(s.config.MaxBody)), // answers are short
	}
	export := connect.NewUnaryHandler(exportProcedure, s.export, options...)
	refuse := connect.NewErrorWriter(options...)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.admit(r); err != nil {
			refuse.Write(w, r, s.asStatus(err)) //nolint:errcheck // nobody is left to be told
			return
		}
		h := &hold{of: s.budget}
		defer h.release()
		body := &meter{r: r.Body}
		body.charge = func() error {
			if err := h.to(2 * body.bytes); err != nil { // the message is copied once
				return s.asStatus(err)
			}
			return nil
		}
		r.Body = io.NopCloser(body)
		export.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), holdKey{}, h)))
	})
}

type holdKey struct{}

func (s *Server) export(ctx context.Context, r *connect.Request[message]) (*connect.Response[message], error) {
	key, err := keyOf(r.Header().Get(batchHeader))
	if err != nil {
		return nil, s.asStatus(err)
	}
	body := bytes.NewReader(r.Msg.bytes)
	r.Msg.bytes = nil // it need not stay while the batch waits
	stats, _, err := s.take(context.WithoutCancel(ctx), body, "otlp", key, ctx.Value(holdKey{}).(*hold))
	if err != nil {
		return nil, s.asStatus(err)
	}
	return connect.NewResponse(&message{exported(&stats)}), nil
}

// asStatus returns an error as gRPC has it.
func (s *Server) asStatus(err error) error {
	var r *refusal
	if !errors.As(err, &r) {
		r = &refusal{badBody, err.Error()}
	}
	s.metrics.rejected.WithLabelValues(r.reason).Inc()
	status := connect.NewError(r.code, r)
	if r.retry {
		after := time.Duration(s.retrySeconds()) * time.Second
		if detail, err := connect.NewErrorDetail(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)}); err == nil {
			status.AddDetail(detail)
		}
	}
	return status
}

// message is a message as it stands: flowlog reads it.
type message struct{ bytes []byte }

// asItIs passes messages on; only those of gRPC itself are made from values.
type asItIs struct{}

func (asItIs) Name() string { return "proto" }

func (asItIs) Marshal(m any) ([]byte, error) {
	switch m := m.(type) {
	case *message:
		return m.bytes, nil
	case proto.Message:
		return proto.Marshal(m)
	}
	return nil, fmt.Errorf("%T is no message", m)
}

func (asItIs) Unmarshal(data []byte, m any) error {
	own, ok := m.(*message)
	if !ok {
		return fmt.Errorf("%T is no message", m)
	}
	own.bytes = bytes.Clone(data)
	return nil
}

// packed leaves a message compressed: flowlog uncompresses it, within bounds.
type packed struct{ io.Reader }

func newPacked() connect.Decompressor { return &packed{} }

func (p *packed) Reset(r io.Reader) error { p.Reader = r; return nil }
func (p *packed) Close() error            { return nil }

func newGzip() connect.Compressor { return gzip.NewWriter(io.Discard) }
