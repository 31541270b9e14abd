package cert

import (
	"bytes"
	"maps"
	"testing"
	"time"
)

var born = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

func renewed(t *testing.T, held map[string][]byte, now time.Time) map[string][]byte {
	t.Helper()
	m := newMaker("weir.weir-system.svc")
	parts, err := m.renew(held, now)
	if err != nil {
		t.Fatal(err)
	}
	return parts
}

func TestRenew(t *testing.T) {
	first := renewed(t, nil, born)
	other := renewed(t, nil, born)
	with := func(name string, value []byte) map[string][]byte {
		parts := maps.Clone(first)
		parts[name] = value
		return parts
	}
	for _, row := range []struct {
		name                string
		held                map[string][]byte
		after               time.Duration
		newIssuer, newShown bool
	}{
		{"nothing is renewed at once", first, 0, false, false},
		{"nothing is renewed while there are ninety days left", first, (365 - 91) * day, false, false},
		{"the certificate is renewed ninety days ahead", first, (365-90)*day + time.Hour, false, true},
		{"one that has expired is renewed", first, 400 * day, false, true},
		{"an issuer is renewed ninety days ahead, and the certificate with it", first, (3650-90)*day + time.Hour, true, true},
		{"an empty Secret is filled", map[string][]byte{}, 0, true, true},
		{"a certificate of another issuer is replaced", with(shownFile, other[shownFile]), 0, false, true},
		{"a certificate without its key is replaced", with(keyFile, other[keyFile]), 0, false, true},
		{"an issuer without its key is replaced", with(issuerKey, nil), 0, true, true},
		{"an issuer with another key is replaced", with(issuerKey, other[issuerKey]), 0, true, true},
		{"what is no certificate is replaced", with(shownFile, []byte("no")), 0, false, true},
	} {
		parts := renewed(t, row.held, born.Add(row.after))
		if got := !bytes.Equal(firstBlock(parts[issuerFile]), firstBlock(row.held[issuerFile])); got != row.newIssuer {
			t.Errorf("%s: the issuer is new: %v", row.name, got)
		}
		if got := !bytes.Equal(parts[shownFile], row.held[shownFile]); got != row.newShown {
			t.Errorf("%s: the certificate is new: %v", row.name, got)
		}
		m := newMaker("weir.weir-system.svc")
		if !m.isGood(parts, born.Add(row.after)) {
			t.Errorf("%s: what it is renewed to does not serve its uses", row.name)
		}
	}
}

// Replicas and API servers that have not heard of a new issuer, and those that have,
// get on with each other while both are trusted.
func TestFormerIssuerIsTrustedForAWhile(t *testing.T) {
	first := renewed(t, nil, born)
	end := born.Add((3650-90)*day + time.Hour)
	second := renewed(t, renewed(t, first, end.Add(-30*day)), end)
	if n := bytes.Count(second[issuerFile], []byte("BEGIN CERTIFICATE")); n != 2 {
		t.Fatalf("%d issuers are trusted at first", n)
	}
	if !bytes.HasSuffix(second[issuerFile], first[issuerFile]) {
		t.Error("the former issuer is not the one that was")
	}
	if again := renewed(t, second, end.Add(overlap)); !bytes.Equal(again[issuerFile], second[issuerFile]) {
		t.Error("the former issuer is forgotten too early")
	}
	last := renewed(t, second, end.Add(overlap+time.Second))
	if n := bytes.Count(last[issuerFile], []byte("BEGIN CERTIFICATE")); n != 1 || !bytes.Equal(last[shownFile], second[shownFile]) {
		t.Errorf("%d issuers are trusted later", n)
	}
	if gone := renewed(t, first, born.Add(3651*day)); bytes.Count(gone[issuerFile], []byte("BEGIN CERTIFICATE")) != 1 {
		t.Error("an issuer that has expired is trusted")
	}
}
