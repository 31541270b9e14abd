package cluster

import (
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

// path returns where the server has the objects of a kind, or where it tells of a
// version whose resource has no name.
func path(s k8s.Served) string {
	if s.Group == "" {
		return "/api/" + s.Version + "/" + s.Name
	}
	return "/apis/" + s.APIVersion() + "/" + s.Name
}

// discover returns the kinds to read, each in one version, and says what could
// not be found out.
func (r *reader) discover(ctx context.Context) ([]k8s.Served, []string, error) {
	var groups metav1.APIGroupList
	if err := r.get(ctx, "/apis", nil, &groups); err != nil {
		return nil, nil, err
	}
	versions := []k8s.Served{{Version: "v1"}}
	for _, g := range groups.Groups {
		for rank, v := range g.Versions {
			versions = append(versions, k8s.Served{Group: g.Name, Version: v.Version, Rank: rank})
		}
	}
	served, errs := make([][]k8s.Served, len(versions)), make([]error, len(versions))
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
		group := versions[i].Group
		switch {
		case err == nil, apierrors.IsNotFound(err):
		case apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err):
			// Metrics are often away; nobody's policies are among them.
			if !strings.HasSuffix(group, "metrics.k8s.io") {
				missing = append(missing, fmt.Sprintf("group %s/%s cannot be served at the moment", group, versions[i].Version))
			}
		default:
			return nil, nil, err
		}
	}
	return k8s.Choose(slices.Concat(served...)), missing, nil
}

// served returns the kinds of a version that can be listed.
func (r *reader) served(ctx context.Context, in k8s.Served) ([]k8s.Served, error) {
	var list metav1.APIResourceList
	if err := r.get(ctx, strings.TrimSuffix(path(in), "/"), nil, &list); err != nil {
		return nil, err
	}
	var all []k8s.Served
	for _, s := range list.APIResources {
		if !strings.Contains(s.Name, "/") && slices.Contains(s.Verbs, "list") {
			all = append(all, k8s.Served{Group: in.Group, Version: in.Version, Name: s.Name, Kind: s.Kind, Namespaced: s.Namespaced, Rank: in.Rank})
		}
	}
	return all, nil
}
