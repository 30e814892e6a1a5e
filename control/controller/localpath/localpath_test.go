package localpath

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func plain() *claim {
	return &claim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "../..", Name: "../../etc", UID: "1", Annotations: map[string]string{selectedNode: "n"}},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
}

func place() *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Annotations: map[string]string{annDirectory: "/data/claims"}}}
}

// What a claim asks for and can't have is said; whatever it is called, its
// directory is where the node makes them.
func TestPlan(t *testing.T) {
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "c"}, MountOptions: []string{"noatime"}}
	for _, c := range []struct {
		what      string
		edit      func(p *claim, n *corev1.Node)
		want      string
		elsewhere bool
	}{
		{"nothing in particular", func(*claim, *corev1.Node) {}, "", false},
		{"many writers", func(p *claim, _ *corev1.Node) { p.Spec.AccessModes[0] = corev1.ReadWriteMany }, "not ReadWriteMany", false},
		{"many readers", func(p *claim, _ *corev1.Node) { p.Spec.AccessModes[0] = corev1.ReadOnlyMany }, "not ReadOnlyMany", false},
		{"one pod", func(p *claim, _ *corev1.Node) { p.Spec.AccessModes[0] = corev1.ReadWriteOncePod }, "", false},
		{"a disk", func(p *claim, _ *corev1.Node) { p.Spec.VolumeMode = new(corev1.PersistentVolumeBlock) }, "not Block", false},
		{"a selector", func(p *claim, _ *corev1.Node) { p.Spec.Selector = &metav1.LabelSelector{} }, "Selector", false},
		{"a copy", func(p *claim, _ *corev1.Node) { p.Spec.DataSourceRef = &corev1.TypedObjectReference{} }, "begins empty", false},
		{"no node", func(p *claim, _ *corev1.Node) { p.Annotations = nil }, "WaitForFirstConsumer", false},
		{"a node of another kubelet", func(_ *claim, n *corev1.Node) { n.Annotations = nil }, "makes no directories", true},
		{"a node that lies", func(_ *claim, n *corev1.Node) { n.Annotations[annDirectory] = "claims" }, "makes no directories", true},
	} {
		p, n := plain(), place()
		c.edit(p, n)
		v, err := plan(p, class, n)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, errNode) != c.elsewhere {
				t.Errorf("%s: %v, want %q", c.what, err, c.want)
			}
			continue
		}
		if err != nil || v.Spec.Local.Path != "/data/claims/pvc-1" || v.Name != "pvc-1" || v.Spec.MountOptions[0] != "noatime" ||
			v.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || v.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchFields[0].Values[0] != "n" {
			t.Errorf("%s: %+v, %v", c.what, v, err)
		}
	}
	if _, err := plan(plain(), class, nil); !errors.Is(err, errNode) {
		t.Errorf("a node that is not there: %v", err)
	}
}

// Data goes only when its volume is released, and its policy says so.
func TestJudge(t *testing.T) {
	now := metav1.Now()
	for _, c := range []struct {
		phase   corev1.PersistentVolumePhase
		policy  corev1.PersistentVolumeReclaimPolicy
		deleted bool
		want    fate
	}{
		{corev1.VolumeBound, corev1.PersistentVolumeReclaimDelete, false, stays},
		{corev1.VolumeBound, corev1.PersistentVolumeReclaimDelete, true, stays},
		{corev1.VolumePending, corev1.PersistentVolumeReclaimDelete, true, stays},
		{"", corev1.PersistentVolumeReclaimDelete, false, stays},
		{corev1.VolumeAvailable, corev1.PersistentVolumeReclaimDelete, false, stays},
		{corev1.VolumeReleased, corev1.PersistentVolumeReclaimDelete, false, doomed},
		{corev1.VolumeReleased, corev1.PersistentVolumeReclaimDelete, true, doomed},
		{corev1.VolumeReleased, corev1.PersistentVolumeReclaimRetain, false, stays},
		{corev1.VolumeReleased, corev1.PersistentVolumeReclaimRetain, true, freed},
	} {
		v := &volume{Spec: corev1.PersistentVolumeSpec{PersistentVolumeReclaimPolicy: c.policy}, Status: corev1.PersistentVolumeStatus{Phase: c.phase}}
		if c.deleted {
			v.DeletionTimestamp = &now
		}
		if got := judge(v); got != c.want {
			t.Errorf("%s, %s, deleted %t: %d, want %d", c.phase, c.policy, c.deleted, got, c.want)
		}
	}
}
