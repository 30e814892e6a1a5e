package controller_test

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/clienttest"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/internal/target"
)

// asked counts the updates that reach the server.
type asked struct {
	*clienttest.Memory
	updates int
	fail    error
}

func (a *asked) Update(ctx context.Context, at target.Target, obj runtime.Object, opts metav1.UpdateOptions) (runtime.Object, error) {
	a.updates++
	if a.fail != nil {
		return nil, a.fail
	}
	return a.Memory.Update(ctx, at, obj, opts)
}

// What must be a conflict is not asked for; everything else is.
func TestPrudent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		server := &asked{Memory: clienttest.NewMemory()}
		server.Seed(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a"}})
		p := controller.Prudent(server)
		pod := func() *corev1.Pod {
			got, err := client.Pods.Get(ctx, server, "ns", "a")
			if err != nil {
				t.Fatal(err)
			}
			return got.DeepCopy()
		}
		update := func(step string, obj *corev1.Pod, conflict bool, asks int) {
			t.Helper()
			server.updates = 0
			obj = obj.DeepCopy()
			obj.Status.Message = step
			_, err := client.Pods.UpdateStatus(ctx, p, obj)
			if apierrors.IsConflict(err) != conflict || err != nil && !conflict || server.updates != asks {
				t.Errorf("%s: %v, %d updates asked; want conflict %v, %d", step, err, server.updates, conflict, asks)
			}
		}
		first := pod()
		update("the first write", first, false, 1)
		update("a write to what was before it", first, true, 0)
		second := pod()
		update("a write to what is now", second, false, 1)
		if _, err := client.Pods.Update(ctx, server.Memory, pod()); err != nil {
			t.Fatal(err)
		}
		third := pod()
		third.Labels = map[string]string{"by": "another"}
		if _, err := client.Pods.Update(ctx, server.Memory, third); err != nil {
			t.Fatal(err)
		}
		update("somebody else has written", third, true, 1)
		update("the same again", third, true, 0)
		update("what is now", pod(), false, 1)

		at := target.Of(client.Pods.GroupVersionResource, "ns").Object("a")
		fourth := pod()
		if _, err := p.Patch(ctx, at, types.MergePatchType, []byte(`{"metadata":{"labels":{"x":"y"}}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		update("before a patch", fourth, true, 0)
		blind := pod()
		blind.ResourceVersion = ""
		update("whatever it is", blind, false, 1)
		time.Sleep(5 * time.Second)
		update("the server may have been set back", fourth, true, 1)
		server.fail = errors.New("down")
		if _, err := client.Pods.UpdateStatus(ctx, p, pod()); err == nil || apierrors.IsConflict(err) {
			t.Error(err)
		}
		server.fail = nil
		update("after an error", pod(), false, 1)
	})
}

// It remembers the last writes, not all there have ever been.
func TestPrudentForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &asked{Memory: clienttest.NewMemory()}
		p := controller.Prudent(server)
		var first *corev1.ConfigMap
		for i := range 6000 {
			m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: strconv.Itoa(i)}}
			made, err := client.ConfigMaps.Create(t.Context(), p, m)
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				first = made
			}
			m = made.DeepCopy()
			m.Data = map[string]string{"i": "1"}
			if _, err := client.ConfigMaps.Update(t.Context(), p, m); err != nil {
				t.Fatal(err)
			}
		}
		server.updates = 0
		if _, err := client.ConfigMaps.Update(t.Context(), p, first.DeepCopy()); !apierrors.IsConflict(err) || server.updates != 1 {
			t.Errorf("%v, %d updates asked", err, server.updates)
		}
	})
}
