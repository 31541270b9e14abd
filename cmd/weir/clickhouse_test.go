package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/internal/testkit"
)

// newDatabase starts a ClickHouse server and returns its address, or skips the test
// where it is not run to use one.
func newDatabase(t *testing.T) string {
	t.Helper()
	if os.Getenv("WEIR_CLICKHOUSE") == "" {
		t.Skip("no ClickHouse to ask: make test-clickhouse starts Debian's, where it can be had")
	}
	script, folder := filepath.Join(testkit.Root(t), "tools", "clickhouse", "servers.sh"), t.TempDir()
	t.Cleanup(func() {
		if err := exec.Command(script, "stop", folder).Run(); err != nil {
			t.Error(err)
		}
	})
	address, err := exec.Command(script, "start", folder).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(address))
}

// The same questions get the same answers from files of a store and from a
// database.
func TestRealDatabase(t *testing.T) {
	database, files := newDatabase(t), filepath.Join(t.TempDir(), "flows")
	shop := filepath.Join(testkit.Root(t), "examples", "shop")
	for _, store := range []string{files, database} {
		var out bytes.Buffer
		args := []string{"weir", "flows", "import", filepath.Join(shop, "flows.jsonl.gz"), "--store", store}
		if status := run(t.Context(), args, streams{strings.NewReader(""), &out, &out}); status != 0 || !strings.Contains(out.String(), "5,176 added") {
			t.Fatalf("import: exit status %d\n%s", status, out.String())
		}
	}
	for _, question := range []string{
		"flows top",
		"flows top --by hour,verdict --to payments/db -o json",
		"flows top --by to.address --to world",
		"flows top --by policy --verdict deny",
		"flows top --by pod --from storefront/web --limit 5",
		"flows graph --peer payments/* -o json",
		"flows graph --by namespace",
		"flows list --verdict deny --limit 20 -o json",
		"flows list --from app=web --port 8080 --sort -bytes",
		"flows list --to payments/db --since 2026-03-10T06:10:00Z --until 2026-03-10T09:40:00Z -o csv",
		"flows list --policy payments/db --sort to",
		"flows export --peer 198.18.0.0/16 --into -",
		"replay SHOP -o json",
		"replay SHOP --since 2026-03-10T06:10:00Z",
	} {
		args := strings.Fields(strings.ReplaceAll(question, "SHOP", shop))
		ask := func(store string) (answer, said string) {
			var out, stderr bytes.Buffer
			if status := run(t.Context(), append([]string{"weir", args[0]}, append(args[1:], "--flows", store)...), streams{strings.NewReader(""), &out, &stderr}); status > 1 {
				t.Fatalf("weir %s --flows %s: exit status %d\n%s", question, store, status, stderr.String())
			}
			return out.String(), stderr.String()
		}
		want, said := ask(files)
		got, saidToo := ask(database)
		if want == "" {
			t.Errorf("%s: no answer", question)
		}
		if diff := cmp.Diff(want+said, got+saidToo); diff != "" {
			t.Errorf("%s (-files +database):\n%s", question, diff)
		}
	}
	for _, test := range []struct{ verb, want string }{
		{"stats", " holds 5,176 records of 5,176 flows.\nFrom 2026-03-10 00:00:04 to 2026-03-10 23:58:01; 24 hours.\n"},
		{"verify", "All of it is as it was written.\n"},
	} {
		if got := string(weir(t, "", "flows", test.verb, "--store", database)); !strings.Contains(got, test.want) {
			t.Errorf("%s: got %s", test.verb, got)
		}
	}
}
