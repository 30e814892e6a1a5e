package sim_test

import (
	"slices"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

func (p *plane) volume(name, size, class string, policy corev1.PersistentVolumeReclaimPolicy) *corev1.PersistentVolume {
	p.Helper()
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}, StorageClassName: class,
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, PersistentVolumeReclaimPolicy: policy,
		PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/data"}},
	}}
	made, err := client.PersistentVolumes.Create(p.Context(), p.admin, v)
	if err != nil {
		p.Fatal(err)
	}
	return made
}

func (p *plane) claim(name, size string, class *string) {
	p.Helper()
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: class,
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}},
	}}
	if _, err := client.PersistentVolumeClaims.Create(p.Context(), p.admin, c); err != nil {
		p.Fatal(err)
	}
	p.settle()
}

// expectClaim: the claim's phase and volume, and the phase of that.
func (p *plane) expectClaim(name, want string) {
	p.Helper()
	p.settle()
	c, err := client.PersistentVolumeClaims.Get(p.Context(), p.admin, "default", name)
	if err != nil {
		p.Fatal(err)
	}
	got := string(c.Status.Phase) + " " + c.Spec.VolumeName
	if v, err := client.PersistentVolumes.Get(p.Context(), p.admin, "", c.Spec.VolumeName); err == nil {
		got += " " + string(v.Status.Phase)
	}
	if got != want {
		p.Errorf("claim %s: %q, want %q", name, got, want)
	}
}

func (p *plane) expectVolume(name string, want corev1.PersistentVolumePhase) {
	p.Helper()
	p.settle()
	if v, err := client.PersistentVolumes.Get(p.Context(), p.admin, "", name); err != nil || v.Status.Phase != want {
		p.Errorf("volume %s: %v, %s, want %s", name, err, v.Status.Phase, want)
	}
}

// reasons are those of the events about an object.
func (p *plane) reasons(name string) (all []string) {
	p.Helper()
	events, _, err := client.Events.List(p.Context(), p.admin, "default", metav1.ListOptions{FieldSelector: "involvedObject.name=" + name})
	if err != nil {
		p.Fatal(err)
	}
	for _, e := range events {
		all = append(all, e.Reason)
	}
	return all
}

// A claim gets the smallest volume that fits, and keeps it; when it goes, the
// volume is released, and nobody else gets it.
func TestClaimIsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		none := ""
		p.volume("big", "10Gi", "", corev1.PersistentVolumeReclaimRetain)
		p.volume("small", "5Gi", "", corev1.PersistentVolumeReclaimRetain)
		p.expectVolume("big", corev1.VolumeAvailable)
		p.claim("a", "3Gi", &none)
		p.expectClaim("a", "Bound small Bound")
		p.claim("b", "6Gi", &none)
		p.expectClaim("b", "Bound big Bound")
		p.claim("c", "1Gi", &none)
		p.expectClaim("c", "Pending ")
		if r := p.reasons("c"); !slices.Contains(r, "FailedBinding") {
			t.Errorf("events %v", r)
		}
		if err := client.PersistentVolumeClaims.Delete(t.Context(), p.admin, "default", "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		p.expectVolume("small", corev1.VolumeReleased)
		p.expectClaim("c", "Pending ")
		p.volume("new", "1Gi", "", corev1.PersistentVolumeReclaimDelete)
		p.expectClaim("c", "Bound new Bound")
		if err := client.PersistentVolumes.Delete(t.Context(), p.admin, "", "big", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		p.expectClaim("b", "Bound big Bound") // it is protected
		if err := client.PersistentVolumeClaims.Delete(t.Context(), p.admin, "default", "c", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		p.expectVolume("new", corev1.VolumeFailed) // nobody here deletes what nobody provisioned
	})
}

// Where the class waits, nothing is bound before a pod has a node; then the
// provisioner is asked, and what it makes is bound.
func TestClaimWaitsAndIsProvisioned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		ctx := t.Context()
		wait := storagev1.VolumeBindingWaitForFirstConsumer
		class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "late", Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}},
			Provisioner: "disk.example.com", VolumeBindingMode: &wait}
		p.claim("early", "1Gi", nil)
		p.expectClaim("early", "Pending ")
		if _, err := client.StorageClasses.Create(ctx, p.admin, class); err != nil {
			t.Fatal(err)
		}
		p.settle()
		c, err := client.PersistentVolumeClaims.Get(ctx, p.admin, "default", "early")
		if err != nil || c.Spec.StorageClassName == nil || *c.Spec.StorageClassName != "late" {
			t.Fatalf("%v, the default class came late: %v", err, c.Spec.StorageClassName)
		}
		if r := p.reasons("early"); !slices.Contains(r, "WaitForFirstConsumer") {
			t.Errorf("events %v", r)
		}
		c = c.DeepCopy()
		if c.Annotations == nil {
			c.Annotations = map[string]string{}
		}
		c.Annotations["volume.kubernetes.io/selected-node"] = "n1" // the scheduler's word
		if _, err = client.PersistentVolumeClaims.Update(ctx, p.admin, c); err != nil {
			t.Fatal(err)
		}
		p.settle()
		if c, err = client.PersistentVolumeClaims.Get(ctx, p.admin, "default", "early"); err != nil || c.Annotations["volume.kubernetes.io/storage-provisioner"] != "disk.example.com" {
			t.Fatalf("%v, annotations %v", err, c.Annotations)
		}
		v := p.volume("pvc-1", "2Gi", "late", corev1.PersistentVolumeReclaimDelete).DeepCopy()
		v.Annotations = map[string]string{"pv.kubernetes.io/provisioned-by": "disk.example.com"}
		ref := client.Reference(c)
		v.Spec.ClaimRef = &ref
		for range 3 { // the controller writes it, too
			if _, err = client.PersistentVolumes.Update(ctx, p.admin, v); err == nil {
				break
			}
			live, _ := client.PersistentVolumes.Get(ctx, p.admin, "", "pvc-1")
			v.ResourceVersion = live.ResourceVersion
		}
		p.expectClaim("early", "Bound pvc-1 Bound")
		if c, err = client.PersistentVolumeClaims.Get(ctx, p.admin, "default", "early"); err != nil || c.Status.Capacity.Storage().String() != "2Gi" {
			t.Errorf("%v, capacity %v", err, c.Status.Capacity)
		}
		if err := client.PersistentVolumeClaims.Delete(ctx, p.admin, "default", "early", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		p.expectVolume("pvc-1", corev1.VolumeReleased) // its provisioner deletes it
	})
}
