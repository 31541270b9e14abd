package snapshot_test

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	jsoniter "github.com/json-iterator/go"

	"github.com/weir-policy/weir/internal/snapshot"
)

func fromJSON(t testing.TB, text string, o any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), o); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}

func toJSON(t testing.TB, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func groupOf(o snapshot.Object) (group, kind string) {
	version, kind := o.Kind()
	group, _, grouped := strings.Cut(version, "/")
	if !grouped {
		group = ""
	}
	return group, kind
}

// What a Reader leaves out Trim leaves out as well.
func TestReadersReadWhatIsTrimmed(t *testing.T) {
	for name, world := range testWorlds(t) {
		for _, d := range parse(t, world) {
			objects, err := snapshot.Decode(d.Node)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range objects {
				var plain snapshot.Object // numbers as JSON has them
				text := toJSON(t, o)
				fromJSON(t, text, &plain)
				from := jsoniter.Parse(jsoniter.ConfigDefault, iotest.OneByteReader(strings.NewReader(text)), 16)
				got := snapshot.NewReader(groupOf(o)).Read(from)
				if from.Error != nil {
					t.Fatalf("%s: %v: %s", name, from.Error, text)
				}
				if want, has := toJSON(t, snapshot.Trim(plain)), toJSON(t, snapshot.Trim(got)); want != has {
					t.Errorf("%s: %s", name, cmp.Diff(want, has))
				}
			}
		}
	}
}

func TestReaders(t *testing.T) {
	for _, row := range []struct{ group, kind, text, want string }{
		{
			"", "Pod",
			`{"kind":"Pod","metadata":{"name":"a","uid":"1","resourceVersion":"7","managedFields":[{"fieldsV1":{"f:a":{}}}],"annotations":{"x":"\u00e9\n"},"deletionTimestamp":null},
			"spec":{"containers":[{"image":"a","env":[{"name":"b"}],"ports":[{"containerPort":80,"hostPort":1.5}]}],"hostNetwork":true}, "status":{"phase":"Running","conditions":[]}}`,
			`{"kind":"Pod","metadata":{"annotations":{"x":"é\n"},"deletionTimestamp":null,"name":"a","resourceVersion":"7","uid":"1"},"spec":{"containers":[{"ports":[{"containerPort":80}]}],"hostNetwork":true},"status":{"phase":"Running"}}`,
		},
		{
			"networking.k8s.io", "NetworkPolicy",
			`{"metadata":{"name":"a","labels":{"b":"c"}},"spec":{"anything":[1,2.5,true,{"of":[[]]}],"none":{}},"status":{"x":1}}`,
			`{"metadata":{"name":"a"},"spec":{"anything":[1,2.5,true,{"of":[[]]}],"none":{}}}`,
		},
		{"example.com", "NetworkPolicy", `{"metadata":{"name":"a"},"spec":{"a":1}}`, `{"metadata":{"name":"a"}}`},
		{"", "Pod", `{"kind":"Status","status":"Failure","message":"too old","reason":"Expired","code":410}`, `{"code":410,"kind":"Status","message":"too old","reason":"Expired","status":"Failure"}`},
	} {
		from := jsoniter.ParseString(jsoniter.ConfigDefault, row.text)
		if got := toJSON(t, snapshot.NewReader(row.group, row.kind).Read(from)); got != row.want {
			t.Errorf("%s of %q: %s, want %s, %v", row.kind, row.group, got, row.want, from.Error)
		}
	}
	for _, broken := range []string{`{"metadata":{"name":`, `{"spec":{"containers":[{]}}`, `{"metadata":{"name":1e999}}`, `[`} {
		from := jsoniter.ParseString(jsoniter.ConfigDefault, broken)
		if got := snapshot.NewReader("", "Pod").Read(from); from.Error == nil {
			t.Errorf("%s: %v", broken, got)
		}
	}
}
