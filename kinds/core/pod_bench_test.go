package core

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// A pod as a deployment makes it: every write of every pod pays this.
func BenchmarkPodCreate(b *testing.B) {
	p := plainPod(b)
	b.ReportAllocs()
	for b.Loop() {
		DefaultPod(p)
		if errs := validatePodCreate(p); len(errs) > 0 {
			b.Fatal(errs)
		}
	}
}

// The paths of a pod's fields are two hundred; as long as nothing is wrong few of them
// may lie in the heap, those that tables of functions are given. See kinds.Path.
func TestPodPathsCostNothing(t *testing.T) {
	const most = 24
	p := plainPod(t)
	DefaultPod(p)
	if n := testing.AllocsPerRun(100, func() { validatePodCreate(p) }); n > most {
		t.Errorf("to validate a pod takes %v allocations, want at most %d", n, most)
	}
}

func plainPod(t testing.TB) *corev1.Pod {
	p := &corev1.Pod{}
	err := yaml.Unmarshal([]byte(`{metadata: {name: p, namespace: default, labels: {a: b}}, spec: {serviceAccountName: default,
  volumes: [{name: token, projected: {sources: [{serviceAccountToken: {path: token}}, {configMap: {name: ca, items: [{key: ca.crt, path: ca.crt}]}}]}}],
  tolerations: [{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 300}],
  containers: [{name: c, image: "i:v1", ports: [{containerPort: 80}], resources: {requests: {cpu: 100m, memory: 64Mi}},
    readinessProbe: {httpGet: {port: 80}}, volumeMounts: [{name: token, mountPath: /t}]}]}}`), p)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
