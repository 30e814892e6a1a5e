package resourcequota_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/clienttest"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/control/controller/resourcequota"
)

const namespace = "default"

// beside runs the controller on a server that another leader writes to as well, until
// the test ends.
func beside(t *testing.T, server *clienttest.Memory) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	mirrors := controller.NewMirrors(server, log)
	kinds := controller.NewKinds(controller.Kind{GroupVersionResource: client.Pods.GroupVersionResource, Kind: client.Pods.Kind, Namespaced: true})
	c, err := resourcequota.New(controller.Config{Transport: func(string) client.Transport { return server }, Mirrors: mirrors, Log: log}, kinds)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{}, 2)
	go func() { _ = mirrors.Run(ctx); ended <- struct{}{} }()
	go func() { _ = c.Run(ctx); ended <- struct{}{} }()
	t.Cleanup(func() { stop(); <-ended; <-ended })
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
}

// going is a pod that should be gone a second after at, and is held by its node.
func going(name string, at time.Time) *corev1.Pod {
	p, grace := pod(name), int64(0)
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds, p.Finalizers = &metav1.Time{Time: at.Add(time.Second)}, &grace, []string{"test/node"}
	return p
}

// usedPods is what the quota says; the other leader writes it with tell.
func usedPods(t *testing.T, server client.Transport) int64 {
	t.Helper()
	synctest.Wait()
	q, err := client.ResourceQuotas.Get(t.Context(), server, namespace, "q")
	if err != nil {
		t.Fatal(err)
	}
	used := q.Status.Used[corev1.ResourcePods]
	return used.Value()
}

func tell(t *testing.T, server client.Transport, used int64) {
	t.Helper()
	q, err := client.ResourceQuotas.Get(t.Context(), server, namespace, "q")
	if err != nil {
		t.Fatal(err)
	}
	q = q.DeepCopy()
	q.Status.Used = corev1.ResourceList{corev1.ResourcePods: *resource.NewQuantity(used, resource.DecimalSI)}
	if _, err := client.ResourceQuotas.UpdateStatus(t.Context(), server, q); err != nil {
		t.Fatal(err)
	}
}

// A pod past its time is left out by whoever counts next. When that was the other leader,
// nothing is taken off any more when the pod goes at last: the quota would say less than
// there is, and let in more than it may. When nobody has counted yet, the next count
// takes it off.
func TestLatePodIsTakenOffOnce(t *testing.T) {
	for _, c := range []struct {
		name string
		// counted says that the other leader has left it out when it goes.
		counted bool
		late    bool
		want    int64 // at once
	}{
		{"in time, its own to take off", false, false, 2},
		{"late, and the other one has counted", true, true, 2},
		{"late, and nobody has", false, true, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := clienttest.NewMemory()
				due := time.Now()
				if !c.late {
					due = due.Add(time.Hour)
				}
				q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "q"}}
				q.Spec.Hard = corev1.ResourceList{corev1.ResourcePods: resource.MustParse("9")}
				server.Seed(q, pod("a"), pod("b"), going("held", due))
				beside(t, server)
				if used := usedPods(t, server); used != 3 {
					t.Fatalf("%d pods are counted, there are 3", used)
				}
				time.Sleep(10 * time.Second) // the first counts are over
				if c.counted {
					tell(t, server, 2)
				}
				held, err := client.Pods.Get(t.Context(), server, namespace, "held")
				if err != nil {
					t.Fatal(err)
				}
				held = held.DeepCopy()
				held.Finalizers = nil
				if _, err := client.Pods.Update(t.Context(), server, held); err != nil {
					t.Fatal(err)
				}
				if used := usedPods(t, server); used != c.want {
					t.Errorf("the pod has gone: %d are used, want %d", used, c.want)
				}
				for range 60 {
					time.Sleep(time.Second)
					if used := usedPods(t, server); used < 2 {
						t.Fatalf("%d pods are used, there are 2", used)
					}
				}
				if used := usedPods(t, server); used != 2 {
					t.Errorf("after a minute %d pods are used, there are 2", used)
				}
			})
		})
	}
}
