package cluster

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"github.com/weir-policy/weir/policies/k8s"
)

func decode(text []byte, into any) error { return kjson.UnmarshalCaseSensitivePreserveInts(text, into) }

// resource is a kind as the server lists it.
type resource struct {
	group, version, name, kind string
	rank                       int // of the version among those that the group prefers
}

func (r resource) apiVersion() string {
	if r.group == "" {
		return r.version
	}
	return r.group + "/" + r.version
}

func (r resource) path() string {
	if r.group == "" {
		return "/api/" + r.version + "/" + r.name
	}
	return "/apis/" + r.apiVersion() + "/" + r.name
}

// String prints "pods" or "networkpolicies.networking.k8s.io".
func (r resource) String() string {
	if r.group == "" {
		return r.name
	}
	return r.name + "." + r.group
}

// discover returns the kinds to read, each in one version, and says what could
// not be found out.
func (r *reader) discover(ctx context.Context) ([]resource, []string, error) {
	var groups metav1.APIGroupList
	if err := r.get(ctx, "/apis", nil, &groups); err != nil {
		return nil, nil, err
	}
	versions := []resource{{version: "v1"}}
	for _, g := range groups.Groups {
		for rank, v := range g.Versions {
			versions = append(versions, resource{group: g.Name, version: v.Version, rank: rank})
		}
	}
	served, errs := make([][]resource, len(versions)), make([]error, len(versions))
	var waiting sync.WaitGroup
	turns := make(chan struct{}, 8) // requests at a time
	for i, v := range versions {
		waiting.Go(func() {
			turns <- struct{}{}
			served[i], errs[i] = r.served(ctx, v)
			<-turns
		})
	}
	waiting.Wait()

	var missing []string
	for i, err := range errs {
		group := versions[i].group
		switch {
		case err == nil, apierrors.IsNotFound(err):
		case apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err):
			// Metrics are often away; nobody's policies are among them.
			if !strings.HasSuffix(group, "metrics.k8s.io") {
				missing = append(missing, fmt.Sprintf("group %s/%s cannot be served at the moment", group, versions[i].version))
			}
		default:
			return nil, nil, err
		}
	}
	return choose(slices.Concat(served...)), missing, nil
}

// served returns the kinds of a version that have a bearing on network policy.
func (r *reader) served(ctx context.Context, in resource) ([]resource, error) {
	var list metav1.APIResourceList
	path := strings.TrimSuffix(in.path(), "/")
	if err := r.get(ctx, path, nil, &list); err != nil {
		return nil, err
	}
	var all []resource
	for _, s := range list.APIResources {
		found := resource{in.group, in.version, s.Name, s.Kind, in.rank}
		if !strings.Contains(s.Name, "/") && slices.Contains(s.Verbs, "list") && k8s.Heeds(found.apiVersion(), s.Kind, s.Namespaced) {
			all = append(all, found)
		}
	}
	return all, nil
}

// calicoStore is the group in which Calico keeps what it serves in the other.
const calicoGroup, calicoStore = "projectcalico.org", "crd.projectcalico.org"

// choose returns each kind in one version: one that Weir understands, or else
// the one that its group prefers.
func choose(served []resource) []resource {
	type kind struct{ group, name string }
	best := map[kind]resource{}
	understood := func(r resource) bool { return k8s.Understands(r.apiVersion(), r.kind) }
	for _, r := range served {
		id := kind{r.group, r.kind}
		known, has := best[id]
		if !has || !understood(known) && (understood(r) || r.rank < known.rank) {
			best[id] = r
		}
	}
	var chosen []resource
	for id, r := range best {
		if _, served := best[kind{calicoGroup, id.name}]; id.group == calicoStore && served {
			continue
		}
		chosen = append(chosen, r)
	}
	slices.SortFunc(chosen, func(a, b resource) int {
		return cmp.Or(strings.Compare(a.group, b.group), strings.Compare(a.name, b.name))
	})
	return chosen
}
