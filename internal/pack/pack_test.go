package pack_test

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/internal/pack"
)

func put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFilesArrive(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "shop", "db")
	put(t, filepath.Join(from, "b.pcapng"), "second")
	put(t, filepath.Join(from, "a.pcapng"), "")
	put(t, filepath.Join(from, "captures.json"), "{}")
	if err := os.Mkdir(filepath.Join(from, "c.pcapng"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/hostname", filepath.Join(from, "d.pcapng")); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := pack.Write(&archive, from, ".pcapng"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time in the place of the first
		names, err := pack.Read(bytes.NewReader(archive.Bytes()), to)
		if diff := cmp.Diff([]string{"a.pcapng", "b.pcapng"}, names); err != nil || diff != "" {
			t.Fatalf("%v\n%s", err, diff)
		}
	}
	if text, err := os.ReadFile(filepath.Join(to, "b.pcapng")); err != nil || string(text) != "second" {
		t.Errorf("%q, %v", text, err)
	}
	info, err := os.Stat(filepath.Join(to, "b.pcapng"))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}

	// Cut anywhere, it says so, and leaves no part of a file.
	for n := 0; n <= archive.Len()-1024-512-1; n += 61 { // behind that is the end
		dir := t.TempDir()
		if _, err := pack.Read(bytes.NewReader(archive.Bytes()[:n]), dir); err == nil {
			t.Fatalf("%d of %d bytes are read as a whole", n, archive.Len())
		}
		parts, _ := filepath.Glob(filepath.Join(dir, "*.new"))
		if len(parts) > 0 {
			t.Errorf("%d bytes: %v", n, parts)
		}
	}
}

func TestNoFolder(t *testing.T) {
	var archive bytes.Buffer
	if err := pack.Write(&archive, filepath.Join(t.TempDir(), "none"), ".pcapng"); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "to")
	if names, err := pack.Read(&archive, to); err != nil || len(names) > 0 {
		t.Errorf("%v, %v", names, err)
	}
	if _, err := os.Stat(to); err == nil {
		t.Error("a folder was made for nothing")
	}
}

func TestNothingLeadsOut(t *testing.T) {
	for name, kind := range map[string]byte{
		"../a.pcapng": tar.TypeReg, "/a.pcapng": tar.TypeReg, "b/a.pcapng": tar.TypeReg, "..": tar.TypeReg, "a": tar.TypeSymlink, "d": tar.TypeDir,
	} {
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: kind, Linkname: "/etc/passwd"}); err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
		if _, err := pack.Read(&archive, t.TempDir()); err == nil || !strings.Contains(err.Error(), "no file of one folder") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
