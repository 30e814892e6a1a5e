package quota

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Devices is what must be known beside a resource claim to measure it.
type Devices interface {
	// ExtendedResource is the resource by which pods can ask for a device class's
	// devices; "" if there is none.
	ExtendedResource(class string) string
	// HasClass says whether some class's devices are asked for by that resource.
	HasClass(extended string) bool
	// PodUsage is what has been counted already for the pod that a claim was made
	// for by the scheduler, because the pod asked for an extended resource; nil
	// for other claims.
	PodUsage(claim *resourcev1.ResourceClaim) corev1.ResourceList
}

const countedClaims = "count/resourceclaims.resource.k8s.io"

func deviceMeter(devices Devices) Meter {
	return Meter{
		Resource: schema.GroupResource{Group: resourcev1.GroupName, Resource: "resourceclaims"},
		fixed:    []corev1.ResourceName{countedClaims},
		measures: func(name corev1.ResourceName) bool { return measuresDevices(devices, string(name)) },
		usage: func(obj runtime.Object, _ time.Time) corev1.ResourceList {
			claim, ok := obj.(*resourcev1.ResourceClaim)
			if !ok {
				return nil
			}
			return deviceUsage(claim, devices)
		},
	}
}

func measuresDevices(devices Devices, name string) bool {
	if strings.HasSuffix(name, corev1.ResourceClaimsPerClass) {
		return true
	}
	if devices == nil {
		return false
	}
	if class, ok := strings.CutPrefix(name, corev1.ResourceImplicitExtendedClaimsPerClass); ok {
		return devices.ExtendedResource(class) != ""
	}
	extended, ok := strings.CutPrefix(name, corev1.DefaultResourceRequestsPrefix)
	return ok && cappedExtended(corev1.ResourceName(name)) && devices.HasClass(extended)
}

// deviceUsage counts the devices of each class; of alternatives the worst.
func deviceUsage(claim *resourcev1.ResourceClaim, devices Devices) corev1.ResourceList {
	used := corev1.ResourceList{countedClaims: count(1)}
	add := func(class string, n int64) {
		name := corev1.ResourceName(class + corev1.ResourceClaimsPerClass)
		sum := used[name]
		sum.Add(count(n))
		used[name] = sum
	}
	for _, r := range claim.Spec.Devices.Requests {
		if r.Exactly != nil && len(r.FirstAvailable) == 0 {
			add(r.Exactly.DeviceClassName, deviceCount(r.Exactly.AllocationMode, r.Exactly.Count))
			continue
		}
		worst := map[string]int64{}
		for _, s := range r.FirstAvailable {
			worst[s.DeviceClassName] = max(worst[s.DeviceClassName], deviceCount(s.AllocationMode, s.Count))
		}
		for class, n := range worst {
			if n > 0 {
				add(class, n)
			}
		}
	}
	if devices != nil {
		addExtended(used, claim, devices)
	}
	return used
}

func deviceCount(mode resourcev1.DeviceAllocationMode, n int64) int64 {
	switch mode {
	case resourcev1.DeviceAllocationModeExactCount:
		return n
	case resourcev1.DeviceAllocationModeAll:
		return resourcev1.AllocationResultsMaxSize // the worst there can be
	}
	return 0
}

// addExtended counts devices under the names of the extended resources, too, but
// not what the pod has been charged for already.
func addExtended(used corev1.ResourceList, claim *resourcev1.ResourceClaim, devices Devices) {
	byPod, more := devices.PodUsage(claim), map[corev1.ResourceName]resource.Quantity{}
	for name, amount := range used {
		class, ok := strings.CutSuffix(string(name), corev1.ResourceClaimsPerClass)
		if !ok || class == "" {
			continue
		}
		more[corev1.ResourceName(corev1.ResourceImplicitExtendedClaimsPerClass+class)] = amount
		if extended := devices.ExtendedResource(class); extended != "" {
			more[corev1.ResourceName(corev1.DefaultResourceRequestsPrefix+extended)] = amount
		}
	}
	for name, amount := range more {
		amount = amount.DeepCopy()
		amount.Sub(byPod[name])
		if amount.Sign() > 0 {
			used[name] = amount
		}
	}
}

// ChargedTo says whether what a claim's devices count for has been counted for a
// pod: the scheduler made the claim because the pod asks for extended resources,
// and it is the pod's only such claim, or its first. owned are the pod's claims
// of that sort; pod may be nil.
func ChargedTo(claim *resourcev1.ResourceClaim, pod *corev1.Pod, owned []*resourcev1.ResourceClaim) bool {
	owner, ok := PodOf(claim)
	if !ok || pod == nil || pod.UID != owner.UID {
		return false
	}
	if s := pod.Status.ExtendedResourceClaimStatus; s != nil {
		return s.ResourceClaimName == claim.Name
	}
	for _, other := range owned {
		if ref, mine := PodOf(other); !mine || ref.UID != pod.UID {
			continue
		}
		if c := other.CreationTimestamp.Compare(claim.CreationTimestamp.Time); c < 0 || c == 0 && other.Name < claim.Name {
			return false
		}
	}
	return true
}

// PodOf is the pod for whose extended resources a claim was made.
func PodOf(claim *resourcev1.ResourceClaim) (metav1.OwnerReference, bool) {
	owner := metav1.GetControllerOfNoCopy(claim)
	if claim.Annotations[resourcev1.ExtendedResourceClaimAnnotation] != "true" || owner == nil || owner.Kind != "Pod" || owner.APIVersion != "v1" {
		return metav1.OwnerReference{}, false
	}
	return *owner, true
}
