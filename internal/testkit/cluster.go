package testkit

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Cluster is an API server on loopback that knows discovery and lists, and
// remembers what it was asked. It serves the kinds of its objects, and secrets.
type Cluster struct {
	Kubeconfig string          // the file that leads to it
	Refuse     map[string]int  // paths it answers with a status instead
	Expire     map[string]bool // lists whose second page it once knows no more

	lists map[string][]map[string]any // by path
	kinds map[string]apiResource      // by path
	mutex sync.Mutex
	asked []string
}

type apiResource struct {
	Name       string   `json:"name"`
	Kind       string   `json:"kind"`
	Namespaced bool     `json:"namespaced"`
	Verbs      []string `json:"verbs"`
}

// NewCluster starts a server of objects, each as encoding/json decodes it.
func NewCluster(t testing.TB, objects ...map[string]any) *Cluster {
	t.Helper()
	c := &Cluster{Refuse: map[string]int{}, Expire: map[string]bool{}, lists: map[string][]map[string]any{}, kinds: map[string]apiResource{}}
	secret := map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"namespace": "default", "name": "token"}}
	for _, o := range append(objects, secret) {
		version, _ := o["apiVersion"].(string)
		kind, _ := o["kind"].(string)
		meta, _ := o["metadata"].(map[string]any)
		_, namespaced := meta["namespace"]
		prefix := "/apis/"
		if !strings.Contains(version, "/") {
			prefix = "/api/"
		}
		name := strings.ToLower(kind) + "s"
		if stem, ok := strings.CutSuffix(name, "ys"); ok {
			name = stem + "ies"
		}
		path := prefix + version + "/" + name
		c.lists[path] = append(c.lists[path], o)
		c.kinds[path] = apiResource{name, kind, namespaced || c.kinds[path].Namespaced, []string{"get", "list", "watch"}}
	}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	c.Kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: test}}]
clusters: [{name: test, cluster: {server: %q}}]
users: [{name: test, user: {token: anything}}]
`, server.URL)
	if err := os.WriteFile(c.Kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// Asked returns the requests so far, sorted.
func (c *Cluster) Asked() []string {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return slices.Sorted(slices.Values(c.asked))
}

func (c *Cluster) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.asked = append(c.asked, q.Method+" "+q.URL.RequestURI())
	status, answer := c.answer(q.URL.Path, q.URL.Query().Get("limit"), q.URL.Query().Get("continue"))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if status != http.StatusOK {
		reason := map[int]string{401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 410: "Expired", 503: "ServiceUnavailable"}[status]
		answer = map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": status, "message": reason}
	}
	_ = json.NewEncoder(w).Encode(answer) // a client that went away
}

func (c *Cluster) answer(path, limit, from string) (int, map[string]any) {
	if status := c.Refuse[path]; status != 0 {
		return status, nil
	}
	if path == "/apis" {
		return http.StatusOK, map[string]any{"kind": "APIGroupList", "groups": c.groups()}
	}
	list, has := c.lists[path]
	if !has {
		var resources []apiResource
		for _, name := range sortedKeys(c.kinds) {
			if parent := name[:strings.LastIndex(name, "/")]; parent == path {
				resources = append(resources, c.kinds[name])
			}
		}
		if resources == nil {
			return http.StatusNotFound, nil
		}
		return http.StatusOK, map[string]any{"kind": "APIResourceList", "resources": resources}
	}
	start, _ := strconv.Atoi(from)
	if start > 0 && c.Expire[path] {
		delete(c.Expire, path)
		return http.StatusGone, nil
	}
	end, meta := len(list), map[string]any{}
	if size, _ := strconv.Atoi(limit); size > 0 && start+size < len(list) {
		end = start + size
		meta["continue"] = strconv.Itoa(end)
	}
	return http.StatusOK, map[string]any{"kind": "List", "metadata": meta, "items": list[start:end]}
}

func (c *Cluster) groups() []map[string]any {
	var groups []map[string]any
	for _, path := range sortedKeys(c.kinds) {
		parts := strings.Split(path, "/")
		if parts[1] != "apis" {
			continue
		}
		version := map[string]any{"version": parts[3]}
		if n := len(groups); n > 0 && groups[n-1]["name"] == parts[2] {
			versions := groups[n-1]["versions"].([]map[string]any)
			if versions[len(versions)-1]["version"] != parts[3] {
				groups[n-1]["versions"] = append(versions, version)
			}
			continue
		}
		groups = append(groups, map[string]any{"name": parts[2], "versions": []map[string]any{version}})
	}
	return groups
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
