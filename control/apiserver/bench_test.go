package apiserver

import (
	"fmt"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/internal/target"
)

// The writes that a cluster makes most, through the whole server over a store in
// memory: by a component of the same process, and over HTTPS, where the client's part
// is counted too.
func BenchmarkWrites(b *testing.B) {
	w := serve(b, func(*Config) {})
	leaf, err := w.ca.Issue(pki.Leaf{CommonName: "admin", Organizations: []string{identity.Masters}, Client: true})
	must(b, err)
	cert, key, err := pki.Encode(leaf)
	must(b, err)
	wire, err := client.NewHTTP(&rest.Config{Host: w.url, QPS: -1, TLSClientConfig: rest.TLSClientConfig{CertData: cert, KeyData: key, CAData: w.ca.PEM()}})
	must(b, err)
	local := w.Local(identity.Identity{Name: "admin", Groups: []string{identity.Masters, identity.Authenticated}})
	_, err = client.ServiceAccounts.Create(b.Context(), local, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"}})
	must(b, err)
	for _, t := range []writer{{local, "local", 0}, {wire, "https", 0}} {
		for name, write := range map[string]func(w *writer, b *testing.B){
			"pod": (*writer).pods, "bind": (*writer).bindings, "status-patch": (*writer).patches, "status-update": (*writer).statuses,
			"lease": (*writer).leases, "event": (*writer).events, "configmap": (*writer).configMaps,
		} {
			b.Run(t.way+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				write(&t, b)
			})
		}
	}
}

// writer makes writes over one transport.
type writer struct {
	client.Transport
	way string
	n   int
}

func (w *writer) name() string { w.n++; return fmt.Sprintf("%s-%d", w.way, w.n) }

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
		_, err := client.Pods.Create(b.Context(), w, p)
		must(b, err)
	}
	return names
}

func (w *writer) pods(b *testing.B) { w.make(b, b.N) }

func (w *writer) bindings(b *testing.B) {
	names := w.make(b, b.N)
	b.ResetTimer()
	for _, name := range names {
		at := target.Of(client.Pods.GroupVersionResource, "default").Object(name).Sub("binding")
		_, err := w.Create(b.Context(), at, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
			Target: corev1.ObjectReference{Kind: "Node", Name: "n1"}}, metav1.CreateOptions{})
		must(b, err)
	}
}

// patches are an agent's: of one pod, whose readiness comes and goes.
func (w *writer) patches(b *testing.B) {
	name, p := w.make(b, 1)[0], w.pod(b)
	p.Name = name
	_, err := client.Pods.UpdateStatus(b.Context(), w, p)
	must(b, err)
	at := target.Of(client.Pods.GroupVersionResource, "default").Object(name).Sub("status")
	b.ResetTimer()
	for i := range b.N {
		is := []string{"True", "False"}[i%2]
		data := fmt.Appendf(nil, `{"metadata":{"name":%q},"status":{"$setElementOrder/conditions":[{"type":"PodScheduled"},{"type":"Initialized"},{"type":"ContainersReady"},{"type":"Ready"}],"conditions":[{"type":"ContainersReady","status":%q},{"type":"Ready","status":%q}]}}`, name, is, is)
		_, err := client.Pods.Patch(b.Context(), w, at, client.Patch{Type: types.StrategicMergePatchType, Data: data})
		must(b, err)
	}
}

func (w *writer) statuses(b *testing.B) {
	name, p := w.make(b, 1)[0], w.pod(b)
	p.Name = name
	b.ResetTimer()
	for i := range b.N {
		p.Status.Message = []string{"a", "b"}[i%2]
		_, err := client.Pods.UpdateStatus(b.Context(), w, p)
		must(b, err)
	}
}

func (w *writer) leases(b *testing.B) {
	node, seconds := "n1", int32(40)
	now, err := client.Leases.Create(b.Context(), w, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: w.name()},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &node, LeaseDurationSeconds: &seconds}})
	must(b, err)
	begin := time.Now()
	b.ResetTimer()
	for i := range b.N {
		next := *now
		next.Spec.RenewTime = &metav1.MicroTime{Time: begin.Add(time.Duration(i) * time.Second)}
		now, err = client.Leases.Update(b.Context(), w, &next)
		must(b, err)
	}
}

func (w *writer) events(b *testing.B) {
	now := metav1.Now()
	for range b.N {
		_, err := client.Events.Create(b.Context(), w, &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: w.name()},
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "p", UID: "1", APIVersion: "v1"}, Reason: "Scheduled",
			Message: "Successfully assigned default/p to n1", Source: corev1.EventSource{Component: "default-scheduler"},
			FirstTimestamp: now, LastTimestamp: now, Count: 1, Type: corev1.EventTypeNormal})
		must(b, err)
	}
}

func (w *writer) configMaps(b *testing.B) {
	value := strings.Repeat("x", 700)
	for range b.N {
		_, err := client.ConfigMaps.Create(b.Context(), w, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: w.name()}, Data: map[string]string{"value": value}})
		must(b, err)
	}
}
