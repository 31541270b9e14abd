package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"k8s.io/client-go/rest"
)

// longestRequest is for how long a server may take to store what it was sent.
const longestRequest = 2 * time.Minute

// sending is where flow records are sent, and as whom.
type sending struct {
	server                               string
	TokenFile, CAFile, CertFile, KeyFile string
}

// problems says what is wrong with the flags.
func (s *sending) problems(records bool) (all []error) {
	if s.server == "" {
		if *s != (sending{}) {
			all = append(all, errors.New("--send-… say how to send, and --send, which says where to, is not set"))
		}
		return all
	}
	at, err := url.Parse(s.server)
	if err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Host == "" {
		all = append(all, fmt.Errorf("--send %q is no URL, as in https://weir-flows.weir.svc:4319", s.server))
	} else if at.Scheme == "http" && s.TokenFile != "" {
		all = append(all, errors.New("--send-token-file wants --send https://…: on the way a token could be read"))
	}
	if !records {
		all = append(all, errors.New("--send wants --flows, where records wait while they cannot be sent"))
	}
	if (s.CertFile == "") != (s.KeyFile == "") {
		all = append(all, errors.New("--send-cert and --send-key want each other"))
	}
	return all
}

// address is the server's, without the path that a recorder adds.
func (s *sending) address() string { return strings.TrimRight(s.server, "/") }

// client sends as the flags say.
func (s *sending) client() (*http.Client, error) {
	if s.server == "" {
		return nil, nil
	}
	c, err := rest.HTTPClientFor(&rest.Config{
		Host: s.server, BearerTokenFile: s.TokenFile, TLSClientConfig: rest.TLSClientConfig{CAFile: s.CAFile, CertFile: s.CertFile, KeyFile: s.KeyFile}, Timeout: longestRequest,
	})
	if err != nil {
		return nil, fmt.Errorf("--send: %w", err)
	}
	return c, nil
}
