package quota

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/kinds"
)

// byStorageClass stands between the name of a storage class and what is capped
// of it.
const byStorageClass = ".storageclass.storage.k8s.io/"

func serviceMeter() Meter {
	return Meter{
		Resource: schema.GroupResource{Resource: "services"},
		fixed: []corev1.ResourceName{"count/services", corev1.ResourceServices,
			corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers},
		usage: serviceUsage,
	}
}

// serviceUsage counts node ports by what is intended: they are given out later.
func serviceUsage(obj runtime.Object, _ time.Time) corev1.ResourceList {
	svc, ok := obj.(*corev1.Service)
	if !ok {
		return nil
	}
	var ports, balancers int64
	switch svc.Spec.Type {
	case corev1.ServiceTypeNodePort:
		ports = int64(len(svc.Spec.Ports))
	case corev1.ServiceTypeLoadBalancer:
		balancers, ports = 1, int64(len(svc.Spec.Ports))
		if automatic := svc.Spec.AllocateLoadBalancerNodePorts; automatic != nil && !*automatic {
			ports = 0
			for _, p := range svc.Spec.Ports {
				if p.NodePort != 0 {
					ports++
				}
			}
		}
	}
	return corev1.ResourceList{"count/services": count(1), corev1.ResourceServices: count(1),
		corev1.ResourceServicesLoadBalancers: count(balancers), corev1.ResourceServicesNodePorts: count(ports)}
}

func claimMeter() Meter {
	return Meter{
		Resource: schema.GroupResource{Resource: "persistentvolumeclaims"},
		fixed:    []corev1.ResourceName{"count/persistentvolumeclaims", corev1.ResourcePersistentVolumeClaims, corev1.ResourceRequestsStorage},
		measures: func(name corev1.ResourceName) bool {
			return strings.HasSuffix(string(name), byStorageClass+string(corev1.ResourcePersistentVolumeClaims)) ||
				strings.HasSuffix(string(name), byStorageClass+string(corev1.ResourceRequestsStorage))
		},
		usage: claimUsage,
		inScope: func(r Requirement, obj runtime.Object) bool {
			claim, ok := obj.(*corev1.PersistentVolumeClaim)
			return ok && r.ScopeName == corev1.ResourceQuotaScopeVolumeAttributesClass && fits(r, attributesClasses(claim)...)
		},
	}
}

func claimUsage(obj runtime.Object, _ time.Time) corev1.ResourceList {
	claim, ok := obj.(*corev1.PersistentVolumeClaim)
	if !ok {
		return nil
	}
	used := corev1.ResourceList{"count/persistentvolumeclaims": count(1), corev1.ResourcePersistentVolumeClaims: count(1)}
	size, sized := claimSize(claim)
	if sized {
		used[corev1.ResourceRequestsStorage] = size
	}
	class := kinds.Deref(claim.Spec.StorageClassName)
	if beta, ok := claim.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		class = beta
	}
	if class == "" {
		return used
	}
	used[corev1.ResourceName(class+byStorageClass)+corev1.ResourcePersistentVolumeClaims] = count(1)
	if sized {
		used[corev1.ResourceName(class+byStorageClass)+corev1.ResourceRequestsStorage] = size
	}
	return used
}

// claimSize is what a claim asks for, or has been given if that is more, in whole
// bytes.
func claimSize(claim *corev1.PersistentVolumeClaim) (resource.Quantity, bool) {
	size, ok := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	if !ok {
		return size, false
	}
	if given, ok := claim.Status.AllocatedResources[corev1.ResourceStorage]; ok && given.Cmp(size) > 0 {
		size = given
	}
	size = size.DeepCopy()
	size.RoundUp(0)
	return size, true
}

// attributesClasses are the classes that a claim has, had, or is to have.
func attributesClasses(claim *corev1.PersistentVolumeClaim) []string {
	names := given(kinds.Deref(claim.Spec.VolumeAttributesClassName), kinds.Deref(claim.Status.CurrentVolumeAttributesClassName))
	if m := claim.Status.ModifyVolumeStatus; m != nil {
		names = append(names, given(m.TargetVolumeAttributesClassName)...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// ClaimChanged says whether a write to a claim's status may change what it counts
// for.
func ClaimChanged(claim, old *corev1.PersistentVolumeClaim) bool {
	now, was := claim.Status.AllocatedResources[corev1.ResourceStorage], old.Status.AllocatedResources[corev1.ResourceStorage]
	return now.Cmp(was) != 0 || !slices.Equal(attributesClasses(claim), attributesClasses(old))
}
