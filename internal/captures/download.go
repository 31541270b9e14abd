package captures

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"

	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/weir-policy/weir/policies/v1alpha1"
)

// agents are the labels of their pods, as the chart has them, and container is what they
// run in there.
const (
	agents    = "app.kubernetes.io/part-of=weir,app.kubernetes.io/component=agent"
	container = "agent"
)

// Download has the agent of each node that has files send them, as kubectl exec would:
// who asks must be allowed to create pods/exec where the agents are. A node that cannot
// be asked is an error, after those that can.
func (c *Cluster) Download(ctx context.Context, namespace, name, to string) (v1alpha1.PacketCapture, error) {
	p, err := find(ctx, c, namespace, name)
	if err != nil {
		return p, err
	}
	var problems []error
	for i := range p.Status.Files {
		on := &p.Status.Files[i]
		if len(on.FileNames) == 0 {
			continue
		}
		dir := filepath.Dir(filepath.Dir(on.Directory))
		on.Directory = filepath.Join(to, namespace, name, on.Node)
		on.FileNames, err = receive(on.Directory, func(w io.Writer) error {
			return c.send(ctx, w, on.Node, "--capture-dir="+dir, namespace, name)
		})
		if err != nil {
			problems = append(problems, fmt.Errorf("node %s: %w", on.Node, err))
		}
	}
	return p, errors.Join(problems...)
}

// send has the agent of a node write its files of a capture.
func (c *Cluster) send(ctx context.Context, w io.Writer, node string, args ...string) error {
	var pods struct {
		Items []struct {
			Metadata v1alpha1.Metadata `json:"metadata"`
			Status   struct {
				Phase string `json:"phase"`
			} `json:"status"`
		} `json:"items"`
	}
	r := c.client.Get().AbsPath("api", "v1", "pods").Param("labelSelector", agents).Param("fieldSelector", "spec.nodeName="+node)
	if err := answer(ctx, r, &pods); err != nil {
		return err
	}
	for _, pod := range pods.Items {
		if pod.Status.Phase == "Running" {
			return c.exec(ctx, w, pod.Metadata, append([]string{"/weir-agent", "captures"}, args...))
		}
	}
	return fmt.Errorf("no agent runs there, no pod with the labels %s; its files wait", agents)
}

// exec runs a command in an agent, and writes what it prints.
func (c *Cluster) exec(ctx context.Context, w io.Writer, pod v1alpha1.Metadata, command []string) error {
	r := c.client.Post().AbsPath("api", "v1", "namespaces", pod.Namespace, "pods", pod.Name, "exec").
		Param("container", container).Param("stdout", "true").Param("stderr", "true")
	for _, arg := range command {
		r.Param("command", arg)
	}
	// As kubectl does it: the older way where the newer one is refused.
	newer, err := remotecommand.NewWebSocketExecutor(c.config, http.MethodGet, r.URL().String())
	if err != nil {
		return err
	}
	older, err := remotecommand.NewSPDYExecutor(c.config, http.MethodPost, r.URL())
	if err != nil {
		return err
	}
	both, err := remotecommand.NewFallbackExecutor(newer, older, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return err
	}
	var told bytes.Buffer
	err = both.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: w, Stderr: &told})
	if text := strings.TrimSpace(told.String()); err != nil && text != "" {
		return fmt.Errorf("%s: %w", text, err)
	}
	if err != nil {
		return fmt.Errorf("pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}
