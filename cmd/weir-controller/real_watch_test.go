package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/weir-policy/weir/internal/testkit"
)

// grant lets the replicas do anything in some groups of the API.
func (c *cluster) grant(name string, groups ...string) {
	c.Helper()
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{{APIGroups: groups, Resources: []string{"*"}, Verbs: []string{"*"}}}}
	if _, err := c.clients.RbacV1().ClusterRoles().Create(c.Context(), role, metav1.CreateOptions{}); err != nil {
		c.Fatal(err)
	}
	c.bind(name)
}

func (c *cluster) bind(name string) {
	c.Helper()
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "weir"}},
	}
	if _, err := c.clients.RbacV1().ClusterRoleBindings().Create(c.Context(), binding, metav1.CreateOptions{}); err != nil {
		c.Fatal(err)
	}
}

// unbind takes a right away, from watches that are under way, too.
func (c *cluster) unbind(name string) {
	c.Helper()
	if err := c.clients.RbacV1().ClusterRoleBindings().Delete(c.Context(), name, metav1.DeleteOptions{}); err != nil {
		c.Fatal(err)
	}
	// Watches are asked about when they begin; the server takes a moment to know.
	testkit.Eventually(c, func() error {
		if out, err := c.try("", "--as=weir", "auth", "can-i", "watch", map[string]string{"policies": "networkpolicies", "invariants": "invariants"}[name]); err == nil {
			return fmt.Errorf("it still may: %s", out)
		}
		return nil
	})
	c.cut()
}

// What can no longer be watched is not taken to be as it was: nothing is found to hold
// by it, nobody is told that a change is fine, and what was admitted meanwhile counts.
func TestRealLostWatches(t *testing.T) {
	c := newPlane(t)
	user, err := c.AddUser(envtest.User{Name: "weir"}, c.config)
	if err != nil {
		t.Fatal(err)
	}
	dial := c.config.Dial
	c.config = user.Config()
	c.config.Dial = dial
	c.grant("most", "", "apps", "batch", "coordination.k8s.io", "admissionregistration.k8s.io", "events.k8s.io", "discovery.k8s.io", "policy.networking.k8s.io")
	c.grant("policies", "networking.k8s.io")
	c.grant("invariants", "weir.dev")
	m := c.start(func(o *options) { o.tolerance, o.pending = 500*time.Millisecond, 2*time.Second })
	c.register()
	c.apply(shop)
	c.isSure()
	c.apply(closed)
	says := func(what string) {
		t.Helper()
		testkit.Eventually(c, func() error {
			got, err := c.try("", "get", "invariant", "payments-db", "-o", `jsonpath={.status.state} {.status.conditions[?(@.type=="Ready")].reason}`)
			if got != what {
				return fmt.Errorf("the status says %q, want %q: %w", got, what, err)
			}
			return nil
		})
	}
	watches := func() error { return ready("http://" + m.health + "/readyz/watches") }
	says("holds InvariantHolds")

	// The first half is admitted before anybody knows that the watch is lost, the second
	// long after the first could have been stored.
	c.unbind("policies")
	c.apply(openWeb)
	admitted := time.Now()
	says("unknown WorldUnseen")
	if err := watches(); err == nil {
		t.Error("/readyz does not know that policies cannot be watched")
	}
	if metric := `weir_invariants{state="unknown"} 1`; !strings.Contains(m.scrape(), metric) {
		t.Errorf("there is no metric %s", metric)
	}
	// Other changes are let through with a warning, and the second half is still refused
	// when the first could not be stored any more.
	testkit.Eventually(c, func() error {
		out, err := c.try(strings.ReplaceAll(openWeb, "name: open", "name: probe"), "create", "--dry-run=server", "-f", "-")
		if time.Since(admitted) < 4*time.Second || err != nil || !strings.Contains(out, "Warning: checked by the world as it was seen last: networkpolicies.networking.k8s.io cannot be watched") {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	out, err := c.try(openDB, "apply", "-f", "-")
	if err == nil || !strings.Contains(out, "breaks invariant payments-db") {
		t.Errorf("%v: %s", err, out)
	}

	// It recovers by itself.
	c.bind("policies")
	says("holds InvariantHolds")
	testkit.Eventually(c, watches)
	if out, err := c.try(openDB, "apply", "-f", "-"); err == nil || strings.Contains(out, "Warning") {
		t.Errorf("%v: %s", err, out)
	}

	// The same goes for Invariants.
	c.unbind("invariants")
	testkit.Eventually(c, func() error {
		if err := watches(); err == nil {
			return fmt.Errorf("/readyz does not know that Invariants cannot be watched")
		}
		return nil
	})
	c.bind("invariants")
	testkit.Eventually(c, watches)
}

// A replica that starts before its kinds are defined waits for them.
func TestRealKindsThatComeLater(t *testing.T) {
	c := newBarePlane(t, &envtest.Environment{})
	defined := make(chan error, 1)
	time.AfterFunc(3*time.Second, func() {
		_, err := c.try("", "apply", "-f", definitions)
		defined <- err
	})
	c.start()
	if err := <-defined; err != nil {
		t.Error(err)
	}
}
