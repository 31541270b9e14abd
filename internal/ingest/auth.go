package ingest

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
)

// authorize refuses who has not the certificate or the token that is asked for.
func (s *Server) authorize(r *http.Request) error {
	if t := s.config.TLS; t != nil && t.ClientCAs != nil && (r.TLS == nil || len(r.TLS.VerifiedChains) == 0) {
		return refuse(unauthorized, "a client certificate is asked for")
	}
	if s.config.TokenFile == "" {
		return nil
	}
	tokens, err := readTokens(s.config.TokenFile)
	if err != nil {
		s.config.Log.Error("nobody can be let in", "error", err)
		return refuse(noStore, "tokens cannot be checked just now; send it again later")
	}
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	got, known := sha256.Sum256([]byte(strings.TrimSpace(given))), 0
	for _, token := range tokens {
		want := sha256.Sum256(token) // of one length, which so does not show
		known |= subtle.ConstantTimeCompare(want[:], got[:])
	}
	if known == 0 || !strings.EqualFold(scheme, "Bearer") {
		return refuse(unauthorized, "a bearer token is asked for, as in Authorization: Bearer TOKEN")
	}
	return nil
}

// readTokens reads a file of tokens, one a line.
func readTokens(file string) ([][]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("tokens: %w", err)
	}
	tokens := bytes.Fields(text)
	if len(tokens) == 0 {
		return nil, fmt.Errorf("tokens: %s is empty; write one token a line", file)
	}
	return tokens, nil
}

// LoadTLS makes the configuration of a server that has a certificate and its key
// in files. With a file of certificate authorities, senders must have a
// certificate of theirs; health and metrics are there for everybody. The
// certificate is read for each connection, so that it may be renewed.
func LoadTLS(cert, key, clientCA string) (*tls.Config, error) {
	load := func() (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(cert, key)
		return &c, err
	}
	if _, err := load(); err != nil {
		return nil, fmt.Errorf("TLS certificate: %w", err)
	}
	config := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return load() },
	}
	if clientCA == "" {
		return config, nil
	}
	text, err := os.ReadFile(clientCA)
	if err != nil {
		return nil, fmt.Errorf("client CA: %w", err)
	}
	config.ClientAuth, config.ClientCAs = tls.VerifyClientCertIfGiven, x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(text) {
		return nil, errors.New("client CA: " + clientCA + " has no certificate in PEM")
	}
	return config, nil
}
