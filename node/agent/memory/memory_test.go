package memory

import (
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/sampan-dev/sampan/node/agent/numa"
	"github.com/sampan-dev/sampan/node/agent/settings"
)

func guaranteed(name, memory string) *corev1.Pod {
	r := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse(memory)}
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, Spec: corev1.PodSpec{
		Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: r, Limits: r}}},
	}}
}

// TestPlaces: two nodes of ten gibibytes, one of them with one reserved.
func TestPlaces(t *testing.T) {
	cfg := Config{
		Machine:  numa.Machine{Nodes: []numa.Node{{ID: 0, Memory: 10 << 30}, {ID: 1, Memory: 10 << 30}}},
		Reserved: map[int]corev1.ResourceList{0: {corev1.ResourceMemory: resource.MustParse("1Gi")}},
		Path:     filepath.Join(t.TempDir(), "state"), Log: slog.New(slog.DiscardHandler),
	}
	m := New(cfg)
	place := func(policy string, p *corev1.Pod) error {
		return numa.Placer{Policy: numa.Policy{Name: policy, All: []int{0, 1}}, Providers: []numa.Provider{m}}.Place(t.Context(), p)
	}
	for _, step := range []struct {
		name, memory string
		want         []int
	}{
		{"one", "6Gi", []int{0}}, {"two", "6Gi", []int{1}}, {"three", "3Gi", []int{0}}, {"four", "3Gi", []int{1}},
	} {
		if err := place(numa.Restricted, guaranteed(step.name, step.memory)); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if got := m.Nodes(step.name, "c"); !slices.Equal(got, step.want) {
			t.Errorf("%s is on %v, want %v", step.name, got, step.want)
		}
	}
	if err := place(numa.None, guaranteed("wide", "2Gi")); err == nil || !strings.Contains(err.Error(), "no NUMA nodes with enough memory") {
		t.Errorf("nodes that serve single containers serve a group too: %v", err)
	}
	m = New(cfg)
	if got := m.Nodes("two", "c"); !slices.Equal(got, []int{1}) {
		t.Errorf("after a restart two is on %v", got)
	}
	m.Keep(map[string]bool{})
	if err := place(numa.None, guaranteed("wide", "15Gi")); err != nil {
		t.Fatal(err)
	}
	if got := m.Nodes("wide", "c"); !slices.Equal(got, []int{0, 1}) {
		t.Errorf("fifteen gibibytes are on %v", got)
	}
	if err := place(numa.Single, guaranteed("narrow", "1Gi")); err == nil {
		t.Error("a node of a group serves a single container")
	}
	burstable := guaranteed("burstable", "1Gi")
	burstable.Spec.Containers[0].Resources.Limits = nil
	if err := place(numa.Single, burstable); err != nil || len(m.Nodes("burstable", "c")) != 0 {
		t.Errorf("a burstable pod is bound to %v: %v", m.Nodes("burstable", "c"), err)
	}
}

func TestReservations(t *testing.T) {
	k := &settings.Kubelet{ReservedMemory: []kubeletv1beta1.MemoryReservation{{NumaNode: 0, Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}}}}
	if _, err := Reservations(k, corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}); err != nil {
		t.Error(err)
	}
	if _, err := Reservations(k, corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("2Gi")}); err == nil ||
		!strings.Contains(err.Error(), `the total amount "1Gi" of type "memory" is not equal to the value "2Gi"`) {
		t.Error(err)
	}
}
