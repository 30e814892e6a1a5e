package apiserver

import (
	"fmt"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
)

// The writes that a cluster makes most, through the whole server over a store in
// memory, by a component of the same process.
func BenchmarkWrites(b *testing.B) {
	server := serve(b, func(*Config) {})
	w := &writer{Local: server.Local(identity.Identity{Name: "admin", Groups: []string{identity.Masters, identity.Authenticated}})}
	w.add(b, inCore("serviceaccounts"), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"}})
	for name, write := range map[string]func(b *testing.B){
		"pod": w.pods, "bind": w.bindings, "status-patch": w.patches, "status-update": w.statuses,
		"lease": w.leases, "event": w.events, "configmap": w.configMaps,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			write(b)
		})
	}
}

func inCore(name string) schema.GroupVersionResource {
	return corev1.SchemeGroupVersion.WithResource(name)
}

// writer makes writes.
type writer struct {
	*resource.Local
	n int
}

func (w *writer) name() string { w.n++; return fmt.Sprintf("n-%d", w.n) }

func (w *writer) add(b *testing.B, kind schema.GroupVersionResource, obj runtime.Object) runtime.Object {
	made, err := w.Create(b.Context(), target.Of(kind, "default"), obj, metav1.CreateOptions{})
	must(b, err)
	return made
}

func (w *writer) status(b *testing.B, p *corev1.Pod) {
	_, err := w.Update(b.Context(), target.Of(inCore("pods"), "default").Object(p.Name).Sub("status"), p, metav1.UpdateOptions{})
	must(b, err)
}

// deployed is a pod as a deployment makes it, and what an agent says of it.
const deployed = `{metadata: {namespace: default, labels: {app: web, pod-template-hash: 5d4f8c7b9}}, spec: {
  tolerations: [{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 300}],
  containers: [{name: c, image: "i:v1", env: [{name: A, value: b}, {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}],
    ports: [{containerPort: 80}], resources: {requests: {cpu: 100m, memory: 64Mi}}, readinessProbe: {httpGet: {port: 80}}}]},
 status: {phase: Running, startTime: "2026-01-01T00:00:00Z", hostIP: 192.0.2.7, podIP: 10.0.0.9, podIPs: [{ip: 10.0.0.9}],
  conditions: [{type: PodScheduled, status: "True", lastTransitionTime: "2026-01-01T00:00:00Z"}, {type: Initialized, status: "True", lastTransitionTime: "2026-01-01T00:00:00Z"},
   {type: ContainersReady, status: "True", lastTransitionTime: "2026-01-01T00:00:00Z"}, {type: Ready, status: "True", lastTransitionTime: "2026-01-01T00:00:00Z"}],
  containerStatuses: [{name: c, image: "i:v1", imageID: x, ready: true, started: true, containerID: "sampan://1", state: {running: {startedAt: "2026-01-01T00:00:00Z"}}}]}}`

func (w *writer) pod(b *testing.B) *corev1.Pod {
	p := &corev1.Pod{}
	must(b, yaml.Unmarshal([]byte(deployed), p))
	return p
}

// make makes n pods and returns their names.
func (w *writer) make(b *testing.B, n int) (names []string) {
	p := w.pod(b)
	for range n {
		p.Name = w.name()
		names = append(names, p.Name)
		w.add(b, inCore("pods"), p)
	}
	return names
}

func (w *writer) pods(b *testing.B) { w.make(b, b.N) }

func (w *writer) bindings(b *testing.B) {
	names := w.make(b, b.N)
	b.ResetTimer()
	for _, name := range names {
		at := target.Of(inCore("pods"), "default").Object(name).Sub("binding")
		_, err := w.Create(b.Context(), at, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
			Target: corev1.ObjectReference{Kind: "Node", Name: "n1"}}, metav1.CreateOptions{})
		must(b, err)
	}
}

// patches are an agent's: of one pod, whose readiness comes and goes.
func (w *writer) patches(b *testing.B) {
	name, p := w.make(b, 1)[0], w.pod(b)
	p.Name = name
	w.status(b, p)
	at := target.Of(inCore("pods"), "default").Object(name).Sub("status")
	b.ResetTimer()
	for i := range b.N {
		is := []string{"True", "False"}[i%2]
		data := fmt.Appendf(nil, `{"metadata":{"name":%q},"status":{"$setElementOrder/conditions":[{"type":"PodScheduled"},{"type":"Initialized"},{"type":"ContainersReady"},{"type":"Ready"}],"conditions":[{"type":"ContainersReady","status":%q},{"type":"Ready","status":%q}]}}`, name, is, is)
		_, err := w.Patch(b.Context(), at, types.StrategicMergePatchType, data, metav1.PatchOptions{})
		must(b, err)
	}
}

func (w *writer) statuses(b *testing.B) {
	name, p := w.make(b, 1)[0], w.pod(b)
	p.Name = name
	b.ResetTimer()
	for i := range b.N {
		p.Status.Message = []string{"a", "b"}[i%2]
		w.status(b, p)
	}
}

func (w *writer) leases(b *testing.B) {
	node, seconds := "n1", int32(40)
	leases := coordinationv1.SchemeGroupVersion.WithResource("leases")
	now := w.add(b, leases, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: w.name()},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &node, LeaseDurationSeconds: &seconds}})
	begin := time.Now()
	b.ResetTimer()
	for i := range b.N {
		next := *now.(*coordinationv1.Lease)
		next.Spec.RenewTime = &metav1.MicroTime{Time: begin.Add(time.Duration(i) * time.Second)}
		var err error
		now, err = w.Update(b.Context(), target.Of(leases, "default").Object(next.Name), &next, metav1.UpdateOptions{})
		must(b, err)
	}
}

func (w *writer) events(b *testing.B) {
	now := metav1.Now()
	for range b.N {
		w.add(b, inCore("events"), &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: w.name()},
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "p", UID: "1", APIVersion: "v1"}, Reason: "Scheduled",
			Message: "Successfully assigned default/p to n1", Source: corev1.EventSource{Component: "default-scheduler"},
			FirstTimestamp: now, LastTimestamp: now, Count: 1, Type: corev1.EventTypeNormal})
	}
}

func (w *writer) configMaps(b *testing.B) {
	value := strings.Repeat("x", 700)
	for range b.N {
		w.add(b, inCore("configmaps"), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: w.name()}, Data: map[string]string{"value": value}})
	}
}
