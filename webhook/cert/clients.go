package cert

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// Clients judges who asks, by the certificate that they show: that of the API server is
// issued by somebody whom File names. It is safe for concurrent use, and reads the file
// again when that changes.
type Clients struct {
	File string           // certificates of issuers, PEM
	Name string           // the common name that a certificate must be of; "" is any
	Now  func() time.Time // the clock; time.Now unless it is set

	mutex   sync.Mutex
	issuers *x509.CertPool
	changed time.Time
}

// Check returns nil if a caller may ask, and else why not.
func (c *Clients) Check(s *tls.ConnectionState) error {
	if s == nil || len(s.PeerCertificates) == 0 {
		return errors.New("the caller showed no certificate; the API server shows one where its admission configuration names it")
	}
	issuers, err := c.load()
	if err != nil {
		return err
	}
	between := x509.NewCertPool()
	for _, cert := range s.PeerCertificates[1:] {
		between.AddCert(cert)
	}
	o := x509.VerifyOptions{Roots: issuers, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if c.Now != nil {
		o.CurrentTime = c.Now()
	}
	if _, err := s.PeerCertificates[0].Verify(o); err != nil {
		return err
	}
	if is := s.PeerCertificates[0].Subject.CommonName; c.Name != "" && is != c.Name {
		return fmt.Errorf("the caller showed a certificate of %q, not of %q", is, c.Name)
	}
	return nil
}

// Load reads the file, so that a mistake is told at once.
func (c *Clients) Load() error {
	_, err := c.load()
	return err
}

func (c *Clients) load() (*x509.CertPool, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	info, err := os.Stat(c.File)
	if err != nil {
		return nil, err
	}
	if c.issuers != nil && info.ModTime().Equal(c.changed) {
		return c.issuers, nil
	}
	text, err := os.ReadFile(c.File)
	if err != nil {
		return nil, err
	}
	issuers := x509.NewCertPool()
	if !issuers.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: there is no certificate in it, as PEM", c.File)
	}
	c.issuers, c.changed = issuers, info.ModTime()
	return issuers, nil
}
