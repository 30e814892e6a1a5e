package sim_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/control/controller/localpath"
)

// localPath runs the controller of the built-in storage class until the returned
// function is called.
func (p *plane) localPath() (stop func()) {
	p.Helper()
	log := slog.New(slog.NewTextHandler(p.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	mirrors := controller.NewMirrors(p.component(""), log)
	c, err := localpath.New(controller.Config{Transport: p.component, Mirrors: mirrors, Log: log})
	if err != nil {
		p.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = mirrors.Run(ctx) })
	running.Go(func() { _ = c.Run(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	p.Cleanup(stop)
	p.settle()
	return stop
}

// note writes an annotation of a node, as the node itself would.
func (p *plane) note(node, key, value string) {
	p.Helper()
	p.alterNode(node, func(n *corev1.Node) {
		if n.Annotations == nil {
			n.Annotations = map[string]string{}
		}
		n.Annotations["local-path.sampan.dev/"+key] = value
	})
	p.settle()
}

func (p *plane) asked(node string) string {
	p.Helper()
	p.settle()
	return must[*corev1.Node](p)(client.Nodes.Get(p.Context(), p.admin, "", node)).Annotations["local-path.sampan.dev/remove"]
}

// left are the volumes, with their phases.
func (p *plane) left() string {
	p.Helper()
	p.settle()
	all, _, err := client.PersistentVolumes.List(p.Context(), p.admin, "", metav1.ListOptions{})
	if err != nil {
		p.Fatal(err)
	}
	var words []string
	for _, v := range all {
		words = append(words, v.Spec.ClaimRef.Name+" "+string(v.Status.Phase))
	}
	return strings.Join(words, ", ")
}

// A stateful set's claims get volumes where its pods go, without anybody having
// made a class or a volume; they go with the claims, once the node has removed
// their directories.
func TestLocalPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		for _, n := range []string{"n1", "n2"} {
			p.addNode(n)
			p.note(n, "directory", "/data/claims")
		}
		p.schedule()
		p.localPath()
		set := stateful(2)
		set.Spec.PodManagementPolicy = "Parallel"
		set.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("3Gi")}},
		}}}
		p.makeSet(set)
		p.settle()
		names := map[string]string{} // volume by node
		for _, n := range []string{"0", "1"} {
			claim, pod := p.pvc("data-db-"+n), p.pod("db-"+n)
			v := must[*corev1.PersistentVolume](p)(client.PersistentVolumes.Get(p.Context(), p.admin, "", "pvc-"+string(claim.UID)))
			terms := v.Spec.NodeAffinity.Required.NodeSelectorTerms
			size := v.Spec.Capacity[corev1.ResourceStorage]
			if claim.Status.Phase != corev1.ClaimBound || claim.Spec.VolumeName != v.Name || pod.Spec.NodeName == "" ||
				terms[0].MatchExpressions[0].Values[0] != pod.Spec.NodeName || v.Spec.Local.Path != "/data/claims/"+v.Name ||
				v.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || size.String() != "3Gi" || *claim.Spec.StorageClassName != localpath.ClassName {
				t.Fatalf("claim %+v\nvolume %+v\npod on %q", claim, v, pod.Spec.NodeName)
			}
			names[pod.Spec.NodeName] = v.Name
		}
		if len(names) != 2 {
			t.Fatalf("volumes by node: %v", names)
		}
		// What a node says of a volume that is in use changes nothing.
		p.note("n1", "removed", names["n1"])
		if got := p.left(); got != "data-db-0 Bound, data-db-1 Bound" && got != "data-db-1 Bound, data-db-0 Bound" {
			t.Fatalf("volumes: %s", got)
		}
		p.note("n1", "removed", "")
		p.releaseBoth(names)
	})
}

// releaseBoth deletes the claims, and plays the nodes.
func (p *plane) releaseBoth(names map[string]string) {
	p.Helper()
	if err := client.StatefulSets.Delete(p.Context(), p.admin, "default", "db", metav1.DeleteOptions{}); err != nil {
		p.Fatal(err)
	}
	p.settle()
	for _, n := range []string{"0", "1"} {
		p.gone("db-" + n)
		if err := client.PersistentVolumeClaims.Delete(p.Context(), p.admin, "default", "data-db-"+n, metav1.DeleteOptions{}); err != nil {
			p.Fatal(err)
		}
	}
	for node, volume := range names {
		if got := p.asked(node); got != volume {
			p.Fatalf("node %s is asked to remove %q, want %q", node, got, volume)
		}
		// Nobody else's word counts, nor does deleting the object go before the data.
		_ = client.PersistentVolumes.Delete(p.Context(), p.admin, "", volume, metav1.DeleteOptions{})
		p.settle()
		if _, err := client.PersistentVolumes.Get(p.Context(), p.admin, "", volume); err != nil {
			p.Fatalf("the volume went before its directory: %v", err)
		}
		p.note(node, "removed", volume)
		if got := p.asked(node); got != "" {
			p.Errorf("node %s is still asked to remove %q", node, got)
		}
	}
	if got := p.left(); got != "" {
		p.Errorf("left: %s", got)
	}
}

// The class is made where there is none, and is its owner's then; what a directory
// can't be is refused, and Retain is heeded.
func TestLocalPathRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.addNode("n1")
		p.note("n1", "directory", "/data/claims")
		p.schedule()
		stop := p.localPath()
		class := must[*storagev1.StorageClass](p)(client.StorageClasses.Get(t.Context(), p.admin, "", localpath.ClassName)).DeepCopy()
		class.Annotations = nil
		must[*storagev1.StorageClass](p)(client.StorageClasses.Update(t.Context(), p.admin, class))
		stop()
		p.localPath()
		if got := must[*storagev1.StorageClass](p)(client.StorageClasses.Get(t.Context(), p.admin, "", localpath.ClassName)); len(got.Annotations) > 0 {
			t.Errorf("the class was changed back: %v", got.Annotations)
		}
		many := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "many"}, Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: new(localpath.ClassName), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		}}
		must[*corev1.PersistentVolumeClaim](p)(client.PersistentVolumeClaims.Create(t.Context(), p.admin, many))
		p.addPod("many", "100m", mounting("many"))
		p.settle()
		if got := p.left(); got != "" || p.pvc("many").Status.Phase != corev1.ClaimPending {
			t.Errorf("a directory of one node was made for all: %s", got)
		}

		p.lazyClass("kept", localpath.Provisioner)
		kept := must[*storagev1.StorageClass](p)(client.StorageClasses.Get(t.Context(), p.admin, "", "kept"))
		if err := client.StorageClasses.Delete(t.Context(), p.admin, "", "kept", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		kept = kept.DeepCopy()
		kept.UID, kept.ResourceVersion, kept.ReclaimPolicy = "", "", new(corev1.PersistentVolumeReclaimRetain)
		must[*storagev1.StorageClass](p)(client.StorageClasses.Create(t.Context(), p.admin, kept))
		p.lazyClaim("kept", "kept")
		p.addPod("kept", "100m", mounting("kept"))
		p.settle()
		name := p.pvc("kept").Spec.VolumeName
		p.gone("kept")
		if err := client.PersistentVolumeClaims.Delete(t.Context(), p.admin, "default", "kept", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := p.left(); got != "kept Released" || p.asked("n1") != "" {
			t.Errorf("left %q, asked to remove %q", got, p.asked("n1"))
		}
		if err := client.PersistentVolumes.Delete(t.Context(), p.admin, "", name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := p.left(); got != "" || p.asked("n1") != "" {
			t.Errorf("left %q, asked to remove %q", got, p.asked("n1"))
		}
	})
}
