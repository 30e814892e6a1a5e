package sim_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// rangeReady is what a range's condition says, and "gone" when there is no such range.
func (p *plane) rangeReady(name string) string {
	p.Helper()
	r, err := client.ServiceCIDRs.Get(p.Context(), p.admin, "", name)
	if apierrors.IsNotFound(err) {
		return "gone"
	}
	if err != nil {
		p.Fatal(err)
	}
	if len(r.Status.Conditions) == 0 {
		return "?"
	}
	c := r.Status.Conditions[0]
	return fmt.Sprintf("%s=%s %s", c.Type, c.Status, c.Reason)
}

func plain(name, ip string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ServiceSpec{ClusterIP: ip, Ports: []corev1.ServicePort{{Port: 80}}}}
}

// A service can have an address of a range that was added, which then stays until
// the service has gone.
func TestServiceRanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		if got := p.rangeReady("kubernetes"); got != "Ready=True " {
			t.Errorf("the default range: %s", got)
		}
		_, err := client.Services.Create(t.Context(), p.admin, plain("early", "10.200.0.9"))
		if err == nil || !strings.Contains(err.Error(), "failed to allocate IP 10.200.0.9: the provided network does not match the current range") {
			t.Errorf("an address of no range: %v", err)
		}
		added := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "more"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.200.0.0/24"}}}
		if _, err := client.ServiceCIDRs.Create(t.Context(), p.admin, added); err != nil {
			t.Fatal(err)
		}
		p.settle()
		if _, err := client.Services.Create(t.Context(), p.admin, plain("late", "10.200.0.9")); err != nil {
			t.Fatal(err)
		}
		record, err := client.IPAddresses.Get(t.Context(), p.admin, "", "10.200.0.9")
		if err != nil || *record.Spec.ParentRef != (networkingv1.ParentReference{Resource: "services", Namespace: "default", Name: "late"}) {
			t.Errorf("the record: %v, %v", record, err)
		}
		if err := client.ServiceCIDRs.Delete(t.Context(), p.admin, "", "more", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := p.rangeReady("more"); got != "Ready=False Terminating" {
			t.Errorf("a range in use: %s", got)
		}
		if err := client.Services.Delete(t.Context(), p.admin, "default", "late", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := client.IPAddresses.Get(t.Context(), p.admin, "", "10.200.0.9"); !apierrors.IsNotFound(err) {
			t.Errorf("the record outlives its service: %v", err)
		}
		time.Sleep(time.Minute)
		if got := p.rangeReady("more"); got != "gone" {
			t.Errorf("a range that nobody uses: %s", got)
		}
	})
}

// Services made at once, and refused, leave one record for each address in use.
func TestServiceAddressesAreRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() {
				s := plain(fmt.Sprintf("s%d", i%40), "") // some names are taken
				if i%5 == 0 {
					s.Spec.Ports[0].Port = 0 // and some services are invalid
				}
				_, _ = client.Services.Create(t.Context(), p.admin, s)
			})
		}
		wg.Wait()
		p.settle()
		services, _, err := client.Services.List(t.Context(), p.admin, "", metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		records, _, err := client.IPAddresses.List(t.Context(), p.admin, "", metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		whose := map[string]string{}
		for _, r := range records {
			whose[r.Name] = r.Spec.ParentRef.Name
		}
		for _, s := range services {
			if whose[s.Spec.ClusterIP] != s.Name {
				t.Errorf("%s of service %s is recorded as %q's", s.Spec.ClusterIP, s.Name, whose[s.Spec.ClusterIP])
			}
		}
		if len(services) < 30 || len(records) != len(services) {
			t.Errorf("%d services, %d records", len(services), len(records))
		}
	})
}

func TestClaimInUseStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.node("n")
		claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "data"},
			Spec: corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources: corev1.VolumeResourceRequirements{Requests: amounts("storage", "1Gi")}}}
		if _, err := client.PersistentVolumeClaims.Create(t.Context(), p.admin, claim); err != nil {
			t.Fatal(err)
		}
		pod := worker("user", nil, func(s *corev1.PodSpec) {
			s.NodeName = "n"
			s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
		})
		if _, err := client.Pods.Create(t.Context(), p.admin, pod); err != nil {
			t.Fatal(err)
		}
		p.settle()
		if err := client.PersistentVolumeClaims.Delete(t.Context(), p.admin, "default", "data", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		p.settle()
		kept, err := client.PersistentVolumeClaims.Get(t.Context(), p.admin, "default", "data")
		if err != nil || kept.DeletionTimestamp == nil {
			t.Fatalf("a claim in use: %v, %v", kept, err)
		}
		none := int64(0)
		if err := client.Pods.Delete(t.Context(), p.admin, "default", "user", metav1.DeleteOptions{GracePeriodSeconds: &none}); err != nil {
			t.Fatal(err)
		}
		p.settle()
		if _, err := client.PersistentVolumeClaims.Get(t.Context(), p.admin, "default", "data"); !apierrors.IsNotFound(err) {
			t.Errorf("a claim that nobody uses: %v", err)
		}
	})
}

func TestClaimsGrowByTheirClass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		yes, class := true, "grows"
		sc := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: class}, Provisioner: "example.com/p", AllowVolumeExpansion: &yes}
		if _, err := client.StorageClasses.Create(t.Context(), p.admin, sc); err != nil {
			t.Fatal(err)
		}
		claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "data"},
			Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: &class, VolumeName: "v", AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources: corev1.VolumeResourceRequirements{Requests: amounts("storage", "1Gi")}}}
		if _, err := client.PersistentVolumeClaims.Create(t.Context(), p.admin, claim); err != nil {
			t.Fatal(err)
		}
		grow := func(to string) error {
			now, err := client.PersistentVolumeClaims.Get(t.Context(), p.admin, "default", "data")
			if err != nil {
				return err
			}
			next := now.DeepCopy()
			next.Spec.Resources.Requests = amounts("storage", to)
			_, err = client.PersistentVolumeClaims.Update(t.Context(), p.admin, next)
			return err
		}
		if err := grow("2Gi"); err == nil {
			t.Error("a claim grew before it was bound")
		}
		p.volume("v", "1Gi", class, corev1.PersistentVolumeReclaimRetain)
		p.settle()
		if err := grow("2Gi"); err != nil {
			t.Errorf("grow: %v", err)
		}
		if err := grow("1Gi"); err == nil || !strings.Contains(err.Error(), "field can not be less than status.capacity") {
			t.Errorf("shrink to what there is: %v", err)
		}
	})
}

// Pods are judged by the labels of their namespace.
func TestPodSecurityByLabels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "strict", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "baseline"}}}
		if _, err := client.Namespaces.Create(t.Context(), p.admin, ns); err != nil {
			t.Fatal(err)
		}
		p.settle()
		host := worker("host", nil, func(s *corev1.PodSpec) { s.HostNetwork = true })
		if _, err := client.Pods.Create(t.Context(), p.admin, host); err != nil {
			t.Errorf("where nothing is said: %v", err)
		}
		host.Namespace = "strict"
		_, err := client.Pods.Create(t.Context(), p.admin, host)
		want := `pods "host" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)`
		if err == nil || err.Error() != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
		good := worker("good", nil, nil)
		good.Namespace = "strict"
		if _, err := client.Pods.Create(t.Context(), p.admin, good); err != nil {
			t.Error(err)
		}
		wrong := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "wrong", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "lax"}}}
		if _, err := client.Namespaces.Create(t.Context(), p.admin, wrong); !apierrors.IsInvalid(err) {
			t.Errorf("a level that does not exist: %v", err)
		}
	})
}
