package sim_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/client"
)

func (p *plane) makeDaemons(edit func(*appsv1.DaemonSet)) {
	p.Helper()
	labels := map[string]string{"app": "d"}
	ds := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "d"},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "a"}}},
			},
		},
	}
	edit(ds)
	if _, err := client.DaemonSets.Create(p.Context(), p.admin, ds); err != nil {
		p.Fatal(err)
	}
	p.settle()
}

func (p *plane) changeDaemons(edit func(*appsv1.DaemonSet)) {
	p.Helper()
	ds, err := client.DaemonSets.Get(p.Context(), p.admin, "default", "d")
	if err != nil {
		p.Fatal(err)
	}
	ds = ds.DeepCopy()
	edit(ds)
	if _, err := client.DaemonSets.Update(p.Context(), p.admin, ds); err != nil {
		p.Fatal(err)
	}
	p.settle()
}

func (p *plane) changeNode(name string, edit func(*corev1.Node)) {
	p.Helper()
	n, err := client.Nodes.Get(p.Context(), p.admin, "", name)
	if err != nil {
		p.Fatal(err)
	}
	n = n.DeepCopy()
	edit(n)
	if _, err := client.Nodes.Update(p.Context(), p.admin, n); err != nil {
		p.Fatal(err)
	}
	p.settle()
}

// expectDaemons compares the pods, as "n1:a+" for image a, ready, on node n1, and
// the status.
func (p *plane) expectDaemons(want string) {
	p.Helper()
	p.settle()
	var pods []string
	for _, pod := range p.list("default", "app=d") {
		text := ""
		if a := pod.Spec.Affinity; a != nil {
			text = a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchFields[0].Values[0] + ":"
		}
		text += pod.Spec.Containers[0].Image
		if len(pod.Status.Conditions) > 0 {
			text += "+"
		}
		pods = append(pods, text)
	}
	slices.Sort(pods)
	ds, err := client.DaemonSets.Get(p.Context(), p.admin, "default", "d")
	if err != nil {
		p.Fatal(err)
	}
	s := ds.Status
	got := fmt.Sprintf("%s; desired %d current %d ready %d updated %d available %d astray %d", strings.Join(pods, " "),
		s.DesiredNumberScheduled, s.CurrentNumberScheduled, s.NumberReady, s.UpdatedNumberScheduled, s.NumberAvailable, s.NumberMisscheduled)
	if s.ObservedGeneration != ds.Generation {
		got += "; STALE"
	}
	if got != want {
		p.Errorf("\n got %s\nwant %s", got, want)
	}
}

func TestDaemonSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.node("n1")
		p.node("n2")
		p.makeDaemons(func(*appsv1.DaemonSet) {})
		p.expectDaemons("n1:a n2:a; desired 2 current 2 ready 0 updated 2 available 0 astray 0")
		p.ready("default")
		p.expectDaemons("n1:a+ n2:a+; desired 2 current 2 ready 2 updated 2 available 2 astray 0")
		// An update takes one pod after the other.
		p.changeDaemons(func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = "b" })
		p.expectDaemons("n1:b n2:a+; desired 2 current 2 ready 1 updated 1 available 1 astray 0")
		// One that is gone back on touches only what has changed.
		p.changeDaemons(func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = "a" })
		p.ready("default")
		p.expectDaemons("n1:a+ n2:a+; desired 2 current 2 ready 2 updated 2 available 2 astray 0")
		revisions, _, err := client.ControllerRevisions.List(t.Context(), p.admin, "default", metav1.ListOptions{})
		if err != nil || len(revisions) != 2 || revisions[0].Revision+revisions[1].Revision != 5 {
			t.Errorf("%v, %d revisions", err, len(revisions))
		}
		// A new node gets a pod; a label that is asked for chooses.
		p.node("n3")
		p.expectDaemons("n1:a+ n2:a+ n3:a; desired 3 current 3 ready 2 updated 3 available 2 astray 0")
		p.changeDaemons(func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.NodeSelector = map[string]string{"disk": "fast"} })
		p.expectDaemons("; desired 0 current 0 ready 0 updated 0 available 0 astray 0")
		p.changeNode("n2", func(n *corev1.Node) { n.Labels = map[string]string{"disk": "fast"} })
		p.expectDaemons("n2:a; desired 1 current 1 ready 0 updated 1 available 0 astray 0")
		// A taint keeps pods from coming, or drives them away.
		p.changeNode("n2", func(n *corev1.Node) {
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "k", Effect: corev1.TaintEffectNoSchedule})
		})
		p.expectDaemons("n2:a; desired 0 current 0 ready 0 updated 0 available 0 astray 1")
		p.changeNode("n2", func(n *corev1.Node) {
			n.Spec.Taints = slices.DeleteFunc(n.Spec.Taints, func(taint corev1.Taint) bool { return taint.Key == "k" })
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "k", Effect: corev1.TaintEffectNoExecute})
		})
		p.expectDaemons("; desired 0 current 0 ready 0 updated 0 available 0 astray 0")
	})
}

func TestDaemonSetSurge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.node("n1")
		p.node("n2")
		one, none := intstr.FromInt32(1), intstr.FromInt32(0)
		p.makeDaemons(func(ds *appsv1.DaemonSet) {
			ds.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{MaxSurge: &one, MaxUnavailable: &none}
		})
		p.ready("default")
		p.changeDaemons(func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = "b" })
		p.expectDaemons("n1:a+ n1:b n2:a+; desired 2 current 2 ready 2 updated 0 available 2 astray 0")
		p.ready("default")
		p.expectDaemons("n1:b+ n2:a+ n2:b; desired 2 current 2 ready 2 updated 1 available 2 astray 0")
		p.ready("default")
		p.expectDaemons("n1:b+ n2:b+; desired 2 current 2 ready 2 updated 2 available 2 astray 0")
	})
}

// A pod that has failed is replaced, and again after a second, and two.
func TestDaemonSetReplacesFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.node("n1")
		p.makeDaemons(func(*appsv1.DaemonSet) {})
		seen := map[string]bool{}
		for range 4 {
			pod := p.list("default", "app=d")[0].DeepCopy()
			if seen[pod.Name] {
				t.Errorf("pod %s is still there", pod.Name)
			}
			seen[pod.Name] = true
			pod.Status.Phase = corev1.PodFailed
			if _, err := client.Pods.UpdateStatus(t.Context(), p.admin, pod); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
		}
	})
}
