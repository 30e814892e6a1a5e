package scheduler_test

import (
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/control/scheduler"
)

// shelf is a Storage of a transcript's lines:
//
//	class NAME [wait] [provisioner=P] [zone=Z]
//	claim NAME class=C size=1Gi [bound=VOLUME] [selected=NODE] [exclusive] [lost]
//	volume NAME class=C size=1Gi [at=K=V] [label=K=V] [driver=D]
//	limit NODE DRIVER N
//	space CLASS SIZE K=V
type shelf struct {
	scheduler.NoStorage
	claims     map[string]*corev1.PersistentVolumeClaim
	volumes    []*corev1.PersistentVolume
	classes    map[string]*storagev1.StorageClass
	nodes      map[string]*storagev1.CSINode
	capacities []*storagev1.CSIStorageCapacity
}

func newShelf() *shelf {
	return &shelf{claims: map[string]*corev1.PersistentVolumeClaim{}, classes: map[string]*storagev1.StorageClass{}, nodes: map[string]*storagev1.CSINode{}}
}

func (s *shelf) Claim(_, name string) *corev1.PersistentVolumeClaim { return s.claims[name] }
func (s *shelf) Volumes() []*corev1.PersistentVolume                { return s.volumes }
func (s *shelf) Class(name string) *storagev1.StorageClass          { return s.classes[name] }
func (s *shelf) CSINode(name string) *storagev1.CSINode             { return s.nodes[name] }
func (s *shelf) Capacities() []*storagev1.CSIStorageCapacity        { return s.capacities }

func (s *shelf) Volume(name string) *corev1.PersistentVolume {
	for _, v := range s.volumes {
		if v.Name == name {
			return v
		}
	}
	return nil
}

// CSIDriver tells its capacity when somebody has given any.
func (s *shelf) CSIDriver(name string) *storagev1.CSIDriver {
	tells := len(s.capacities) > 0
	return &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: storagev1.CSIDriverSpec{StorageCapacity: &tells}}
}

// read takes in one line; false when it is none of storage's.
func (s *shelf) read(t *testing.T, words []string) bool {
	switch words[0] {
	case "class":
		s.class(words[1:])
	case "claim":
		s.claim(words[1:])
	case "volume":
		s.volume(words[1:])
	case "limit":
		n, err := strconv.Atoi(words[3])
		if err != nil {
			t.Fatal(err)
		}
		count := int32(n)
		s.nodes[words[1]] = &storagev1.CSINode{Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{
			Name: words[2], Allocatable: &storagev1.VolumeNodeResources{Count: &count},
		}}}}
	case "space":
		size := resource.MustParse(words[2])
		k, v, _ := strings.Cut(words[3], "=")
		s.capacities = append(s.capacities, &storagev1.CSIStorageCapacity{
			StorageClassName: words[1], Capacity: &size, NodeTopology: &metav1.LabelSelector{MatchLabels: map[string]string{k: v}},
		})
	default:
		return false
	}
	return true
}

func (s *shelf) class(words []string) {
	c := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: words[0]}}
	for _, w := range words[1:] {
		switch k, v, _ := strings.Cut(w, "="); k {
		case "wait":
			wait := storagev1.VolumeBindingWaitForFirstConsumer
			c.VolumeBindingMode = &wait
		case "provisioner":
			c.Provisioner = v
		case "zone":
			c.AllowedTopologies = []corev1.TopologySelectorTerm{{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{
				{Key: corev1.LabelTopologyZone, Values: []string{v}},
			}}}
		}
	}
	s.classes[c.Name] = c
}

func (s *shelf) claim(words []string) {
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: words[0], UID: types.UID(words[0]), Annotations: map[string]string{}}}
	for _, w := range words[1:] {
		switch k, v, _ := strings.Cut(w, "="); k {
		case "class":
			c.Spec.StorageClassName = &v
		case "size":
			c.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(v)}
		case "bound":
			c.Spec.VolumeName = v
			c.Annotations["pv.kubernetes.io/bind-completed"] = "yes"
		case "selected":
			c.Annotations["volume.kubernetes.io/selected-node"] = v
		case "exclusive":
			c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
		case "lost":
			c.Status.Phase = corev1.ClaimLost
		}
	}
	s.claims[c.Name] = c
}

func (s *shelf) volume(words []string) {
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: words[0], Labels: map[string]string{}}}
	pv.Status.Phase = corev1.VolumeAvailable
	for _, w := range words[1:] {
		k, v, _ := strings.Cut(w, "=")
		key, value, _ := strings.Cut(v, "=")
		switch k {
		case "class":
			pv.Spec.StorageClassName = v
		case "size":
			pv.Spec.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(v)}
		case "label":
			pv.Labels[key] = value
		case "driver":
			pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: v, VolumeHandle: pv.Name}
		case "ebs":
			pv.Spec.AWSElasticBlockStore = &corev1.AWSElasticBlockStoreVolumeSource{VolumeID: v}
		case "at":
			pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: corev1.NodeSelectorOpIn, Values: []string{value}}},
			}}}}
		}
	}
	s.volumes = append(s.volumes, pv)
}
