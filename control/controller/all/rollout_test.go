package all_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/clienttest"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/control/controller/all"
	"github.com/sampan-dev/sampan/internal/target"
)

// kinds are those that the tests use.
var kinds = []controller.Kind{
	kind(client.Pods), kind(client.Services), kind(client.ConfigMaps), kind(client.Secrets), kind(client.ServiceAccounts),
	kind(client.ReplicaSets), kind(client.Deployments), kind(client.EndpointSlices), kind(client.Endpoints),
	kind(client.Namespaces), kind(client.Nodes), kind(client.Leases),
}

func kind[T client.Object](r client.Resource[T]) controller.Kind {
	return controller.Kind{GroupVersionResource: r.GroupVersionResource, Kind: r.Kind, Namespaced: r.Namespaced}
}

// bench is a control plane with a memory for a server and a hand for a kubelet.
type bench struct {
	*testing.T
	server *clienttest.Memory
}

func start(t *testing.T, seed ...client.Object) *bench {
	b := &bench{t, clienttest.NewMemory()}
	b.server.Seed(seed...)
	go func() {
		err := all.Start(t.Context(), all.Config{
			Transport: func(string) client.Transport { return b.server },
			Kinds:     controller.NewKinds(kinds...),
			RootCA:    []byte("PEM"),
			Log:       slog.New(slog.DiscardHandler),
		})
		if t.Context().Err() == nil {
			t.Errorf("controllers ended: %v", err)
		}
	}()
	b.settle()
	return b
}

// settle lets everything happen that happens without time passing, and the
// retries of conflicts.
func (b *bench) settle() {
	synctest.Wait()
	time.Sleep(time.Second)
	synctest.Wait()
}

func (b *bench) pods() []*corev1.Pod {
	b.Helper()
	pods, _, err := client.Pods.List(b.Context(), b.server, "", metav1.ListOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return pods
}

// run makes up to n pods that are not yet ready run and be ready.
func (b *bench) run(n int) {
	b.Helper()
	for _, pod := range b.pods() {
		if n == 0 || len(pod.Status.Conditions) > 0 {
			continue
		}
		n--
		pod = pod.DeepCopy()
		pod.Status.Phase = corev1.PodRunning
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
		if _, err := client.Pods.UpdateStatus(b.Context(), b.server, pod); err != nil {
			b.Fatal(err)
		}
	}
	b.settle()
}

// bind gives a pod a node.
func (b *bench) bind(pod *corev1.Pod) *corev1.Pod {
	b.Helper()
	at := target.Of(client.Pods.GroupVersionResource, pod.Namespace).Object(pod.Name).Sub("binding")
	binding := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: "n1"}}
	if _, err := b.server.Create(b.Context(), at, binding, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	bound, err := client.Pods.Get(b.Context(), b.server, pod.Namespace, pod.Name)
	if err != nil {
		b.Fatal(err)
	}
	return bound
}

// change edits the deployment "web".
func (b *bench) change(edit func(*appsv1.Deployment)) {
	b.Helper()
	d := b.deployment().DeepCopy()
	edit(d)
	if _, err := client.Deployments.Update(b.Context(), b.server, d); err != nil {
		b.Fatal(err)
	}
	b.settle()
}

func (b *bench) deployment() *appsv1.Deployment {
	b.Helper()
	d, err := client.Deployments.Get(b.Context(), b.server, "default", "web")
	if err != nil {
		b.Fatal(err)
	}
	return d
}

// show is the state in a line: per image its revision, wanted/pods/ready, then
// the conditions.
func (b *bench) show() string {
	b.Helper()
	sets, _, err := client.ReplicaSets.List(b.Context(), b.server, "", metav1.ListOptions{})
	if err != nil {
		b.Fatal(err)
	}
	lines := map[string]string{}
	for _, rs := range sets {
		ready, have := 0, 0
		for _, pod := range b.pods() {
			if metav1.IsControlledBy(pod, rs) {
				have++
				if len(pod.Status.Conditions) > 0 {
					ready++
				}
			}
		}
		image := rs.Spec.Template.Spec.Containers[0].Image
		lines[image] = fmt.Sprintf("%s#%s %d/%d/%d", image, rs.Annotations["deployment.kubernetes.io/revision"], *rs.Spec.Replicas, have, ready)
	}
	var out []string
	for _, image := range []string{"a", "b", "c", "d"} {
		if lines[image] != "" {
			out = append(out, lines[image])
		}
	}
	d := b.deployment()
	for _, kind := range []appsv1.DeploymentConditionType{"Available", "Progressing", "ReplicaFailure"} {
		for _, c := range d.Status.Conditions {
			if c.Type == kind {
				out = append(out, fmt.Sprintf("%s=%s", c.Reason, c.Status))
			}
		}
	}
	if d.Status.ObservedGeneration != d.Generation {
		out = append(out, "STALE")
	}
	return strings.Join(out, ", ")
}

func (b *bench) expect(want string) {
	b.Helper()
	b.settle()
	got := b.show()
	if begin, open := strings.CutSuffix(want, "…"); open && strings.HasPrefix(got, begin) {
		return
	}
	if got != want {
		b.Errorf("\n got %s\nwant %s", got, want)
	}
}

func web(replicas int32, surge, unavailable int) *appsv1.Deployment {
	s, u, deadline, history := intstr.FromInt(surge), intstr.FromInt(unavailable), int32(600), int32(10)
	labels := map[string]string{"app": "web"}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Generation: 1},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			ProgressDeadlineSeconds: &deadline, RevisionHistoryLimit: &history,
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &s, MaxUnavailable: &u},
			},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "a"}}},
			},
		},
	}
}

func image(name string) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = name }
}

const (
	available   = "MinimumReplicasAvailable=True"
	unavailable = "MinimumReplicasUnavailable=False"
)

func TestRollout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, web(3, 1, 1))
		b.expect("a#1 3/3/0, " + unavailable + ", ReplicaSetUpdated=True")
		b.run(3)
		b.expect("a#1 3/3/3, " + available + ", NewReplicaSetAvailable=True")

		b.change(image("b"))
		b.expect("a#1 2/2/2, b#2 2/2/0, " + available + ", ReplicaSetUpdated=True")
		b.run(1)
		b.expect("a#1 1/1/1, b#2 3/3/1, " + available + ", ReplicaSetUpdated=True")
		b.run(2)
		b.expect("a#1 0/0/0, b#2 3/3/3, " + available + ", NewReplicaSetAvailable=True")

		// What kubectl rollout undo does: the old template again.
		b.change(image("a"))
		b.run(3)
		b.run(3)
		b.expect("a#3 3/3/3, b#2 0/0/0, " + available + ", NewReplicaSetAvailable=True")
		if got := b.deployment().Annotations["deployment.kubernetes.io/revision"]; got != "3" {
			t.Errorf("revision %q, want 3", got)
		}
	})
}

func TestBadRolloutTimesOutAndIsUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, web(4, 1, 1))
		b.run(4)
		b.change(image("b"))
		b.expect("a#1 3/3/3, b#2 2/2/0, " + available + ", ReplicaSetUpdated=True")
		time.Sleep(11 * time.Minute)
		b.expect("a#1 3/3/3, b#2 2/2/0, " + available + ", ProgressDeadlineExceeded=False")
		b.change(image("a"))
		b.run(4)
		b.expect("a#3 4/4/4, b#2 0/0/0, " + available + ", NewReplicaSetAvailable=True")
	})
}

func TestScaleInProportion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, web(10, 3, 2))
		b.run(10)
		b.change(image("b"))
		b.expect("a#1 8/8/8, b#2 5/5/0, " + available + ", ReplicaSetUpdated=True")
		b.change(func(d *appsv1.Deployment) { n := int32(15); d.Spec.Replicas = &n })
		// 18 pods in all, shared 8:5 as before.
		b.expect("a#1 11/11/8, b#2 7/7/0, " + unavailable + ", ReplicaSetUpdated=True")
	})
}

func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, web(2, 1, 0))
		b.run(2)
		b.change(func(d *appsv1.Deployment) { d.Spec.Paused = true; image("b")(d) })
		b.expect("a#1 2/2/2, " + available + ", DeploymentPaused=Unknown")
		b.change(func(d *appsv1.Deployment) { n := int32(3); d.Spec.Replicas = &n })
		b.run(1)
		b.expect("a#1 3/3/3, " + available + ", DeploymentPaused=Unknown")
		b.change(func(d *appsv1.Deployment) { d.Spec.Paused = false })
		b.run(1)
		b.run(1)
		b.run(1)
		b.run(1)
		b.expect("a#1 0/0/0, b#2 3/3/3, " + available + ", NewReplicaSetAvailable=True")
	})
}

func TestRecreate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := web(2, 0, 0)
		d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
		b := start(t, d)
		b.run(2)
		pods := b.pods()
		// A pod that is slow to go: a finalizer stands in for the kubelet. Had it no
		// node, it would not count as running.
		slow := b.bind(pods[0]).DeepCopy()
		slow.Finalizers = []string{"test/slow"}
		if _, err := client.Pods.Update(t.Context(), b.server, slow); err != nil {
			t.Fatal(err)
		}
		b.change(image("b"))
		b.expect("a#1 0/1/1, " + unavailable + ", …") // the reason depends on which status the deployment saw
		slow, err := client.Pods.Get(t.Context(), b.server, slow.Namespace, slow.Name)
		if err != nil {
			t.Fatal(err)
		}
		slow = slow.DeepCopy()
		slow.Finalizers = nil
		if _, err := client.Pods.Update(t.Context(), b.server, slow); err != nil {
			t.Fatal(err)
		}
		b.expect("a#1 0/0/0, b#2 2/2/0, " + unavailable + ", ReplicaSetUpdated=True")
		b.run(2)
		b.expect("a#1 0/0/0, b#2 2/2/2, " + available + ", NewReplicaSetAvailable=True")
	})
}

func TestHistoryIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := web(1, 1, 0)
		one := int32(1)
		d.Spec.RevisionHistoryLimit = &one
		b := start(t, d)
		for _, name := range []string{"b", "c", "d"} {
			b.run(1)
			b.change(image(name))
		}
		b.run(1)
		b.expect("c#3 0/0/0, d#4 1/1/1, " + available + ", NewReplicaSetAvailable=True")
	})
}

// A pod that vanishes is replaced, one too many is removed, an orphan adopted.
func TestReplicaSetHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, web(2, 1, 1))
		b.run(2)
		pod := b.pods()[0]
		if err := client.Pods.Delete(t.Context(), b.server, pod.Namespace, pod.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		b.expect("a#1 2/2/1, " + available + ", NewReplicaSetAvailable=True")
		b.run(1)
		orphan := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "orphan", Labels: b.pods()[0].Labels}}
		if _, err := client.Pods.Create(t.Context(), b.server, orphan); err != nil {
			t.Fatal(err)
		}
		b.expect("a#1 2/2/2, " + available + ", NewReplicaSetAvailable=True") // adopted, then the least useful of three
		released := b.pods()[0].DeepCopy()
		released.Labels = map[string]string{"app": "debug"}
		if _, err := client.Pods.Update(t.Context(), b.server, released); err != nil {
			t.Fatal(err)
		}
		b.expect("a#1 2/2/1, " + available + ", NewReplicaSetAvailable=True")
		if got, err := client.Pods.Get(t.Context(), b.server, released.Namespace, released.Name); err != nil || len(got.OwnerReferences) != 0 {
			t.Errorf("released pod: %v, owners %v", err, got.OwnerReferences)
		}
	})
}
