package namespace

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
)

// Pods go within their grace, mostly sooner. One that is late is not asked after at
// every turn: what keeps it may keep it for long.
func TestWaitsForPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			going      *time.Duration // until the end of its grace
			finalizers []string
			want       time.Duration
		}{
			"within its grace":    {new(30 * time.Second), nil, 16 * time.Second},
			"late":                {new(-time.Second), nil, byFinalizers},
			"held by a finalizer": {new(30 * time.Second), []string{"test/held"}, byFinalizers},
			"not deleted":         {nil, nil, byFinalizers},
		} {
			grace := int64(2)
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Finalizers: c.finalizers, DeletionGracePeriodSeconds: &grace}}
			if c.going != nil {
				pod.DeletionTimestamp = &metav1.Time{Time: time.Now().Add(*c.going)}
			}
			r := remains{kinds: map[schema.GroupVersionResource]int{}, finalizers: map[string]int{}}
			if err := r.count(client.Pods.GroupVersionResource, pod); err != nil || r.wait != c.want {
				t.Errorf("%s: %v, %v; want %v", name, r.wait, err, c.want)
			}
		}
	})
}
