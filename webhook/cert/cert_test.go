package cert

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/weir-policy/weir/internal/testkit"
)

// clock stands still until it is set.
type clock struct{ since atomic.Int64 }

func (c *clock) set(since time.Duration) { c.since.Store(int64(since)) }
func (c *clock) read() time.Time         { return born.Add(time.Duration(c.since.Load())) }

// hook is a replica of the webhook: it answers whether the caller is another one,
// on /wait after it was let go.
type hook struct {
	*Certificates
	*clock
	address string
	waits   chan struct{} // tells that a request waits
	goOn    chan struct{}
}

func newHook(t *testing.T, config *rest.Config, now *clock, o Options) *hook {
	t.Helper()
	h := &hook{clock: now, waits: make(chan struct{}), goOn: make(chan struct{})}
	o.Namespace, o.Service = "default", "weir"
	o.Now = now.read
	var err error
	if h.Certificates, err = New(config, o); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Start(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.address = listener.Addr().String()
	server := &http.Server{TLSConfig: h.Server(), ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			h.waits <- struct{}{}
			<-h.goOn
		}
		if err := h.FromReplica(r.TLS); err != nil {
			io.WriteString(w, err.Error())
			return
		}
		io.WriteString(w, "a replica")
	})}
	go server.ServeTLS(listener, "", "")
	t.Cleanup(func() { server.Close() })
	return h
}

// ask returns what a hook answers on a new connection, and what it showed.
func (h *hook) ask(t *testing.T, config *tls.Config, path string) (string, *x509.Certificate, error) {
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: transport}).Get("https://" + h.address + path)
	if err != nil {
		return "", nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return string(text), answer.TLS.PeerCertificates[0], err
}

// until waits for something that another goroutine brings about.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	testkit.Eventually(t, func() error {
		if !so() {
			return fmt.Errorf("waited in vain until %s", what)
		}
		return nil
	})
}

func (h *hook) awaitReady(t *testing.T) {
	t.Helper()
	until(t, "the webhook is ready", func() bool { return h.Ready(nil) == nil })
}

// write replaces the files of a folder as a kubelet does: all at once.
func write(t *testing.T, folder string, parts map[string][]byte) {
	t.Helper()
	former, _ := os.Readlink(filepath.Join(folder, "..data"))
	version, err := os.MkdirTemp(folder, "..")
	if err != nil {
		t.Fatal(err)
	}
	for name, part := range parts {
		if err := os.WriteFile(filepath.Join(version, name), part, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(folder, name)); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	next := filepath.Join(folder, "..next")
	if err := os.Symlink(filepath.Base(version), next); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(folder, "..data")); err != nil {
		t.Fatal(err)
	}
	if former != "" {
		os.RemoveAll(filepath.Join(folder, former))
	}
}

func made(t *testing.T, name string) map[string][]byte {
	t.Helper()
	m := newMaker(name)
	parts, err := m.renew(nil, born)
	if err != nil {
		t.Fatal(err)
	}
	return parts
}

func TestFolder(t *testing.T) {
	folder := t.TempDir()
	h := newHook(t, nil, &clock{}, Options{Folder: folder})
	if err := h.Ready(nil); err == nil || !strings.Contains(err.Error(), "there is no certificate for weir.default.svc yet") {
		t.Errorf("before there are files, it says %v", err)
	}
	first := made(t, "weir.default.svc")
	write(t, folder, first)
	h.awaitReady(t)
	if answer, _, err := h.ask(t, h.Client(), "/"); err != nil || answer != "a replica" {
		t.Fatalf("a replica is told %q, %v", answer, err)
	}

	// A request that waits is answered on its connection, though the next one sees
	// another certificate.
	type answer struct {
		text  string
		shown *x509.Certificate
		err   error
	}
	waiting := make(chan answer)
	go func() {
		text, shown, err := h.ask(t, h.Client(), "/wait")
		waiting <- answer{text, shown, err}
	}()
	<-h.waits
	second := made(t, "weir.default.svc")
	second[issuerFile] = append(second[issuerFile], first[issuerFile]...)
	write(t, folder, second)
	until(t, "the new certificate is shown", func() bool {
		text, shown, err := h.ask(t, h.Client(), "/")
		return err == nil && text == "a replica" && shown.Equal(parse(second[shownFile]))
	})
	close(h.goOn)
	if a := <-waiting; a.err != nil || a.text != "a replica" || !a.shown.Equal(parse(first[shownFile])) {
		t.Errorf("who waited is told %q, %v", a.text, a.err)
	}

	h.set(366 * day)
	if err := h.Ready(nil); err == nil || err.Error() != "the certificate for weir.default.svc was valid until 2027-11-01T12:00:00Z" {
		t.Errorf("once it has expired, it says %v", err)
	}
	if _, _, err := h.ask(t, h.Client(), "/"); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("a replica accepts what has expired: %v", err)
	}
	h.set(-2 * time.Hour)
	if err := h.Ready(nil); err == nil || err.Error() != "the certificate for weir.default.svc is valid from 2026-11-01T11:00:00Z on" {
		t.Errorf("before its time, it says %v", err)
	}
}

func TestWhoIsAReplica(t *testing.T) {
	folder := t.TempDir()
	h := newHook(t, nil, &clock{}, Options{Folder: folder})
	parts := made(t, "weir.default.svc")
	write(t, folder, parts)
	h.awaitReady(t)

	// Of the same issuer: another service, and one that may only serve.
	another := newMaker("other.default.svc")
	server := newMaker("weir.default.svc")
	server.ExtKeyUsages = &[]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	of := func(m maker, parts map[string][]byte) []tls.Certificate {
		issuer := m.issuer(parts, born)
		cert, key, err := m.CreateCertPEM(issuer, born.Add(-skew), born.Add(shownLife))
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{pair}
	}
	foreign := made(t, "weir.default.svc")
	for _, row := range []struct {
		name   string
		shows  []tls.Certificate
		answer string
	}{
		{"the API server shows none", nil, "the caller showed no certificate"},
		{"a replica", of(newMaker("weir.default.svc"), parts), "a replica"},
		{"another service", of(another, parts), "not weir.default.svc"},
		{"a server", of(server, parts), "incompatible key usage"},
		{"of another issuer", of(newMaker("weir.default.svc"), foreign), "unknown authority"},
	} {
		config := h.Client()
		config.GetClientCertificate, config.Certificates = nil, row.shows
		answer, _, err := h.ask(t, config, "/")
		if err != nil || !strings.Contains(answer, row.answer) {
			t.Errorf("%s: %q, %v", row.name, answer, err)
		}
	}
}

func TestFolderWithoutIssuer(t *testing.T) {
	folder := t.TempDir()
	h := newHook(t, nil, &clock{}, Options{Folder: folder})
	parts := made(t, "weir.default.svc")
	delete(parts, issuerFile)
	write(t, folder, parts)
	h.awaitReady(t)
	if _, _, err := h.ask(t, h.Client(), "/"); err == nil || !strings.Contains(err.Error(), "not known yet who issues") {
		t.Errorf("a replica trusts anybody: %v", err)
	}
}

func TestFolderWithNonsense(t *testing.T) {
	folder := t.TempDir()
	write(t, folder, map[string][]byte{shownFile: []byte("no"), keyFile: []byte("no")})
	c, err := New(nil, Options{Folder: folder})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate in "+folder) {
		t.Errorf("it says %v", err)
	}
}
