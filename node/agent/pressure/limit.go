package pressure

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helper "k8s.io/component-helpers/resource"

	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/agent/usage"
)

// Limited says whether a pod has limits of local storage at all, and so has to
// be measured.
func Limited(pod *corev1.Pod) bool {
	for i := range pod.Spec.Volumes {
		if bounded(&pod.Spec.Volumes[i]) != nil {
			return true
		}
	}
	_, is := helper.PodLimits(pod, helper.PodResourcesOptions{})[corev1.ResourceEphemeralStorage]
	return is
}

// bounded is the limit of a directory on disk; the kernel itself bounds those in
// memory.
func bounded(v *corev1.Volume) *resource.Quantity {
	if e := v.EmptyDir; e != nil && e.Medium == corev1.StorageMediumDefault && e.SizeLimit != nil && e.SizeLimit.Sign() > 0 {
		return e.SizeLimit
	}
	return nil
}

// Limits of local storage, as upstream names them beside the signals.
const (
	EmptyDirLimit  Signal = "emptydirfs.limit"
	PodLimit       Signal = "ephemeralpodfs.limit"
	ContainerLimit Signal = "ephemeralcontainerfs.limit"
)

// Exceeded says which limit of local storage a pod has passed, and how, "" for none: of
// an emptyDir, of the pod, of a container. Writable layers on a file system of
// images' own don't count as a container's.
func Exceeded(pod *corev1.Pod, u usage.Pod, dedicated bool) (Signal, string) {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if limit := bounded(v); limit != nil && u.Volumes[v.Name].Bytes > limit.Value() {
			return EmptyDirLimit, fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", v.Name, limit.String())
		}
	}
	if limit, is := helper.PodLimits(pod, helper.PodResourcesOptions{})[corev1.ResourceEphemeralStorage]; is && u.Disk().Bytes > limit.Value() {
		return PodLimit, fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %s. ", limit.String())
	}
	for _, c := range u.Containers {
		s := find(pod, c.Name)
		if s == nil || (isInit(pod, c.Name) && !spec.Sidecar(s)) {
			continue
		}
		much := c.Logs.Bytes
		if !dedicated {
			much += c.Root.Bytes
		}
		if limit := s.Resources.Limits[corev1.ResourceEphemeralStorage]; !limit.IsZero() && much > limit.Value() {
			return ContainerLimit, fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q. ", c.Name, limit.String())
		}
	}
	return "", ""
}

func isInit(pod *corev1.Pod, name string) bool {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return true
		}
	}
	return false
}
