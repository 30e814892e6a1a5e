package sim_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
)

const selectedNode = "volume.kubernetes.io/selected-node"

// lazyClass makes a class whose claims wait for their first pod.
func (p *plane) lazyClass(name, provisioner string) {
	p.Helper()
	wait := storagev1.VolumeBindingWaitForFirstConsumer
	must[*storagev1.StorageClass](p)(client.StorageClasses.Create(p.Context(), p.admin, &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: provisioner, VolumeBindingMode: &wait,
	}))
}

func (p *plane) lazyClaim(name, class string) {
	p.Helper()
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	c.Spec.StorageClassName = &class
	c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	c.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	must[*corev1.PersistentVolumeClaim](p)(client.PersistentVolumeClaims.Create(p.Context(), p.admin, c))
}

// localVolume makes a volume of one node.
func (p *plane) localVolume(name, class, node string, shape ...func(*corev1.PersistentVolume)) {
	p.Helper()
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}}
	v.Spec = corev1.PersistentVolumeSpec{
		Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}, StorageClassName: class,
		AccessModes:            []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/x"}},
		NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
		}}}},
	}
	for _, f := range shape {
		f(v)
	}
	must[*corev1.PersistentVolume](p)(client.PersistentVolumes.Create(p.Context(), p.admin, v))
}

func mounting(claim string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: claim, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
		}})
	}
}

func (p *plane) pvc(name string) *corev1.PersistentVolumeClaim {
	p.Helper()
	return must[*corev1.PersistentVolumeClaim](p)(client.PersistentVolumeClaims.Get(p.Context(), p.admin, "default", name))
}

// Pods go where their volumes are, each volume is had once, and the one too many
// waits for another volume.
func TestVolumesChooseNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.addNode("n1")
		p.addNode("n2")
		p.lazyClass("local", "kubernetes.io/no-provisioner")
		p.localVolume("v1", "local", "n1")
		p.localVolume("v2", "local", "n2")
		p.settle()
		p.schedule()
		for _, name := range []string{"a", "b", "c"} {
			p.lazyClaim(name, "local")
			p.addPod(name, "100m", mounting(name))
		}
		p.settle()
		p.settle()
		var nodes []string
		waiting := ""
		for _, name := range []string{"a", "b", "c"} {
			if n := p.pod(name).Spec.NodeName; n != "" {
				nodes = append(nodes, n)
				if c := p.pvc(name); c.Status.Phase != corev1.ClaimBound || "n"+c.Spec.VolumeName[1:] != n {
					t.Errorf("claim %s: %s of %s on %s", name, c.Status.Phase, c.Spec.VolumeName, n)
				}
			} else {
				waiting = name
			}
		}
		if len(nodes) != 2 || nodes[0] == nodes[1] {
			t.Fatalf("nodes %v: %s", nodes, whyNot(p.pod("c")))
		}
		p.localVolume("v3", "local", "n1")
		p.settle()
		p.settle()
		p.want(waiting, "n1")
	})
}

// A scheduler that is restarted while a volume is made goes on where the first was;
// when the provisioner gives up, another node is tried.
func TestRestartWhileProvisioning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.addNode("n1")
		p.lazyClass("made", "example.com/maker")
		p.lazyClaim("a", "made")
		p.addPod("a", "100m", mounting("a"))
		_, stop := p.schedule()
		p.settle()
		if at := p.pvc("a").Annotations[selectedNode]; at != "n1" {
			t.Fatalf("selected %q: %s", at, whyNot(p.pod("a")))
		}
		p.want("a", "")
		stop()
		p.addNode("n2")
		p.schedule()
		p.settle()
		if at := p.pvc("a").Annotations[selectedNode]; at != "n1" {
			t.Errorf("after the restart %q is selected", at)
		}
		// The provisioner cannot: it takes the node away; and the node is full now.
		p.addPod("fat", "4", func(pod *corev1.Pod) { pod.Spec.NodeName = "n1" })
		p.settle() // so that the node is known to be full
		c := p.pvc("a").DeepCopy()
		delete(c.Annotations, selectedNode)
		must[*corev1.PersistentVolumeClaim](p)(client.PersistentVolumeClaims.Update(p.Context(), p.admin, c))
		p.settle()
		p.settle()
		if at := p.pvc("a").Annotations[selectedNode]; at != "n2" {
			t.Fatalf("then %q is selected: %s", at, whyNot(p.pod("a")))
		}
		p.localVolume("v", "made", "n2", func(v *corev1.PersistentVolume) {
			v.Spec.ClaimRef = &corev1.ObjectReference{Kind: "PersistentVolumeClaim", Namespace: "default", Name: "a", UID: c.UID}
		})
		p.settle()
		p.settle()
		p.want("a", "n2")
	})
}

// rival gives a volume to somebody else in the moment in which it is first written.
type rival struct {
	client.Transport
	once  atomic.Bool
	steal func(volume *corev1.PersistentVolume)
}

func (r *rival) Update(ctx context.Context, at target.Target, obj runtime.Object, opts metav1.UpdateOptions) (runtime.Object, error) {
	if v, ok := obj.(*corev1.PersistentVolume); ok && r.once.CompareAndSwap(false, true) {
		r.steal(v)
	}
	return r.Transport.Update(ctx, at, obj, opts)
}

// Who loses the race for a volume tries again, with another.
func TestLostRaceForVolume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.addNode("n1")
		p.lazyClass("local", "kubernetes.io/no-provisioner")
		p.localVolume("v1", "local", "n1")
		p.localVolume("v2", "local", "n1")
		p.settle()
		lost := ""
		t1 := &rival{Transport: p.server.Local(identity.Identity{Name: "system:kube-scheduler", Groups: []string{identity.Authenticated}})}
		t1.steal = func(v *corev1.PersistentVolume) {
			lost = v.Name
			now, err := client.PersistentVolumes.Get(context.Background(), p.admin, "", v.Name)
			if err != nil {
				return
			}
			now = now.DeepCopy()
			now.Spec.ClaimRef = &corev1.ObjectReference{Kind: "PersistentVolumeClaim", Namespace: "default", Name: "stranger"}
			_, _ = client.PersistentVolumes.Update(context.Background(), p.admin, now)
		}
		p.scheduleVia(t1)
		p.lazyClaim("a", "local")
		p.addPod("a", "100m", mounting("a"))
		p.settle()
		p.settle()
		p.want("a", "n1")
		if v := p.pvc("a").Spec.VolumeName; lost == "" || v == lost || v == "" {
			t.Errorf("volume %q, lost %q", v, lost)
		}
	})
}
