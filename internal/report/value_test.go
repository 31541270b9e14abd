package report

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/expression"
	"github.com/weir-policy/weir/policies/netset"
)

func compiled(text string) *expression.Expression {
	x, err := expression.Compile(text)
	if err != nil {
		panic(err)
	}
	return x
}

func valuedPeer(text string, fields ...expression.Entry) *expression.Object {
	return &expression.Object{Type: "Peer", Text: text, Fields: fields}
}

// valued is a list of two connections.
func valued() expression.Value {
	web := valuedPeer("storefront/web",
		expression.Entry{Key: "namespace", Value: "storefront"}, expression.Entry{Key: "name", Value: "web"},
		expression.Entry{Key: "kind", Value: "Deployment"}, expression.Entry{Key: "cidr", Value: ""}, expression.Entry{Key: "except", Value: expression.List{}})
	outside := valuedPeer("10.0.0.0/8 except 10.1.0.0/16",
		expression.Entry{Key: "namespace", Value: ""}, expression.Entry{Key: "cidr", Value: "10.0.0.0/8"},
		expression.Entry{Key: "except", Value: expression.List{"10.1.0.0/16"}})
	connection := func(from, to *expression.Object, allow, unknown netset.Ports) *expression.Object {
		return &expression.Object{Type: "Connection", Text: from.Text + " -> " + to.Text, Fields: []expression.Entry{
			{Key: "from", Value: from}, {Key: "to", Value: to}, {Key: "allow", Value: allow}, {Key: "unknown", Value: unknown},
		}}
	}
	return expression.List{connection(web, outside, tcp(443), netset.Ports{}), connection(outside, web, netset.Ports{}, udp(53))}
}

func TestValues(t *testing.T) {
	tests := []struct {
		value           expression.Value
		text, csv, json string
	}{
		{true, "true\n", "value\r\ntrue\r\n", `true`},
		{nil, "\n", "value\r\n\r\n", `null`},
		{int64(-1), "-1\n", "value\r\n-1\r\n", `-1`},
		{1.5, "1.5\n", "value\r\n1.5\r\n", `1.5`},
		{math.Inf(1), "+Inf\n", "value\r\n+Inf\r\n", `"+Inf"`},
		{"a,\x1bb", "a, b\n", "value\r\n\"a,\x1bb\"\r\n", `"a,\u001bb"`},
		{[]byte("a"), "YQ==\n", "value\r\nYQ==\r\n", `"YQ=="`},
		{time.Minute, "1m0s\n", "value\r\n1m0s\r\n", `"1m0s"`},
		{time.Unix(0, 0), "1970-01-01T00:00:00Z\n", "value\r\n1970-01-01T00:00:00Z\r\n", `"1970-01-01T00:00:00Z"`},
		{policies.Unknown, "unknown\n", "value\r\nunknown\r\n", `"unknown"`},
		{tcp(80), "TCP/80\n", "value\r\nTCP/80\r\n", `[{"protocol":"TCP","ports":[[80,80]]}]`},
		{expression.List{"a", int64(1)}, "a\n1\n", "value\r\na\r\n1\r\n", "[\n    \"a\",\n    1\n  ]"},
		{
			expression.Map{{Key: "a", Value: expression.List{"x", "y"}}, {Key: "bc", Value: int64(1)}},
			"a   x, y\nbc  1\n", "key,value\r\na,\"x, y\"\r\nbc,1\r\n", `{"a":["x","y"],"bc":1}`,
		},
		{
			expression.List{expression.Map{{Key: "a", Value: "x"}}, expression.Map{{Key: "b", Value: expression.Map{{Key: "k", Value: "v"}}}}},
			"A  B\nx\n   k=v\n", "a,b\r\nx,\r\n,k=v\r\n", "[\n    {\"a\":\"x\"},\n    {\"b\":{\"k\":\"v\"}}\n  ]",
		},
		{
			valuedPeer("shop/web", expression.Entry{Key: "name", Value: "web"}, expression.Entry{Key: "cidr", Value: ""}),
			"name  web\n", "name,cidr\r\nweb,\r\n", `{"name":"web"}`,
		},
	}
	schema := testkit.Schema(t, "value")
	for _, test := range tests {
		written := map[Format]string{}
		for _, format := range Formats(KindValue) {
			var out bytes.Buffer
			if err := WriteValue(&out, format, compiled("1"), test.value, nil, Style{}); err != nil {
				t.Fatal(err)
			}
			written[format] = out.String()
		}
		if written[Text] != test.text || written[CSV] != test.csv {
			t.Errorf("%v\n got %q, %q\nwant %q, %q", test.value, written[Text], written[CSV], test.text, test.csv)
		}
		if !strings.Contains(written[JSON], `"value": `+test.json+",\n") {
			t.Errorf("%v\n got %s\nwant %s", test.value, written[JSON], test.json)
		}
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(written[JSON]))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(value); err != nil {
			t.Errorf("%v: %v", test.value, err)
		}
	}
}
