package source_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/keys"

	"github.com/weir-policy/weir/internal/source"
)

// bundled writes a bundle of one policy that opa build would have signed, and then lets
// somebody change it. Without a key it is not signed.
func bundled(t *testing.T, key, algorithm string, change func(*bundle.Bundle)) string {
	t.Helper()
	text := "package shop.names\n\ndeny contains \"no\" if data.shop.closed\n"
	b := bundle.Bundle{
		Manifest: bundle.Manifest{Roots: &[]string{""}},
		Data:     map[string]any{"shop": map[string]any{"closed": true}},
		Modules:  []bundle.ModuleFile{{URL: "/names.rego", Path: "/names.rego", Raw: []byte(text), Parsed: ast.MustParseModule(text)}},
	}
	if key != "" {
		if err := b.GenerateSignature(bundle.NewSigningConfig(key, algorithm, ""), "default", false); err != nil {
			t.Fatal(err)
		}
	}
	if change != nil {
		change(&b)
	}
	var written bytes.Buffer
	if err := bundle.NewWriter(&written).Write(b); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "pack.tar.gz")
	if err := os.WriteFile(name, written.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestSignaturesOfBundles(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	signs := string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
	opens := filepath.Join(t.TempDir(), "public.pem")
	if err := os.WriteFile(opens, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o600); err != nil {
		t.Fatal(err)
	}
	const secret, other = "a secret that only we know, and nobody else", "a secret that somebody else has made up by himself"
	relax := func(b *bundle.Bundle) { b.Data["shop"] = map[string]any{"closed": false} }
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "a.rego"), []byte("package a\n\ndeny contains \"no\" if true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, pack, key, algorithm string
		unverified                 bool
		fails                      string
	}{
		{"a secret", bundled(t, secret, "HS256", nil), secret, "HS256", false, ""},
		{"a public key", bundled(t, signs, "ES256", nil), opens, "ES256", false, ""},
		{"another secret", bundled(t, secret, "HS256", nil), other, "HS256", false, "pack.tar.gz: it cannot be read as a bundle of OPA that is signed by the key: "},
		{"another algorithm", bundled(t, secret, "HS256", nil), opens, "ES256", false, "that is signed by the key: "},
		{"data that were changed", bundled(t, secret, "HS256", relax), secret, "HS256", false, "that is signed by the key: "},
		{"no signature", bundled(t, "", "", nil), secret, "HS256", false, "bundle missing .signatures.json file"},
		{"a signature and no key", bundled(t, secret, "HS256", nil), "", "", true, ""},
		{"neither", bundled(t, "", "", nil), "", "", false, ""},
		{"a folder", folder, secret, "HS256", false, "a folder has no signature to verify"},
		{"one that ships with Weir", "baseline", secret, "HS256", false, ""},
	} {
		var v *source.Verification
		if row.key != "" {
			key, err := keys.NewKeyConfig(row.key, row.algorithm, "")
			if err != nil {
				t.Fatal(err)
			}
			v = bundle.NewVerificationConfig(map[string]*bundle.KeyConfig{"default": key}, "default", "", nil)
		}
		p, err := source.ReadPack(t.Context(), v, row.pack)
		switch {
		case row.fails == "" && err != nil, row.fails != "" && (err == nil || !strings.Contains(err.Error(), row.fails)):
			t.Errorf("%s: %v, want %q", row.name, err, row.fails)
		case err == nil && (p.Unverified != row.unverified || len(p.Invariants) == 0):
			t.Errorf("%s: %+v", row.name, p)
		}
	}
}
