//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/weir-policy/weir/internal/testkit"
)

// kubelet answers what an API server asks of a node when somebody runs a command in a
// container there: the container's program is this one. Down, it refuses.
type kubelet struct {
	t    *testing.T
	down bool
}

// newKubelet makes a node, with an agent's pod on it, and a kubelet for them.
func newKubelet(t *testing.T, config *rest.Config, node string) *kubelet {
	t.Helper()
	k := &kubelet{t: t}
	server := httptest.NewTLSServer(k)
	t.Cleanup(server.Close)
	_, text, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	nodes, pods := client.CoreV1().Nodes(), client.CoreV1().Pods("default")
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}
	if n, err = nodes.Create(t.Context(), n, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}
	n.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(port)
	if _, err := nodes.UpdateStatus(t.Context(), n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "weir-agent-" + node, Labels: map[string]string{"app.kubernetes.io/part-of": "weir", "app.kubernetes.io/component": "agent"}}}
	p.Spec.NodeName, p.Spec.Containers = node, []corev1.Container{{Name: "agent", Image: "weir-agent"}}
	testkit.Eventually(t, func() error { // once there is a service account
		p, err := pods.Create(t.Context(), p, metav1.CreateOptions{})
		if err == nil {
			p.Status.Phase = corev1.PodRunning
			_, err = pods.UpdateStatus(t.Context(), p, metav1.UpdateOptions{})
		}
		return err
	})
	return k
}

// ServeHTTP runs a command, as it is asked to by SPDY, version 4 of the protocol.
func (k *kubelet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if k.down {
		http.Error(w, "the runtime is down", http.StatusServiceUnavailable)
		return
	}
	if want := "/exec/default/weir-agent-"; !strings.HasPrefix(r.URL.Path, want) || !strings.HasSuffix(r.URL.Path, "/agent") {
		k.t.Errorf("%s was asked for", r.URL)
	}
	command := r.URL.Query()["command"]
	if _, err := httpstream.Handshake(r, w, []string{"v4.channel.k8s.io"}); err != nil {
		k.t.Error(err)
		return
	}
	streams := make(chan httpstream.Stream, 3)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, replied <-chan struct{}) error {
		go func() {
			<-replied
			streams <- s
		}()
		return nil
	})
	if conn == nil {
		return
	}
	defer conn.Close()
	by := map[string]httpstream.Stream{}
	for len(by) < 3 {
		select {
		case s := <-streams:
			by[s.Headers().Get("streamType")] = s
		case <-time.After(10 * time.Second):
			k.t.Error("not all streams were opened")
			return
		}
	}
	if err := json.NewEncoder(by["error"]).Encode(k.run(command, by["stdout"], by["stderr"])); err != nil {
		k.t.Error(err)
	}
	for _, s := range by {
		_ = s.Close()
	}
}

// run runs the program in this process, and says how it ended, as a kubelet does.
func (k *kubelet) run(command []string, stdout, stderr httpstream.Stream) metav1.Status {
	if !slices.Equal(command[:1], []string{"/weir-agent"}) {
		k.t.Errorf("%q was run", command)
	}
	var told bytes.Buffer
	root := newRoot(stdout, &told)
	root.SetArgs(command[1:])
	err := root.Execute()
	if err == nil {
		return metav1.Status{Status: metav1.StatusSuccess}
	}
	if _, errWrite := fmt.Fprintf(stderr, "weir-agent: %s%s\n", told.String(), err); errWrite != nil {
		err = errors.Join(err, errWrite)
	}
	return metav1.Status{
		Status: metav1.StatusFailure, Reason: "NonZeroExitCode", Message: "command terminated with non-zero exit code: " + err.Error(),
		Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: "ExitCode", Message: "2"}}},
	}
}
