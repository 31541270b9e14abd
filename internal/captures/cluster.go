package captures

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/weir-policy/weir/internal/cluster"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// Cluster is an API server that knows PacketCaptures.
type Cluster struct {
	client *rest.RESTClient
	config *rest.Config // for requests that take as long as they take
}

// NewCluster returns the cluster that options name.
func NewCluster(o cluster.Options) (*Cluster, error) {
	config, err := cluster.Config(o)
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.AcceptContentTypes, config.ContentType = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	config.GroupVersion, config.APIPath = &schema.GroupVersion{}, "/"
	config.UserAgent = o.UserAgent
	streams := rest.CopyConfig(config)
	config.Timeout = time.Minute
	client, err := rest.UnversionedRESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	return &Cluster{client, streams}, nil
}

const resource = "packetcaptures"

func path(namespace string, name ...string) []string {
	all := []string{"apis", v1alpha1.Group, "v1alpha1"}
	if namespace != "" {
		all = append(all, "namespaces", namespace)
	}
	return append(append(all, resource), name...)
}

// answer decodes what the server says.
func answer(ctx context.Context, r *rest.Request, into any) error {
	result := r.Do(ctx)
	err := result.Error()
	switch {
	case apierrors.IsNotFound(err) && strings.Contains(err.Error(), "requested resource"):
		return fmt.Errorf("the cluster does not know PacketCaptures, whose definition the chart brings: %w", err)
	case err != nil:
		return fmt.Errorf("cluster: %w", err)
	case into == nil:
		return nil
	}
	text, err := result.Raw()
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	return json.Unmarshal(text, into)
}

// Create makes the object.
func (c *Cluster) Create(ctx context.Context, p v1alpha1.PacketCapture) (string, error) {
	body, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	r := c.client.Post().AbsPath(path(p.Metadata.Namespace)...).Body(body)
	return "the cluster", answer(ctx, r, nil)
}

// List returns the objects, with what the agents of the nodes say in their status.
func (c *Cluster) List(ctx context.Context, namespace string) ([]v1alpha1.PacketCapture, error) {
	var list struct {
		Items []v1alpha1.PacketCapture `json:"items"`
	}
	err := answer(ctx, c.client.Get().AbsPath(path(namespace)...), &list)
	return list.Items, err
}

// Stop sets the end of the object.
func (c *Cluster) Stop(ctx context.Context, namespace, name string, at time.Time) (p v1alpha1.PacketCapture, err error) {
	if err := answer(ctx, c.client.Get().AbsPath(path(namespace, name)...), &p); err != nil || !end(&p.Spec, at) {
		return p, err
	}
	spec := map[string]any{"endTime": p.Spec.EndTime}
	if p.Spec.StartTime == "" {
		spec["startTime"] = nil
	}
	body, err := json.Marshal(map[string]any{"spec": spec})
	if err != nil {
		return p, err
	}
	err = answer(ctx, c.client.Patch(types.MergePatchType).AbsPath(path(namespace, name)...).Body(body), &p)
	return p, err
}

// Delete deletes the object; the agents remove the packets.
func (c *Cluster) Delete(ctx context.Context, namespace, name string) error {
	return answer(ctx, c.client.Delete().AbsPath(path(namespace, name)...), nil)
}
