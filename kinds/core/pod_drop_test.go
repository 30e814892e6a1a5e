package core

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/kinds"
)

// unservedSpec uses every field that nothing here serves.
func unservedSpec() *corev1.PodSpec {
	user, mode, protocol, grpc := int64(5), int32(0o700), corev1.HTTPProtocol("H2C"), corev1.GRPCProbeMode("TLS")
	get := func() *corev1.HTTPGetAction { return &corev1.HTTPGetAction{Path: "/", Protocol: &protocol} }
	return &corev1.PodSpec{
		EvictionResponders: []corev1.EvictionResponder{{Name: "a"}},
		Containers: []corev1.Container{{
			Name:          "c",
			LivenessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 1, Mode: &grpc}}},
			StartupProbe:  &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: get()}},
			Lifecycle: &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{HTTPGet: get()},
				PreStop: &corev1.LifecycleHandler{HTTPGet: get()}},
			VolumeMounts: []corev1.VolumeMount{{Name: "v", BindMountOptions: []string{"noexec"}}},
		}},
		Volumes: []corev1.Volume{
			{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Mode: &mode}}},
			{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{DefaultUser: &user,
				Items: []corev1.KeyToPath{{Key: "a", User: &user}}}}},
			{Name: "p", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultUser: &user,
				Sources: []corev1.VolumeProjection{
					{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{User: &user}},
					{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "a", User: &user}}}},
				}}}},
		},
	}
}

// What nothing serves is gone from new pods, and stays where it was before.
func TestDropUnserved(t *testing.T) {
	spec := unservedSpec()
	DropUnserved(spec, nil)
	var found unserved
	found.note(spec)
	if found != (unserved{}) {
		t.Errorf("a new pod keeps %+v", found)
	}
	if spec.Containers[0].LivenessProbe.GRPC.Port != 1 || spec.Containers[0].Lifecycle.PreStop.HTTPGet.Path != "/" {
		t.Error("more than the fields was dropped")
	}
	spec = unservedSpec()
	DropUnserved(spec, unservedSpec())
	if !kinds.Same(spec, unservedSpec()) {
		t.Error("an update loses what the pod had")
	}
	spec = unservedSpec()
	DropUnserved(spec, &corev1.PodSpec{Volumes: unservedSpec().Volumes[:1]})
	found = unserved{}
	found.note(spec)
	if found != (unserved{dirMode: true}) {
		t.Errorf("an update of a pod that has a mode of a directory alone keeps %+v", found)
	}
}

// A claim is filled from claims and snapshots of its own namespace.
func TestSettleDataSources(t *testing.T) {
	group, other := "example.com", "elsewhere"
	none := &corev1.PersistentVolumeClaimSpec{}
	foreign := func() *corev1.PersistentVolumeClaimSpec {
		return &corev1.PersistentVolumeClaimSpec{DataSource: &corev1.TypedLocalObjectReference{APIGroup: &group, Kind: "X", Name: "a"}}
	}
	far := func() *corev1.PersistentVolumeClaimSpec {
		return &corev1.PersistentVolumeClaimSpec{DataSourceRef: &corev1.TypedObjectReference{APIGroup: &group, Kind: "X", Name: "a", Namespace: &other}}
	}
	for _, c := range []struct {
		name        string
		spec, old   *corev1.PersistentVolumeClaimSpec
		source, ref bool
	}{
		{"old spelling of something else", foreign(), none, false, false},
		{"the same, known before", foreign(), foreign(), true, true},
		{"another namespace", far(), none, false, false},
		{"the same, known before", far(), far(), false, true},
		{"a claim", &corev1.PersistentVolumeClaimSpec{DataSource: &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "a"}}, none, true, true},
	} {
		settleDataSources(c.spec, c.old)
		if (c.spec.DataSource != nil) != c.source || (c.spec.DataSourceRef != nil) != c.ref {
			t.Errorf("%s: %+v", c.name, c.spec)
		}
	}
}
