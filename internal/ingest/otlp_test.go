package ingest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	collector "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	rpc "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// exportOf is a message of flows with these source ports.
func exportOf(ports ...int64) *collector.ExportLogsServiceRequest {
	var records []*logs.LogRecord
	text := func(key, value string) *common.KeyValue {
		return &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: value}}}
	}
	number := func(key string, value int64) *common.KeyValue {
		return &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: value}}}
	}
	for _, p := range ports {
		records = append(records, &logs.LogRecord{TimeUnixNano: 1_773_130_000_000_000_000, Attributes: []*common.KeyValue{
			text("source.address", "10.0.0.1"), number("source.port", p), text("destination.address", "10.0.0.2"),
			number("destination.port", 5432), text("network.transport", "tcp"),
		}})
	}
	return &collector.ExportLogsServiceRequest{ResourceLogs: []*logs.ResourceLogs{{
		Resource:  &resource.Resource{Attributes: []*common.KeyValue{text("host.name", "node-7")}},
		ScopeLogs: []*logs.ScopeLogs{{LogRecords: records}},
	}}}
}

// withOdd adds a record that cannot be read, and one that is no flow.
func withOdd(m *collector.ExportLogsServiceRequest) *collector.ExportLogsServiceRequest {
	odd := exportOf(70_000).ResourceLogs[0].ScopeLogs[0].LogRecords
	all := &m.ResourceLogs[0].ScopeLogs[0].LogRecords
	*all = append(*all, odd[0], &logs.LogRecord{TimeUnixNano: 1})
	return m
}

func (r *running) dial(t *testing.T, how credentials.TransportCredentials) collector.LogsServiceClient {
	t.Helper()
	connection, err := grpc.NewClient("passthrough:///"+r.addr, grpc.WithTransportCredentials(how))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return collector.NewLogsServiceClient(connection)
}

func named(ctx context.Context, key string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "weir-batch", key)
}

func TestGRPC(t *testing.T) {
	r := start(t, Config{MaxBody: 1 << 20}, nil)
	client := r.dial(t, insecure.NewCredentials())
	if got, err := client.Export(t.Context(), exportOf(1, 2)); err != nil || got.PartialSuccess != nil {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := client.Export(t.Context(), exportOf(3), grpc.UseCompressor(gzip.Name)); err != nil {
		t.Error(err)
	}
	for range 2 {
		if _, err := client.Export(named(t.Context(), "node-7/1"), exportOf(4)); err != nil {
			t.Error(err)
		}
	}
	got, err := client.Export(t.Context(), withOdd(exportOf(5)))
	if err != nil || got.PartialSuccess.GetRejectedLogRecords() != 2 || !strings.Contains(got.PartialSuccess.GetErrorMessage(), "1 left out: log record without source and destination") {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := client.Export(t.Context(), &collector.ExportLogsServiceRequest{}); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		name    string
		message *collector.ExportLogsServiceRequest
		key     string
		want    codes.Code
	}{
		{"all bad", exportOf(70_000), "", codes.InvalidArgument},
		{"a bad name", exportOf(6), "node-7", codes.InvalidArgument},
		{"too large", exportOf(make([]int64, 20_000)...), "", codes.ResourceExhausted},
	} {
		ctx := t.Context()
		if c.key != "" {
			ctx = named(ctx, c.key)
		}
		_, err := client.Export(ctx, c.message)
		if s := status.Convert(err); s.Code() != c.want || len(s.Details()) != 0 {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	large := exportOf(make([]int64, 20_000)...)
	if _, err := client.Export(t.Context(), large, grpc.UseCompressor(gzip.Name)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("too large once uncompressed: %v", err)
	}
	if diff := cmp.Diff(once(1, 2, 3, 4, 5), stored(t, r.where)); diff != "" {
		t.Error(diff)
	}
	if in := r.budget.inUse(); in != 0 {
		t.Errorf("%d bytes are still held", in)
	}
	if err := r.end(); err != nil {
		t.Error(err)
	}
}

// mayComeAgain reports whether a sender is told that it may come again, and with
// which code.
func mayComeAgain(err error) (codes.Code, bool) {
	s := status.Convert(err)
	for _, detail := range s.Details() {
		if retry, ok := detail.(*errdetails.RetryInfo); ok {
			return s.Code(), retry.RetryDelay.AsDuration() == time.Second
		}
	}
	return s.Code(), false
}

func TestGRPCBackPressure(t *testing.T) {
	r := start(t, Config{Queue: 3 << 20}, func(r *running) {
		r.store.entered, r.store.let = make(chan struct{}, 10), make(chan struct{})
	})
	client := r.dial(t, insecure.NewCredentials())
	r.store.set(errors.New("s3: code 503"), nil)
	refused := make(chan error, 1)
	go func() {
		_, err := client.Export(t.Context(), exportOf(1))
		refused <- err
	}()
	<-r.store.entered
	if err := (&hold{of: r.budget}).to(r.budget.limit - r.budget.inUse()); err != nil { // others take the rest
		t.Fatal(err)
	}
	_, err := client.Export(t.Context(), exportOf(2))
	if code, again := mayComeAgain(err); code != codes.ResourceExhausted || !again {
		t.Errorf("a full queue: %v", err)
	}
	close(r.store.let)
	if code, again := mayComeAgain(<-refused); code != codes.Unavailable || !again {
		t.Errorf("a store that fails: %v", err)
	}
}

func TestOTLPOverHTTP(t *testing.T) {
	r := start(t, Config{MaxBody: 1 << 20}, nil)
	send := func(m proto.Message, binary bool, headers ...string) answer {
		body, err := proto.Marshal(m)
		kind := protobuf
		if !binary {
			body, err = protojson.Marshal(m)
			kind = "application/json"
		}
		if err != nil {
			t.Fatal(err)
		}
		return r.post(t, "/v1/logs", bytes.NewReader(body), append([]string{"Content-Type", kind}, headers...)...)
	}
	for i, binary := range []bool{false, true} {
		if got := send(exportOf(int64(10*i+1)), binary); got.status != 200 || got.text != map[bool]string{false: "{}", true: ""}[binary] {
			t.Errorf("%+v", got)
		}
		got := send(withOdd(exportOf(int64(10*i+2))), binary)
		var partial collector.ExportLogsServiceResponse
		err := proto.Unmarshal([]byte(got.text), &partial)
		if !binary {
			err = protojson.Unmarshal([]byte(got.text), &partial)
		}
		if err != nil || partial.PartialSuccess.GetRejectedLogRecords() != 2 {
			t.Errorf("%+v, %v", got, err)
		}
		got = send(exportOf(70_000), binary)
		var refused rpc.Status
		err = proto.Unmarshal([]byte(got.text), &refused)
		if !binary {
			err = json.Unmarshal([]byte(got.text), &refused)
		}
		if err != nil || got.status != 400 || refused.Code != int32(codes.InvalidArgument) || !strings.Contains(refused.Message, "70000") {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if got := send(&collector.ExportLogsServiceRequest{}, true); got.status != 200 {
		t.Errorf("%+v", got)
	}
	for range 2 {
		send(exportOf(3), true, "Weir-Batch", "node-7/1")
	}
	if got := r.post(t, "/v1/logs", strings.NewReader("x"), "Content-Type", "text/plain"); got.status != 415 {
		t.Errorf("%+v", got)
	}
	if diff := cmp.Diff(once(1, 2, 11, 12, 3), stored(t, r.where)); diff != "" {
		t.Error(diff)
	}
}

func TestTokens(t *testing.T) {
	tokens := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(tokens, []byte("first\nsecond\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, Config{TokenFile: tokens}, nil)
	send := func(header string) int {
		return r.post(t, "/v1/flows", strings.NewReader(lines(1)), "Authorization", header).status
	}
	for header, want := range map[string]int{
		"Bearer first": 200, "bearer second": 200, "": 401, "first": 401, "Basic first": 401, "Bearer": 401, "Bearer fir": 401, "Bearer first second": 401,
	} {
		if got := send(header); got != want {
			t.Errorf("%q: %d instead of %d", header, got, want)
		}
	}
	client := r.dial(t, insecure.NewCredentials())
	if _, err := client.Export(t.Context(), exportOf(2)); status.Code(err) != codes.Unauthenticated {
		t.Error(err)
	}
	if _, err := client.Export(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer first"), exportOf(2)); err != nil {
		t.Error(err)
	}
	// A renewed file counts at once; one that is not there lets nobody in.
	if err := os.WriteFile(tokens, []byte("third"), 0o600); err != nil {
		t.Fatal(err)
	}
	if send("Bearer third") != 200 || send("Bearer first") != 401 {
		t.Error("the renewed tokens do not count")
	}
	os.Remove(tokens)
	if got := send("Bearer third"); got != 503 {
		t.Errorf("without tokens: %d", got)
	}
	if got := r.get(t, "/livez"); got.status != 200 {
		t.Errorf("%+v", got)
	}
	if err := New(Config{TokenFile: tokens}, r.store, r.clock).Run(t.Context()); err == nil {
		t.Error("a server without its tokens runs")
	}
}

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
	}
	a.cert, a.key = a.sign(name, template, nil)
	return a
}

// sign writes NAME.crt and NAME.key.
func (a *authority) sign(name string, template *x509.Certificate, by *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	err = errors.Join(
		os.WriteFile(a.file(name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(a.file(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) issue(name string) {
	a.sign(name, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a)
}

func TestMutualTLS(t *testing.T) {
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	for _, name := range []string{"server", "node-7"} {
		ours.issue(name)
	}
	theirs.issue("node-7")
	config, err := LoadTLS(ours.file("server.crt"), ours.file("server.key"), ours.file("ours.crt"))
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, Config{TLS: config}, func(r *running) { r.scheme = "https" })
	roots := x509.NewCertPool()
	roots.AddCert(ours.cert)
	with := func(of *authority) *tls.Config {
		c := &tls.Config{RootCAs: roots}
		if of != nil {
			pair, err := tls.LoadX509KeyPair(of.file("node-7.crt"), of.file("node-7.key"))
			if err != nil {
				t.Fatal(err)
			}
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		}
		return c
	}
	r.client.Transport = &http.Transport{TLSClientConfig: with(ours), ForceAttemptHTTP2: true}
	if got := r.post(t, "/v1/flows", strings.NewReader(lines(1))); got.status != 200 {
		t.Errorf("%+v", got)
	}
	if _, err := r.dial(t, credentials.NewTLS(with(ours))).Export(t.Context(), exportOf(2)); err != nil {
		t.Error(err)
	}
	if _, err := r.dial(t, credentials.NewTLS(with(nil))).Export(t.Context(), exportOf(3)); status.Code(err) != codes.Unauthenticated {
		t.Error(err)
	}
	if _, err := r.dial(t, credentials.NewTLS(with(theirs))).Export(t.Context(), exportOf(3)); status.Code(err) != codes.Unavailable {
		t.Errorf("a certificate of another authority: %v", err)
	}
	r.client.CloseIdleConnections()
	r.client.Transport = &http.Transport{TLSClientConfig: with(nil)}
	if got := r.post(t, "/v1/flows", strings.NewReader(lines(3))); got.status != 401 {
		t.Errorf("%+v", got)
	}
	if got := r.get(t, "/readyz"); got.status != 200 {
		t.Errorf("health without a certificate: %+v", got)
	}
	if diff := cmp.Diff(once(1, 2), stored(t, r.where)); diff != "" {
		t.Error(diff)
	}
	for _, files := range [][3]string{{"no.crt", "server.key", ""}, {"server.crt", "server.key", "no.crt"}, {"server.crt", "server.key", "server.key"}} {
		ca := files[2]
		if ca != "" {
			ca = ours.file(ca)
		}
		if _, err := LoadTLS(ours.file(files[0]), ours.file(files[1]), ca); err == nil {
			t.Error(fmt.Sprint(files) + " make a configuration")
		}
	}
}
