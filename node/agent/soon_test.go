package agent

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// TestClaimBoundAMomentLater: a pod that comes while its claim's status is still to say
// that it is bound starts a moment later, and is warned of nothing. When it stays so, it is.
func TestClaimBoundAMomentLater(t *testing.T) {
	for name, settled := range map[string]time.Duration{"claim_soon": 300 * time.Millisecond, "claim_late": 4 * time.Second} {
		tell(t, name, func(s *story) {
			claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c", UID: "c"},
				Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "v"}, Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}}
			s.api.Seed(claim, &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "v"}, Spec: corev1.PersistentVolumeSpec{
				ClaimRef:               &corev1.ObjectReference{Namespace: "default", Name: "c", UID: "c"},
				PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: s.dir}}}})
			app := container("app", "app")
			app.VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
			p := pod("writer", app)
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}}
			s.create(p)
			s.pass(settled)
			s.say("> the claim's status says that it is bound")
			next := claim.DeepCopy()
			next.Status.Phase = corev1.ClaimBound
			if _, err := client.PersistentVolumeClaims.UpdateStatus(s.ctx, s.api, next); err != nil {
				t.Fatal(err)
			}
			s.pass(10 * time.Second)
		})
	}
}

// TestClaimsOfOthers: who has claims made for a pod says so in its status, perhaps when the
// pod runs already; the node leaves that as it is, also when it writes a status of its own.
func TestClaimsOfOthers(t *testing.T) {
	tell(t, "claims_of_others", func(s *story) {
		s.create(pod("user", container("app", "app")))
		s.pass(2 * time.Second)
		claim, share := "user-gpu-x", "gpu"
		next := s.get("user").DeepCopy()
		next.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: share, ResourceClaimName: &claim}}
		next.Status.ExtendedResourceClaimStatus = &corev1.PodExtendedResourceClaimStatus{ResourceClaimName: claim}
		next.Status.NodeAllocatableResourceClaimStatuses = []corev1.NodeAllocatableResourceClaimStatus{{ResourceClaimName: claim}}
		s.say("> claims are made for user")
		if _, err := client.Pods.UpdateStatus(s.ctx, s.api, next); err != nil {
			t.Fatal(err)
		}
		has := func() {
			got := &s.get("user").Status
			s.say("user: %d claims, extended %v, node allocatable %d", len(got.ResourceClaimStatuses), got.ExtendedResourceClaimStatus != nil, len(got.NodeAllocatableResourceClaimStatuses))
		}
		s.pass(2 * time.Second)
		has()
		s.engine.Crash("user", "app", 1)
		s.pass(2 * time.Second)
		has()
	})
}
