package worlds_test

import (
	"net/netip"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
)

var small = map[string]worlds.Shape{
	"pods, closed":                 {Namespaces: 5, Workloads: 20, Pods: 60, Policies: 100, Closed: true},
	"templates, open":              {Namespaces: 5, Workloads: 20, Policies: 100},
	"more workloads than pods":     {Namespaces: 2, Workloads: 9, Pods: 5, Policies: 20, Closed: true},
	"fewer policies than workload": {Namespaces: 4, Workloads: 8, Policies: 3},
	"no policies":                  worlds.Sized(100, false),
	"policies everywhere":          worlds.Sized(100, true),
}

var asValues = cmp.Options{
	cmp.Comparer(netset.Ports.Equal),
	cmp.Comparer(func(a, b selector.Selector) bool { return a.String() == b.String() }),
	cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}),
	cmpopts.EquateEmpty(),
	cmpopts.IgnoreTypes(policies.Place{}),
}

func TestFilesHoldTheModel(t *testing.T) {
	for name, shape := range small {
		t.Run(name, func(t *testing.T) {
			model := shape.Model(1)
			read, err := k8s.Read(parse(t, worlds.Files(model)), k8s.Options{PodCIDRs: model.PodCIDRs})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(model, read, asValues); diff != "" {
				t.Errorf("what is read is not what was written (-written +read)\n%s", diff)
			}
		})
	}
}

func TestSameSeedSameModel(t *testing.T) {
	shape := worlds.Sized(1_000, true)
	if diff := cmp.Diff(shape.Model(7), shape.Model(7), asValues); diff != "" {
		t.Error(diff)
	}
	if cmp.Equal(shape.Model(7), shape.Model(8), asValues) {
		t.Error("two seeds made the same model")
	}
}

func TestShapesHoldWhatTheySay(t *testing.T) {
	for name, s := range map[string]worlds.Shape{"5k": worlds.Cluster5k, "repository": worlds.OpenRepository, "policies": worlds.PolicyRepository} {
		m := s.Model(1)
		workloads := map[policies.Ref]bool{}
		for _, p := range m.Pods {
			workloads[p.Workload] = true
		}
		// Beside what the shape asks for there is the cluster's DNS.
		if got := (worlds.Shape{Namespaces: len(m.Namespaces) - 1, Workloads: len(workloads) - 1, Policies: len(m.Policies), Closed: s.Closed, Pods: s.Pods}); got != s {
			t.Errorf("%s: got %+v, want %+v", name, got, s)
		}
		if s.Pods > 0 && len(m.Pods) != s.Pods+1 {
			t.Errorf("%s: got %d pods, want %d", name, len(m.Pods), s.Pods+1)
		}
	}
}

func parse(t testing.TB, files fstest.MapFS) []k8s.Document {
	t.Helper()
	var all []k8s.Document
	for name, file := range files {
		docs, err := k8s.Parse(name, file.Data)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, docs...)
	}
	return all
}
