package sim_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

func stateful(replicas int32) *appsv1.StatefulSet {
	labels := map[string]string{"app": "db"}
	return &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &replicas, ServiceName: "db", Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "a"}}},
			},
		},
	}
}

func (p *plane) makeSet(s *appsv1.StatefulSet) {
	p.Helper()
	if _, err := client.StatefulSets.Create(p.Context(), p.admin, s); err != nil {
		p.Fatal(err)
	}
	p.settle()
}

func (p *plane) changeSet(edit func(*appsv1.StatefulSet)) {
	p.Helper()
	s, err := client.StatefulSets.Get(p.Context(), p.admin, "default", "db")
	if err != nil {
		p.Fatal(err)
	}
	s = s.DeepCopy()
	edit(s)
	if _, err := client.StatefulSets.Update(p.Context(), p.admin, s); err != nil {
		p.Fatal(err)
	}
	p.settle()
}

// expectSet compares the pods, as "0a+" for number 0 of image a that is ready, and
// the status.
func (p *plane) expectSet(want string) {
	p.Helper()
	p.settle()
	var pods []string
	for _, pod := range p.list("default", "app=db") {
		text := strings.TrimPrefix(pod.Name, "db-") + pod.Spec.Containers[0].Image
		if len(pod.Status.Conditions) > 0 {
			text += "+"
		}
		pods = append(pods, text)
	}
	slices.Sort(pods)
	s, err := client.StatefulSets.Get(p.Context(), p.admin, "default", "db")
	if err != nil {
		p.Fatal(err)
	}
	st := s.Status
	got := fmt.Sprintf("%s; replicas %d ready %d current %d updated %d", strings.Join(pods, " "), st.Replicas, st.ReadyReplicas, st.CurrentReplicas, st.UpdatedReplicas)
	if st.CurrentRevision == st.UpdateRevision {
		got += "; done"
	}
	if st.ObservedGeneration != s.Generation {
		got += "; STALE"
	}
	if got != want {
		p.Errorf("\n got %s\nwant %s", got, want)
	}
}

func TestStatefulSetInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.makeSet(stateful(3))
		p.expectSet("0a; replicas 1 ready 0 current 1 updated 1; done")
		p.ready("default")
		p.expectSet("0a+ 1a; replicas 2 ready 1 current 2 updated 2; done")
		p.ready("default")
		p.ready("default")
		p.expectSet("0a+ 1a+ 2a+; replicas 3 ready 3 current 3 updated 3; done")

		// A canary: only from the partition on.
		p.changeSet(func(s *appsv1.StatefulSet) {
			s.Spec.Template.Spec.Containers[0].Image = "b"
			s.Spec.UpdateStrategy.RollingUpdate.Partition = ptr(int32(2))
		})
		p.ready("default")
		p.expectSet("0a+ 1a+ 2b+; replicas 3 ready 3 current 2 updated 1")
		// One that is lost below the partition comes back as it was.
		if err := client.Pods.Delete(t.Context(), p.admin, "default", "db-1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		p.settle()
		p.ready("default")
		p.expectSet("0a+ 1a+ 2b+; replicas 3 ready 3 current 2 updated 1")
		p.changeSet(func(s *appsv1.StatefulSet) { s.Spec.UpdateStrategy.RollingUpdate.Partition = ptr(int32(0)) })
		p.expectSet("0a+ 1b 2b+; replicas 3 ready 2 current 1 updated 2")
		p.ready("default")
		p.ready("default")
		p.expectSet("0b+ 1b+ 2b+; replicas 3 ready 3 current 3 updated 3; done")

		p.changeSet(func(s *appsv1.StatefulSet) { *s.Spec.Replicas = 1 })
		p.expectSet("0b+; replicas 1 ready 1 current 1 updated 1; done")
		pod := p.list("default", "app=db")[0]
		if pod.Labels["apps.kubernetes.io/pod-index"] != "0" || pod.Labels["statefulset.kubernetes.io/pod-name"] != "db-0" || pod.Spec.Hostname != "db-0" {
			t.Errorf("labels %v, host name %q", pod.Labels, pod.Spec.Hostname)
		}
		// Back to the first template: its revision again, with a new number.
		p.changeSet(func(s *appsv1.StatefulSet) { s.Spec.Template.Spec.Containers[0].Image = "a" })
		p.ready("default")
		p.expectSet("0a+; replicas 1 ready 1 current 1 updated 1; done")
		revisions, _, err := client.ControllerRevisions.List(t.Context(), p.admin, "default", metav1.ListOptions{})
		if err != nil || len(revisions) != 2 || revisions[0].Revision+revisions[1].Revision != 5 {
			t.Errorf("%v, %d revisions %v", err, len(revisions), revisions)
		}
	})
}

func TestStatefulSetParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		s := stateful(3)
		s.Spec.PodManagementPolicy = appsv1.ParallelPodManagement
		s.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: 5}
		p.makeSet(s)
		p.expectSet("5a 6a 7a; replicas 3 ready 0 current 3 updated 3; done")
		p.ready("default")
		p.changeSet(func(s *appsv1.StatefulSet) {
			s.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType}
			s.Spec.Template.Spec.Containers[0].Image = "b"
		})
		p.expectSet("5a+ 6a+ 7a+; replicas 3 ready 3 current 3 updated 0")
		if err := client.Pods.Delete(t.Context(), p.admin, "default", "db-6", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		p.expectSet("5a+ 6b 7a+; replicas 3 ready 2 current 2 updated 1")
		p.changeSet(func(s *appsv1.StatefulSet) { *s.Spec.Replicas = 0 })
		p.expectSet("; replicas 0 ready 0 current 0 updated 0; done")
	})
}

// A pod that has ended is removed and made again, under its name.
func TestStatefulSetReplacesFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.makeSet(stateful(1))
		failed := p.list("default", "app=db")[0].DeepCopy()
		failed.Status.Phase = corev1.PodFailed
		if _, err := client.Pods.UpdateStatus(t.Context(), p.admin, failed); err != nil {
			t.Fatal(err)
		}
		p.expectSet("0a; replicas 1 ready 0 current 1 updated 1; done")
		if now := p.list("default", "app=db")[0]; now.UID == failed.UID || now.Status.Phase != corev1.PodPending {
			t.Errorf("pod %s is %s", now.UID, now.Status.Phase)
		}
	})
}

// Pods that a set leaves behind are the next one's of its name, as they are: nobody
// is started anew.
func TestStatefulSetLeavesOrphans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		names := func() (pods, revisions []string) {
			for _, pod := range p.list("default", "app=db") {
				pods = append(pods, string(pod.UID))
			}
			all, _, err := client.ControllerRevisions.List(t.Context(), p.admin, "default", metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range all {
				revisions = append(revisions, r.Name)
			}
			return pods, revisions
		}
		set := stateful(2)
		set.Spec.PodManagementPolicy = appsv1.ParallelPodManagement
		p.makeSet(set.DeepCopy())
		p.ready("default")
		pods, revisions := names()
		orphan := metav1.DeletePropagationOrphan
		if err := client.StatefulSets.Delete(t.Context(), p.admin, "default", "db", metav1.DeleteOptions{PropagationPolicy: &orphan}); err != nil {
			t.Fatal(err)
		}
		p.settle()
		p.makeSet(set)
		p.expectSet("0a+ 1a+; replicas 2 ready 2 current 2 updated 2; done")
		if nowPods, nowRevisions := names(); len(pods) != 2 || !slices.Equal(nowPods, pods) || !slices.Equal(nowRevisions, revisions) {
			t.Errorf("pods %v and revisions %v became %v and %v", pods, revisions, nowPods, nowRevisions)
		}
	})
}

// A set that waits for its pods to go makes no history again that is taken from it.
func TestStatefulSetGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		set := stateful(1)
		set.Spec.Template.Finalizers = []string{"test.example.com/held"}
		p.makeSet(set)
		p.ready("default")
		foreground := metav1.DeletePropagationForeground
		if err := client.StatefulSets.Delete(t.Context(), p.admin, "default", "db", metav1.DeleteOptions{PropagationPolicy: &foreground}); err != nil {
			t.Fatal(err)
		}
		p.settle()
		revisions, _, err := client.ControllerRevisions.List(t.Context(), p.admin, "default", metav1.ListOptions{})
		if pods := p.list("default", "app=db"); err != nil || len(revisions) > 0 || len(pods) != 1 || pods[0].DeletionTimestamp == nil {
			t.Errorf("%v; %d revisions left beside %d pods", err, len(revisions), len(pods))
		}
	})
}

func TestStatefulSetClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		s := stateful(2)
		s.Spec.PodManagementPolicy = appsv1.ParallelPodManagement
		s.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
			WhenScaled: appsv1.DeletePersistentVolumeClaimRetentionPolicyType, WhenDeleted: appsv1.RetainPersistentVolumeClaimRetentionPolicyType,
		}
		s.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{
			ObjectMeta: metav1.ObjectMeta{Name: "data"},
			Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
			},
		}}
		s.Spec.Template.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
		p.makeSet(s)
		p.ready("default")
		p.expectClaims("data-db-0 data-db-1")
		p.changeSet(func(s *appsv1.StatefulSet) { *s.Spec.Replicas = 1 })
		p.expectClaims("data-db-0")
		p.changeSet(func(s *appsv1.StatefulSet) { s.Spec.PersistentVolumeClaimRetentionPolicy.WhenDeleted = "Delete" })
		p.expectClaims("data-db-0<StatefulSet")
		if err := client.StatefulSets.Delete(t.Context(), p.admin, "default", "db", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		p.settle()
		p.expectClaims("")
	})
}

func (p *plane) expectClaims(want string) {
	p.Helper()
	claims, _, err := client.PersistentVolumeClaims.List(p.Context(), p.admin, "default", metav1.ListOptions{})
	if err != nil {
		p.Fatal(err)
	}
	var got []string
	for _, c := range claims {
		if c.DeletionTimestamp != nil && slices.Contains(c.Finalizers, "kubernetes.io/pvc-protection") {
			continue // its protection is somebody else's promise
		}
		text := c.Name
		for _, ref := range c.OwnerReferences {
			text += "<" + ref.Kind
		}
		got = append(got, text)
	}
	slices.Sort(got)
	if strings.Join(got, " ") != want {
		p.Errorf("claims %v, want %q", got, want)
	}
}
