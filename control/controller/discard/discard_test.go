package discard

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/clienttest"
	"github.com/sampan-dev/sampan/control/controller"
)

// Of pods that have ended, those go that have asked for it.
func TestDiscard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := clienttest.NewMemory()
		transport := func(string) client.Transport { return api }
		mirrors := controller.NewMirrors(api, nil)
		c, err := New(controller.Config{Transport: transport, Mirrors: mirrors})
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = mirrors.Run(t.Context()) }()
		go func() { _ = c.Run(t.Context()) }()
		for name, asks := range map[string]string{"asks": "true", "stays": "", "runs": "true"} {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "a", Annotations: map[string]string{Annotation: asks}}}
			if p, err = client.Pods.Create(t.Context(), api, p); err != nil {
				t.Fatal(err)
			}
			p = p.DeepCopy()
			if p.Status.Phase = corev1.PodFailed; name == "runs" {
				p.Status.Phase = corev1.PodRunning
			}
			if _, err := client.Pods.UpdateStatus(t.Context(), api, p); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		for name, gone := range map[string]bool{"asks": true, "stays": false, "runs": false} {
			p, err := client.Pods.Get(t.Context(), api, "a", name)
			if left := apierrors.IsNotFound(err) || err == nil && p.DeletionTimestamp != nil; left != gone {
				t.Errorf("%s: gone %v, want %v (%v)", name, left, gone, err)
			}
		}
	})
}
