package admit

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/target"
)

// strict is an account whose pods may use one secret, and pull with another.
func strict(enforce string) objects {
	return objects{"serviceaccounts x/strict": &corev1.ServiceAccount{
		ObjectMeta:       metav1.ObjectMeta{Namespace: "x", Name: "strict", Annotations: map[string]string{enforceMountable: enforce}},
		Secrets:          []corev1.ObjectReference{{Name: "own"}},
		ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}},
	}}
}

func from(secret string) []corev1.EnvVar {
	return []corev1.EnvVar{{Name: "E", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: secret}, Key: "k"}}}}
}

func all(secret string) []corev1.EnvFromSource {
	return []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: secret}}}}
}

// An account that says so keeps its pods to the secrets that it lists.
func TestMountableSecrets(t *testing.T) {
	const tail = " is not allowed because service account strict does not reference that "
	for name, c := range map[string]struct {
		change func(*corev1.PodSpec)
		want   string
	}{
		"own volume": {func(s *corev1.PodSpec) { s.Volumes = secretVolume("own") }, ""},
		"volume":     {func(s *corev1.PodSpec) { s.Volumes = secretVolume("other") }, `volume with secret.secretName="other"` + tail + "secret"},
		"own env":    {func(s *corev1.PodSpec) { s.Containers[0].Env = from("own") }, ""},
		"env":        {func(s *corev1.PodSpec) { s.Containers[0].Env = from("other") }, `container c with envVar E referencing secret.secretName="other"` + tail + "secret"},
		"all":        {func(s *corev1.PodSpec) { s.Containers[0].EnvFrom = all("other") }, `container c with envFrom referencing secret.secretName="other"` + tail + "secret"},
		"init": {func(s *corev1.PodSpec) { s.InitContainers = []corev1.Container{{Name: "i", Env: from("other")}} },
			`init container i with envVar E referencing secret.secretName="other"` + tail + "secret"},
		"pull": {func(s *corev1.PodSpec) { s.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "other"}} },
			`imagePullSecrets[0].name="other"` + tail + "imagePullSecret"},
	} {
		p := pod(c.change)
		p.Spec.ServiceAccountName = "strict"
		if err := create(strict("true"), p); c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		p = pod(c.change)
		p.Spec.ServiceAccountName = "strict"
		if err := create(strict("false"), p); err != nil {
			t.Errorf("%s, not enforced: %v", name, err)
		}
	}
}

func secretVolume(name string) []corev1.Volume {
	return []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name}}}}
}

// A container that joins later is held to the same.
func TestMountableLater(t *testing.T) {
	p := pod(func(s *corev1.PodSpec) {
		s.ServiceAccountName = "strict"
		s.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e", EnvFrom: all("other")}}}
	})
	a := attrs(resource.OpUpdate, "pods", "x", "p", p, pod(nil))
	a.Target.Subresource = "ephemeralcontainers"
	err := (serviceAccounts{objects: strict("true")}).Validate(context.Background(), a)
	if err == nil || !strings.HasPrefix(err.Error(), `ephemeral container e with envFrom referencing secret.secretName="other"`) {
		t.Errorf("with another secret: %v", err)
	}
}

// The classes without which a cluster dies stay; others go.
func TestSystemClassesStay(t *testing.T) {
	for name, stays := range map[string]bool{"system-node-critical": true, "system-cluster-critical": true, "mine": false} {
		a := attrs(resource.OpDelete, "", "", "", nil, nil)
		a.Target = target.Of(schedulingv1.SchemeGroupVersion.WithResource("priorityclasses"), "").Object(name)
		err := admit(chain(objects{}), a)
		if (err != nil && strings.Contains(err.Error(), "this is a system priority class and cannot be deleted")) != stays {
			t.Errorf("delete %s: %v", name, err)
		}
	}
}
