package all_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/clienttest"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/control/controller/all"
	"github.com/sampan-dev/sampan/internal/target"
)

// mortal is a transport whose user dies at its n-th write, before or after the
// server has done it. Events are no writes that count.
type mortal struct {
	client.Transport
	after bool
	die   context.CancelFunc

	mu   sync.Mutex
	left int
	dead bool
}

var errDead = errors.New("the controllers have died")

// write counts down and says what is to be done: nothing, or the write, and
// whether its answer is ever heard.
func (m *mortal) write(t target.Target, do func() (runtime.Object, error)) (runtime.Object, error) {
	m.mu.Lock()
	if m.dead {
		m.mu.Unlock()
		return nil, errDead
	}
	if t.Resource.Resource != "events" {
		m.left--
	}
	m.dead = m.left == 0
	dies := m.dead
	m.mu.Unlock()
	if !dies {
		return do()
	}
	defer m.die()
	if m.after {
		_, _ = do()
	}
	return nil, errDead
}

func (m *mortal) Create(ctx context.Context, t target.Target, obj runtime.Object, o metav1.CreateOptions) (runtime.Object, error) {
	return m.write(t, func() (runtime.Object, error) { return m.Transport.Create(ctx, t, obj, o) })
}

func (m *mortal) Update(ctx context.Context, t target.Target, obj runtime.Object, o metav1.UpdateOptions) (runtime.Object, error) {
	return m.write(t, func() (runtime.Object, error) { return m.Transport.Update(ctx, t, obj, o) })
}

func (m *mortal) Patch(ctx context.Context, t target.Target, kind types.PatchType, data []byte, o metav1.PatchOptions) (runtime.Object, error) {
	return m.write(t, func() (runtime.Object, error) { return m.Transport.Patch(ctx, t, kind, data, o) })
}

func (m *mortal) Delete(ctx context.Context, t target.Target, o metav1.DeleteOptions) error {
	_, err := m.write(t, func() (runtime.Object, error) { return nil, m.Transport.Delete(ctx, t, o) })
	return err
}

// withCrash runs the controllers until write n, and then others. It says whether
// there was an n-th write.
func withCrash(t *testing.T, n int, after bool, server *clienttest.Memory, during func()) bool {
	run := func(ctx context.Context, transport client.Transport) {
		_ = all.Start(ctx, all.Config{
			Transport: func(string) client.Transport { return transport }, Kinds: controller.NewKinds(kinds...),
			RootCA: []byte("PEM"), Log: slog.New(slog.DiscardHandler),
		})
	}
	ctx, die := context.WithCancel(t.Context())
	m := &mortal{Transport: server, after: after, die: die, left: n}
	go func() {
		run(ctx, m)
		if t.Context().Err() == nil {
			run(t.Context(), server)
		}
	}()
	during()
	die()
	synctest.Wait()
	return m.dead
}

// Whenever the controllers die, each pod of a job that has ended is counted once.
func TestJobSurvivesDeath(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n, more := 1, true; more && n < 100; n += 1 + n/25 {
			synctest.Test(t, func(t *testing.T) { more = jobWithDeath(t, n, after) })
		}
	}
}

func jobWithDeath(t *testing.T, n int, after bool) bool {
	server := clienttest.NewMemory()
	completions, parallelism, limit := int32(5), int32(3), int32(6)
	labels := map[string]string{"job": "j"}
	server.Seed(&batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "j", UID: "job", Generation: 1},
		Spec: batchv1.JobSpec{
			Completions: &completions, Parallelism: &parallelism, BackoffLimit: &limit, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}},
		},
	})
	ended := map[types.UID]corev1.PodPhase{}
	died := withCrash(t, n, after, server, func() {
		for range 60 {
			time.Sleep(5 * time.Second)
			synctest.Wait()
			endPods(t, server, ended)
		}
	})
	job, err := client.Jobs.Get(t.Context(), server, "default", "j")
	if err != nil {
		t.Fatal(err)
	}
	count := map[corev1.PodPhase]int32{}
	for _, phase := range ended {
		count[phase]++
	}
	if s := job.Status; s.Succeeded != count[corev1.PodSucceeded] || s.Failed != count[corev1.PodFailed] || s.Succeeded < completions || s.CompletionTime == nil {
		t.Errorf("death at write %d (after %v): status counts %d succeeded and %d failed, there were %v; completed %v", n, after, s.Succeeded, s.Failed, count, s.CompletionTime)
	}
	pods, _, err := client.Pods.List(t.Context(), server, "default", metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range pods {
		if len(pod.Finalizers) > 0 {
			t.Errorf("death at write %d (after %v): pod %s keeps %v", n, after, pod.Name, pod.Finalizers)
		}
	}
	return died
}

// endPods lets every pod end; every third fails.
func endPods(t *testing.T, server client.Transport, ended map[types.UID]corev1.PodPhase) {
	pods, _, err := client.Pods.List(t.Context(), server, "default", metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range pods {
		if ended[pod.UID] != "" || pod.DeletionTimestamp != nil {
			continue
		}
		pod = pod.DeepCopy()
		pod.Status.Phase = corev1.PodSucceeded
		if len(ended)%3 == 2 {
			pod.Status.Phase = corev1.PodFailed
		}
		if _, err := client.Pods.UpdateStatus(t.Context(), server, pod); err != nil {
			continue // changed meanwhile: the next time
		}
		ended[pod.UID] = pod.Status.Phase
	}
}

// Whenever the controllers die during an update, sets of all sorts end up with
// as many pods as they want, of the new template, and nothing beside.
func TestSetsSurviveDeath(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n, more := 1, true; more && n < 100; n += 1 + n/8 { // every one at the start, some later
			synctest.Test(t, func(t *testing.T) { more = setsWithDeath(t, n, after) })
		}
	}
}

func setsWithDeath(t *testing.T, n int, after bool) bool {
	server := clienttest.NewMemory()
	server.Seed(
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}},
		statefulFixture(), daemonFixture(), web(2, 1, 0),
	)
	died := withCrash(t, n, after, server, func() {
		for i := range 60 {
			time.Sleep(5 * time.Second)
			synctest.Wait()
			readyPods(t, server)
			if i == 5 {
				updateAll(t, server)
			}
		}
	})
	pods, _, err := client.Pods.List(t.Context(), server, "default", metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]int{}
	for _, pod := range pods {
		have[metav1.GetControllerOf(pod).Kind+" "+pod.Spec.Containers[0].Image]++
	}
	if want := map[string]int{"StatefulSet b": 2, "DaemonSet b": 2, "ReplicaSet b": 2}; fmt.Sprint(have) != fmt.Sprint(want) {
		t.Errorf("death at write %d (after %v): pods %v, want %v", n, after, have, want)
	}
	revisions, _, err := client.ControllerRevisions.List(t.Context(), server, "default", metav1.ListOptions{})
	if err != nil || len(revisions) != 4 {
		t.Errorf("death at write %d (after %v): %v, %d revisions, want two of each set", n, after, err, len(revisions))
	}
	return died
}

func readyPods(t *testing.T, server client.Transport) {
	pods, _, err := client.Pods.List(t.Context(), server, "default", metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range pods {
		if len(pod.Status.Conditions) > 0 {
			continue
		}
		pod = pod.DeepCopy()
		pod.Status.Phase = corev1.PodRunning
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
		_, _ = client.Pods.UpdateStatus(t.Context(), server, pod) // changed meanwhile: the next time
	}
}

// updateAll changes the image of all three sets.
func updateAll(t *testing.T, server client.Transport) {
	ctx := t.Context()
	for range 10 {
		d, err1 := client.Deployments.Get(ctx, server, "default", "web")
		s, err2 := client.StatefulSets.Get(ctx, server, "default", "s")
		ds, err3 := client.DaemonSets.Get(ctx, server, "default", "d")
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		d, s, ds = d.DeepCopy(), s.DeepCopy(), ds.DeepCopy()
		for _, template := range []*corev1.PodTemplateSpec{&d.Spec.Template, &s.Spec.Template, &ds.Spec.Template} {
			template.Spec.Containers[0].Image = "b"
		}
		_, err1 = client.Deployments.Update(ctx, server, d)
		_, err2 = client.StatefulSets.Update(ctx, server, s)
		_, err3 = client.DaemonSets.Update(ctx, server, ds)
		if errors.Join(err1, err2, err3) == nil {
			return
		}
	}
	t.Error("the sets change too often to be changed")
}

func statefulFixture() *appsv1.StatefulSet {
	replicas, history, labels := int32(2), int32(5), map[string]string{"app": "s"}
	return &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s", UID: "s", Generation: 1},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &replicas, RevisionHistoryLimit: &history, Selector: &metav1.LabelSelector{MatchLabels: labels},
			PodManagementPolicy: appsv1.OrderedReadyPodManagement,
			UpdateStrategy: appsv1.StatefulSetUpdateStrategy{
				Type: appsv1.RollingUpdateStatefulSetStrategyType, RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{},
			},
			Template: template(labels),
		},
	}
}

func daemonFixture() *appsv1.DaemonSet {
	history, labels := int32(5), map[string]string{"app": "d"}
	one := intstr.FromInt32(1)
	return &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "d", UID: "d", Generation: 1},
		Spec: appsv1.DaemonSetSpec{
			RevisionHistoryLimit: &history, Selector: &metav1.LabelSelector{MatchLabels: labels},
			UpdateStrategy: appsv1.DaemonSetUpdateStrategy{
				Type: appsv1.RollingUpdateDaemonSetStrategyType, RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &one},
			},
			Template: template(labels),
		},
	}
}

func template(labels map[string]string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "a"}}},
	}
}
