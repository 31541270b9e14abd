package cert

import (
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"slices"
	"time"

	"github.com/open-policy-agent/cert-controller/pkg/rotator"
)

const (
	issuerName = "weir-webhook"

	issuerLife = 10 * 365 * 24 * time.Hour
	shownLife  = 365 * 24 * time.Hour
	ahead      = 90 * 24 * time.Hour // of its end, a certificate is renewed
	skew       = time.Hour           // that a clock may be behind
	overlap    = time.Hour           // for which a former issuer is trusted still
)

// usages are what replicas need: they serve, and call each other.
var usages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}

// maker makes what the Secret holds.
type maker struct{ rotator.CertRotator }

func newMaker(name string, others ...string) maker {
	return maker{rotator.CertRotator{
		CAName: issuerName, CAOrganization: issuerName, DNSName: name, ExtraDNSNames: others, ExtKeyUsages: &usages,
	}}
}

// renew returns what a Secret should hold at a moment, which may be what it holds.
func (m *maker) renew(held map[string][]byte, now time.Time) (map[string][]byte, error) {
	parts := maps.Clone(held)
	if parts == nil {
		parts = map[string][]byte{}
	}
	issuer := m.issuer(held, now)
	switch {
	case issuer == nil:
		former := firstBlock(held[issuerFile])
		var err error
		if issuer, err = m.CreateCACert(now.Add(-skew), now.Add(issuerLife)); err != nil {
			return nil, err
		}
		parts[issuerKey], parts[issuerFile] = issuer.KeyPEM, issuer.CertPEM
		if isValidAt(former, now) {
			parts[issuerFile] = slices.Concat(issuer.CertPEM, former)
		}
	case m.isGood(held, now.Add(ahead)):
		if issued := notBefore(held[shownFile]).Add(skew); now.After(issued.Add(overlap)) {
			parts[issuerFile] = issuer.CertPEM
		}
		return parts, nil
	}
	var err error
	parts[shownFile], parts[keyFile], err = m.CreateCertPEM(issuer, now.Add(-skew), now.Add(shownLife))
	return parts, err
}

// issuer returns the one that a Secret holds; nil where it holds none for long.
func (m *maker) issuer(held map[string][]byte, now time.Time) *rotator.KeyPairArtifacts {
	certificate := firstBlock(held[issuerFile])
	if ok, err := rotator.ValidCert(certificate, certificate, held[issuerKey], issuerName, nil, now.Add(ahead)); !ok || err != nil {
		return nil
	}
	pair, err := tls.X509KeyPair(certificate, held[issuerKey])
	if err != nil {
		return nil
	}
	key, ok := pair.PrivateKey.(*rsa.PrivateKey)
	if !ok {
		return nil
	}
	return &rotator.KeyPairArtifacts{Cert: pair.Leaf, Key: key, CertPEM: certificate, KeyPEM: held[issuerKey]}
}

// isGood reports whether the certificate that is shown serves all its uses then.
func (m *maker) isGood(held map[string][]byte, then time.Time) bool {
	for _, usage := range usages {
		if ok, err := rotator.ValidCert(held[issuerFile], held[shownFile], held[keyFile], m.DNSName, &[]x509.ExtKeyUsage{usage}, then); !ok || err != nil {
			return false
		}
	}
	return true
}

// firstBlock returns the first certificate of several; nil where there is none.
func firstBlock(certificates []byte) []byte {
	block, _ := pem.Decode(certificates)
	if block == nil {
		return nil
	}
	return pem.EncodeToMemory(block)
}

func isValidAt(certificate []byte, now time.Time) bool {
	c := parse(certificate)
	return c != nil && now.After(c.NotBefore) && now.Before(c.NotAfter)
}

func notBefore(certificate []byte) time.Time {
	if c := parse(certificate); c != nil {
		return c.NotBefore
	}
	return time.Time{}
}

func parse(certificate []byte) *x509.Certificate {
	block, _ := pem.Decode(certificate)
	if block == nil {
		return nil
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return c
}
