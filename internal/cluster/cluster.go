// Package cluster reads the world of a live cluster through its API server. It
// only ever reads: every request is a GET of what is served, or of a list.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	_ "k8s.io/client-go/plugin/pkg/client/auth/oidc" // kubeconfigs may still name it
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/weir-policy/weir/internal/snapshot"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
)

// Options say which cluster is read and how.
type Options struct {
	// Kubeconfig is a file; "" is what KUBECONFIG names, the file in the home
	// folder, or the cluster that the program runs in.
	Kubeconfig string
	Context    string // of the kubeconfig; "" is its current one
	// AllowMissing makes do without the kinds that may not be read, or that the
	// server cannot serve at the moment.
	AllowMissing bool
	// Progress, unless nil, is told how many objects of a kind were read so far.
	Progress func(resource string, objects int)
	// UserAgent is what the server's log calls this program.
	UserAgent string
}

// World is what a cluster holds.
type World struct {
	Objects []snapshot.Object // trimmed, in the order in which they are written
	Missing []string          // what Options.AllowMissing let pass, a sentence each
}

// Read reads every kind that has a bearing on network policy, each as it was at
// one moment. Kinds that the cluster does not serve are passed over; all that may
// not be read are reported at once, with the rules that a role lacks.
func Read(ctx context.Context, o Options) (*World, error) {
	config, err := Config(o)
	if err != nil {
		return nil, err
	}
	r, err := newReader(config, o)
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	w, err := r.world(ctx)
	if err != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("cluster %s: %w", config.Host, explain(err))
	}
	return w, err
}

// Config finds the server and how to sign in to it, as kubectl does.
func Config(o Options) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.Kubeconfig
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: o.Context})
	config, err := loader.ClientConfig()
	if err == nil {
		return config, nil
	}
	raw, errRaw := loader.RawConfig()
	switch {
	case errRaw != nil:
		return nil, fmt.Errorf("kubeconfig: %w", errRaw)
	case o.Context != "" && raw.Contexts[o.Context] == nil:
		return nil, fmt.Errorf("kubeconfig: there is no context %q%s", o.Context, policies.Near(o.Context, contexts(raw)))
	case clientcmd.IsEmptyConfig(err) && len(raw.Contexts) > 0:
		return nil, fmt.Errorf("kubeconfig: there is no current context; name one with --context%s", policies.Near("", contexts(raw)))
	case clientcmd.IsEmptyConfig(err):
		return nil, errors.New("there is no cluster to read: no kubeconfig is found; name one with --kubeconfig or in KUBECONFIG")
	}
	return nil, fmt.Errorf("kubeconfig: %w", err)
}

func contexts(config clientcmdapi.Config) []string {
	var names []string
	for name := range config.Contexts {
		names = append(names, name)
	}
	return names
}

// explain says what to do about an error that concerns every request.
func explain(err error) error {
	var dial *net.OpError
	var address *url.Error
	switch {
	case apierrors.IsUnauthorized(err):
		return errors.New("the server does not accept the credentials; sign in again, or choose others with --context")
	case errors.As(err, &dial) && errors.As(err, &address):
		return fmt.Errorf("the server cannot be reached: %w; is the address right, and is there a way to it from here?", dial)
	}
	return err
}

// reader reads one cluster.
type reader struct {
	Options
	client *rest.RESTClient
	page   int // objects asked for at a time
}

const pageSize = 500

func newReader(config *rest.Config, o Options) (*reader, error) {
	config = rest.CopyConfig(config)
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.AcceptContentTypes, config.ContentType = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	config.GroupVersion, config.APIPath = &schema.GroupVersion{}, "/"
	config.QPS, config.Burst = 100, 200
	config.Timeout = 2 * time.Minute // for a page; a server that is slower is in trouble
	config.WarningHandler = rest.NoWarnings{}
	if o.UserAgent != "" {
		config.UserAgent = o.UserAgent
	}
	root, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, err
	}
	prefix := strings.TrimSuffix(root.Path, "/")
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return readOnly{next, prefix} })
	client, err := rest.UnversionedRESTClientFor(config)
	if err != nil {
		return nil, err
	}
	return &reader{o, client, pageSize}, nil
}

// readOnly lets requests through that read what is served, and lists of all
// namespaces; none for secrets and the like.
type readOnly struct {
	next   http.RoundTripper
	prefix string // of the server's paths
}

func (r readOnly) RoundTrip(q *http.Request) (*http.Response, error) {
	path, ours := strings.CutPrefix(q.URL.Path, r.prefix)
	if q.Method != http.MethodGet || !ours || !readable(path) {
		return nil, fmt.Errorf("weir only lists what policies look at, so it does not send %s %s", q.Method, q.URL.Path)
	}
	return r.next.RoundTrip(q)
}

func (r readOnly) WrappedRoundTripper() http.RoundTripper { return r.next }

// readable reports whether a path is of the discovery, or of a list.
func readable(path string) bool {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch parts[0] {
	case "api":
		parts = parts[1:]
	case "apis":
		parts = parts[min(2, len(parts)):]
	default:
		return false
	}
	// What is left is a version and a resource, or less.
	return len(parts) < 2 || len(parts) == 2 && !slices.Contains([]string{"secrets", "configmaps"}, parts[1])
}

// get decodes what is at a path.
func (r *reader) get(ctx context.Context, path string, query url.Values, into any) error {
	request := r.client.Get().AbsPath(path)
	for name, values := range query {
		request.Param(name, values[0])
	}
	result := request.Do(ctx)
	if err := result.Error(); err != nil {
		return err
	}
	answer, err := result.Raw()
	if err != nil {
		return err
	}
	if err := decode(answer, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func (r *reader) world(ctx context.Context) (*World, error) {
	resources, missing, err := r.discover(ctx)
	if err != nil {
		return nil, err
	}
	w := &World{}
	var forbidden []k8s.Served
	for _, res := range resources {
		objects, err := r.list(ctx, res)
		switch {
		case apierrors.IsForbidden(err):
			forbidden = append(forbidden, res)
		case apierrors.IsNotFound(err), apierrors.IsMethodNotSupported(err):
			// Its definition went away, or it cannot be listed.
		case apierrors.IsServiceUnavailable(err):
			missing = append(missing, fmt.Sprintf("%s cannot be served at the moment", res))
		case err != nil:
			return nil, fmt.Errorf("list %s: %w", res, err)
		}
		w.Objects = append(w.Objects, objects...)
	}
	for _, res := range forbidden {
		missing = append(missing, fmt.Sprintf("%s may not be listed", res))
	}
	if len(missing) > 0 && !r.AllowMissing {
		return nil, incomplete(missing, forbidden)
	}
	w.Missing = missing
	snapshot.Sort(w.Objects)
	return w, nil
}

// incomplete says what is missing and, of what is forbidden, the rules that the
// ClusterRole of the reader lacks.
func incomplete(missing []string, forbidden []k8s.Served) error {
	text := "not everything that policies look at can be read, and without it answers would be wrong:\n  " + strings.Join(missing, "\n  ")
	var groups []string
	lacks := map[string][]string{}
	for _, res := range forbidden {
		if lacks[res.Group] == nil {
			groups = append(groups, res.Group)
		}
		lacks[res.Group] = append(lacks[res.Group], fmt.Sprintf("%q", res.Name))
	}
	if len(groups) > 0 {
		text += "\nbind the user to a ClusterRole with"
	}
	for _, group := range groups {
		text += fmt.Sprintf("\n  - {apiGroups: [%q], resources: [%s], verbs: [\"list\"]}", group, strings.Join(lacks[group], ", "))
	}
	return errors.New(text + "\nor take a snapshot without it: weir snapshot --allow-missing")
}

// expired reports whether a list must be started over, for the server has
// forgotten the moment that its earlier pages are of.
func expired(err error) bool { return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) }

// attempts is how often a list is started over; the last time it is asked for as
// a whole.
const attempts = 3

func (r *reader) list(ctx context.Context, res k8s.Served) ([]snapshot.Object, error) {
	objects, err := r.pages(ctx, res, r.page)
	for attempt := 1; expired(err) && attempt <= attempts; attempt++ {
		page := r.page
		if attempt == attempts {
			page = 0
		}
		objects, err = r.pages(ctx, res, page)
	}
	return objects, err
}

// pages reads a list in pages of so many objects; 0 is all at once.
func (r *reader) pages(ctx context.Context, res k8s.Served, size int) ([]snapshot.Object, error) {
	var objects []snapshot.Object
	query := url.Values{}
	if size > 0 {
		query.Set("limit", fmt.Sprint(size))
	}
	for {
		var page struct {
			Metadata struct {
				Continue string `json:"continue"`
			} `json:"metadata"`
			Items []map[string]any `json:"items"`
		}
		if err := r.get(ctx, path(res), query, &page); err != nil {
			return nil, err
		}
		for _, item := range page.Items {
			item["apiVersion"], item["kind"] = res.APIVersion(), res.Kind
			objects = append(objects, snapshot.Trim(item))
		}
		if r.Progress != nil {
			r.Progress(res.String(), len(objects))
		}
		if page.Metadata.Continue == "" {
			return objects, nil
		}
		query.Set("continue", page.Metadata.Continue)
	}
}
