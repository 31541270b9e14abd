package flowstore

import (
	"os"
	"path/filepath"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/policies"
)

func TestAFileComesBackAsItWas(t *testing.T) {
	made := generate(small(21), 3_000)
	name := filepath.Join(t.TempDir(), "flows.parquet")
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	w, err := NewFileWriter(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := range made {
		if err := w.Write(made[i]); err != nil {
			t.Fatal(err)
		}
		if i == 1_000 {
			if err := w.writeGroup(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	var found []policies.Flow
	isOne, err := ReadFile(t.Context(), file, func(f policies.Flow) error {
		if f.Record != (policies.Place{File: name, Line: len(found) + 1}) {
			t.Fatalf("flow %d is of %v", len(found), f.Record)
		}
		f.Record = policies.Place{}
		found = append(found, f)
		return nil
	})
	if diff := gocmp.Diff(ordered(made), ordered(found), equal); diff != "" || !isOne || err != nil {
		t.Errorf("a file of ours: %t, error %v: %s", isOne, err, diff)
	}
}

func TestAnotherFileIsNoneOfOurs(t *testing.T) {
	for _, text := range []string{"", "{}\n", "PAR1PAR1"} {
		name := filepath.Join(t.TempDir(), "flows")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if isOne, err := ReadFile(t.Context(), file, nil); isOne || err != nil {
			t.Errorf("%q is one of ours: %t, error %v", text, isOne, err)
		}
		file.Close()
	}
}
