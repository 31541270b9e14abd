package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestObserve listens to an agent that tells what happens, a line now and then.
func TestObserve(t *testing.T) {
	told := []string{
		`{"apiVersion":"weir.dev/v1alpha1","kind":"Flow","first":"2026-03-10T08:00:00Z","from":{"namespace":"shop","pod":"web-0"},"to":{"namespace":"shop","pod":"db-0"},"protocol":"TCP","port":5432,"verdict":"allow","count":1,"started":1,"policies":[{"tier":"default","kind":"NetworkPolicy","namespace":"shop","name":"db","action":"allow","rule":0}]}`,
		`{"apiVersion":"weir.dev/v1alpha1","kind":"Flow","first":"2026-03-10T08:00:01Z","from":{"address":"192.0.2.1"},"to":{"namespace":"shop","pod":"db-0"},"protocol":"UDP","port":53,"verdict":"deny","count":1,"packets":1}`,
		`{"apiVersion":"weir.dev/v1alpha1","kind":"FlowLoss","cause":"flows that came faster than they could be told","count":7}`,
		`{"apiVersion":"weir.dev/v1alpha1","kind":"Flow","first":"2026-03-10T08:00:02Z","from":{"namespace":"shop","pod":"web-0"},"to":{"namespace":"shop","pod":"db-0"},"protocol":"TCP","port":5432,"verdict":"allow","count":1,"ended":1,"bytes":1200,"packets":9,"replyBytes":4096,"replyPackets":8}`,
	}
	for _, tt := range []struct {
		name    string
		args    string
		follows bool
		out     string
		err     string
		status  int
	}{
		{"all, as it happens", "--follow", true, "2026-03-10 08:00:00  allow  shop/web-0 → shop/db-0  TCP/5432  began  by shop/db\n" +
			"2026-03-10 08:00:01  deny   192.0.2.1 → shop/db-0  UDP/53  denied\n" +
			"2026-03-10 08:00:02  allow  shop/web-0 → shop/db-0  TCP/5432  ended, 1.2 kB sent, 4.1 kB back\n", "7 flows were lost, for they came faster than they were read\n", 0},
		{"what is denied, as it was told", "--limit 1 --verdict deny -o json", false, strings.Replace(strings.Replace(told[1], `"from"`, `"last":"2026-03-10T08:00:01Z","from"`, 1), `"packets":1`, `"packets":1,"origin":{"format":"weir"}`, 1) + "\n", "", 0},
		{"an agent that ends", "--verdict deny --limit 2 --to shop/*", false, "2026-03-10 08:00:01  deny   192.0.2.1 → shop/db-0  UDP/53  denied\n", "7 flows were lost, for they came faster than they were read\nobserve: the agent ended after 1 of 2 flows\n", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "flows.sock")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			shown, sink := io.Pipe()
			var problems strings.Builder
			seen := make(chan struct{})
			go func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				for i, line := range told {
					io.WriteString(conn, line+"\n")
					if i == 0 && tt.follows {
						<-seen // before there is more
					}
				}
			}()
			ended := make(chan int)
			go func() {
				status := run(context.Background(), append([]string{"weir", "flows", "observe", "--socket", socket}, strings.Fields(tt.args)...), streams{nil, sink, &problems})
				sink.Close()
				ended <- status
			}()
			lines := bufio.NewReader(shown)
			first := ""
			if tt.follows {
				if first, err = lines.ReadString('\n'); err != nil {
					t.Fatal(err)
				}
				close(seen)
			}
			rest, err := io.ReadAll(lines)
			if err != nil {
				t.Fatal(err)
			}
			status := <-ended
			if diff := cmp.Diff(tt.out, first+string(rest)); diff != "" || status != tt.status || problems.String() != tt.err {
				t.Errorf("status %d, problems %q (-want +got)\n%s", status, problems.String(), diff)
			}
		})
	}
}
