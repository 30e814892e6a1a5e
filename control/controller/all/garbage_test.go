package all_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
)

// config is a config map "name" in namespace, owned by the named ones there; a
// "+" before an owner's name makes the reference blocking.
func config(namespace, name string, owners ...string) *corev1.ConfigMap {
	c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	for _, owner := range owners {
		bare, blocks := strings.CutPrefix(owner, "+")
		c.OwnerReferences = append(c.OwnerReferences, metav1.OwnerReference{
			APIVersion: "v1", Kind: "ConfigMap", Name: bare, UID: types.UID("uid-" + bare), BlockOwnerDeletion: &blocks,
		})
	}
	return c
}

func (b *bench) expectConfigs(want ...string) {
	b.Helper()
	b.settle()
	all, _, err := client.ConfigMaps.List(b.Context(), b.server, "", metav1.ListOptions{})
	if err != nil {
		b.Fatal(err)
	}
	var got []string
	for _, c := range all {
		if c.Name == "kube-root-ca.crt" {
			continue
		}
		line := c.Name
		for _, o := range c.OwnerReferences {
			line += "<" + o.Name
		}
		if c.DeletionTimestamp != nil {
			line += " leaving"
		}
		got = append(got, line)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		b.Errorf("\n got %q\nwant %q", got, want)
	}
}

func (b *bench) remove(name string, policy metav1.DeletionPropagation) {
	b.Helper()
	if err := client.ConfigMaps.Delete(b.Context(), b.server, "a", name, metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
		b.Fatal(err)
	}
}

func TestCollect(t *testing.T) {
	cases := []struct {
		name   string
		seed   []client.Object
		policy metav1.DeletionPropagation
		want   []string
	}{
		{"dependents follow, and theirs", []client.Object{config("a", "top"), config("a", "mid", "top"), config("a", "low", "mid"), config("a", "other")},
			metav1.DeletePropagationBackground, []string{"other"}},
		{"one owner left is enough", []client.Object{config("a", "top"), config("a", "two"), config("a", "mid", "top", "two")},
			metav1.DeletePropagationBackground, []string{"mid<two", "two"}},
		{"orphans stay", []client.Object{config("a", "top"), config("a", "mid", "top"), config("a", "low", "mid")},
			metav1.DeletePropagationOrphan, []string{"low<mid", "mid"}},
		{"foreground ends with the owner", []client.Object{config("a", "top"), config("a", "mid", "+top"), config("a", "low", "+mid")},
			metav1.DeletePropagationForeground, nil},
		{"foreground circle", []client.Object{config("a", "top", "+low"), config("a", "mid", "+top"), config("a", "low", "+mid")},
			metav1.DeletePropagationForeground, nil},
		{"an owner is not sought in another namespace", []client.Object{config("a", "top"), config("b", "stray", "top"), config("a", "mid", "top")},
			metav1.DeletePropagationOrphan, []string{"mid"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := start(t, c.seed...)
				b.remove("top", c.policy)
				time.Sleep(time.Minute)
				b.expectConfigs(c.want...)
			})
		})
	}
}

// A cluster-wide object cannot be owned by one in a namespace: it stays, also when
// that one has been seen to go.
func TestClusterWideStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", OwnerReferences: config("a", "x", "top").OwnerReferences}}
		b := start(t, config("a", "top"), config("a", "mid", "top"), n)
		b.remove("top", metav1.DeletePropagationBackground)
		time.Sleep(time.Minute)
		b.expectConfigs()
		if _, err := client.Nodes.Get(t.Context(), b.server, "", "n"); err != nil {
			t.Error(err)
		}
	})
}

// In the foreground the owner waits for who blocks it, and only for them.
func TestForegroundWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := config("a", "slow", "+top")
		slow.Finalizers = []string{"test/slow"}
		lax := config("a", "lax", "top")
		lax.Finalizers = []string{"test/slow"}
		b := start(t, config("a", "top"), slow, lax, config("a", "fast", "+top"))
		b.remove("top", metav1.DeletePropagationForeground)
		b.expectConfigs("lax<top leaving", "slow<top leaving", "top leaving")
		free, err := client.ConfigMaps.Get(t.Context(), b.server, "a", "slow")
		if err != nil {
			t.Fatal(err)
		}
		free = free.DeepCopy()
		free.Finalizers = nil
		if _, err := client.ConfigMaps.Update(t.Context(), b.server, free); err != nil {
			t.Fatal(err)
		}
		b.expectConfigs("lax<top leaving")
	})
}

// What was left behind while nobody looked is found at the start.
func TestCollectAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, config("a", "left", "never"), config("a", "kept"), config("a", "child", "kept"))
		b.expectConfigs("child<kept", "kept")
	})
}

func TestNamespaceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := backend("p", true, "10.1.0.1")
		pod.Namespace, pod.Finalizers = "gone", []string{"test/slow"}
		b := start(t,
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "gone"}, Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{corev1.FinalizerKubernetes}}},
			pod, config("gone", "c"), config("a", "other"))
		if _, err := client.ServiceAccounts.Get(t.Context(), b.server, "gone", "default"); err != nil {
			t.Errorf("default service account: %v", err)
		}
		if c, err := client.ConfigMaps.Get(t.Context(), b.server, "gone", "kube-root-ca.crt"); err != nil || c.Data["ca.crt"] != "PEM" {
			t.Errorf("root certificate: %v", err)
		}
		if err := client.Namespaces.Delete(t.Context(), b.server, "", "gone", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		b.settle()
		ns, err := client.Namespaces.Get(t.Context(), b.server, "", "gone")
		if err != nil {
			t.Fatal(err)
		}
		var told []string
		for _, c := range ns.Status.Conditions {
			if c.Status == corev1.ConditionTrue {
				told = append(told, fmt.Sprintf("%s: %s", c.Type, c.Message))
			}
		}
		want := []string{
			"NamespaceContentRemaining: Some resources are remaining: pods. has 1 resource instances",
			"NamespaceFinalizersRemaining: Some content in the namespace has finalizers remaining: test/slow in 1 resource instances",
		}
		if ns.Status.Phase != corev1.NamespaceTerminating || !slices.Equal(told, want) {
			t.Errorf("phase %s, told %q; want Terminating, %q", ns.Status.Phase, told, want)
		}
		b.expectConfigs("c", "other") // nothing goes before the pods
		left, err := client.Pods.Get(t.Context(), b.server, "gone", "p")
		if err != nil {
			t.Fatal(err)
		}
		left = left.DeepCopy()
		left.Finalizers = nil
		if _, err := client.Pods.Update(t.Context(), b.server, left); err != nil {
			t.Fatal(err)
		}
		b.expectConfigs("other")
		if _, err := client.Namespaces.Get(t.Context(), b.server, "", "gone"); err == nil {
			t.Error("the namespace is still there")
		}
	})
}
