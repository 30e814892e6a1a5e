package sim_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/node/hollow"
)

// Hollow nodes register, keep their leases, run their pods without touching the
// machine, and let those end that are to.
func TestHollowNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- hollow.Run(ctx, hollow.Config{
				Nodes: 3, Prefix: "h", CPU: resource.MustParse("4"), Memory: resource.MustParse("8Gi"), Pods: 110,
				Transport: func(node string) (client.Transport, error) {
					return p.server.Local(identity.Identity{Name: "system:node:" + node, Groups: []string{"system:nodes", identity.Authenticated}}), nil
				},
			})
		}()
		defer func() {
			stop()
			<-done
		}()
		time.Sleep(10 * time.Second)
		nodes, _, err := client.Nodes.List(ctx, p.admin, "", metav1.ListOptions{LabelSelector: hollow.Label})
		if err != nil || len(nodes) != 3 {
			t.Fatalf("%d hollow nodes, error %v", len(nodes), err)
		}
		for i, runs := range []string{"", "20s"} {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("p%d", i), Annotations: map[string]string{}}}
			if runs != "" {
				pod.Annotations[hollow.RunsFor] = runs
			}
			pod.Spec = corev1.PodSpec{NodeName: "h1", RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{
				Name: "c", Image: "nowhere/at-all", ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"false"}}}},
			}}}
			if _, err := client.Pods.Create(ctx, p.admin, pod); err != nil {
				t.Fatal(err)
			}
		}
		phases := func() (all []string) {
			p.settle()
			pods, _, err := client.Pods.List(ctx, p.admin, "default", metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, pod := range pods {
				if len(pod.Spec.Volumes) == 0 {
					t.Errorf("pod %s lost its volumes", pod.Name)
				}
				all = append(all, string(pod.Status.Phase))
			}
			return all
		}
		if got := fmt.Sprint(phases()); got != "[Running Running]" {
			t.Errorf("pods are %s", got)
		}
		time.Sleep(time.Minute)
		if got := fmt.Sprint(phases()); got != "[Running Succeeded]" {
			t.Errorf("pods are %s after a minute", got)
		}
		mounts, _ := os.ReadFile("/proc/mounts")
		if strings.Contains(string(mounts), "sampan-hollow") {
			t.Error("a hollow node has mounted something")
		}
		if err := client.Pods.Delete(ctx, p.admin, "default", "p0", metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		time.Sleep(40 * time.Second)
		if got := fmt.Sprint(phases()); got != "[Succeeded]" {
			t.Errorf("pods are %s after one was deleted", got)
		}
		time.Sleep(5 * time.Minute)
		node, err := client.Nodes.Get(ctx, p.admin, "", "h2")
		if err != nil || len(node.Spec.Taints) != 0 {
			t.Errorf("node h2 has the taints %v, error %v", node.Spec.Taints, err)
		}
	})
}
