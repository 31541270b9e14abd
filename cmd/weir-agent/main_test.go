package main

import (
	"strings"
	"testing"

	"github.com/weir-policy/weir/internal/testkit"
)

func TestHelp(t *testing.T) {
	var out strings.Builder
	root := newRoot(&out, &out)
	root.SetArgs([]string{"--help"})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	testkit.Golden(t, "testdata/help.txt", []byte(out.String()))
}

// All that is wrong is told at once.
func TestFlags(t *testing.T) {
	tests := []struct {
		name string
		args string
		node string // what NODE_NAME says
		want string // the problems
	}{
		{"a folder", "--world x", "", ""},
		{"a cluster", "", "n1", ""},
		{"a cluster without a node", "", "", "--node is not set, nor is NODE_NAME: which pods of the cluster run here is not known"},
		{"ranges of pods", "--world x --unknown-pods deny --pod-cidr 10.0.0.0/24,fd00::/64", "", ""},
		{"no ranges", "--world x --unknown-pods deny", "", "--unknown-pods deny needs --pod-cidr, or --node with a Node that has a podCIDR"},
		{"a server", "--world x --flows y --send https://flows:4319 --send-token-file token --send-cert crt --send-key key", "", ""},
		{
			"a server that is none", "--world x --send flows:4319 --send-cert crt", "",
			"--send \"flows:4319\" is no URL, as in https://weir-flows.weir.svc:4319\n--send wants --flows, where records wait while they cannot be sent\n--send-cert and --send-key want each other",
		},
		{"a token for all to read", "--world x --flows y --send http://flows --send-token-file token", "", "--send-token-file wants --send https://…: on the way a token could be read"},
		{"how, and not where to", "--world x --send-ca ca", "", "--send-… say how to send, and --send, which says where to, is not set"},
		{
			"much", "--world x --mode look --log-level loud --health-addr here --flows-level 9", "",
			"--flows-level 9 is none of 0, 1, 2, 3\n--health-addr: address here: missing port in address\n--log-level \"loud\" is none of [debug info warn error]\n--mode \"look\" is none of [enforce observe]",
		},
	}
	for _, test := range tests {
		o := &options{}
		if err := newFlags(o).Parse(strings.Fields(test.args)); err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := o.complete(func(string) string { return test.node }); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}
