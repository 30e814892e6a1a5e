// Package downward answers what a pod may know about itself: the field and
// resource references of the downward API. It is shared by environment
// variables and by volumes. Pure: no I/O, no clock.
//
// https://kubernetes.io/docs/concepts/workloads/pods/downward-api/
package downward

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Facts are what the node adds to the pod's own fields.
type Facts struct {
	NodeName string
	// HostIPs and PodIPs are ordered with the primary address first. PodIPs may
	// be empty while the sandbox isn't up.
	HostIPs, PodIPs []string
	// Allocatable stands in for limits that a container doesn't set.
	Allocatable corev1.ResourceList
	// MemoryLimit is that of the pod as a whole, 0 for none.
	MemoryLimit int64
}

// Field resolves a fieldRef path such as metadata.labels['app'].
func Field(pod *corev1.Pod, facts Facts, path string) (string, error) {
	if base, key, ok := subscript(path); ok {
		return keyed(pod, base, key)
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return lines(pod.Labels), nil
	case "metadata.annotations":
		return lines(pod.Annotations), nil
	case "spec.nodeName":
		return facts.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(facts.HostIPs), nil
	case "status.hostIPs":
		return strings.Join(facts.HostIPs, ","), nil
	case "status.podIP":
		return first(facts.PodIPs), nil
	case "status.podIPs":
		return strings.Join(facts.PodIPs, ","), nil
	}
	return "", fmt.Errorf("unsupported fieldPath: %v", path)
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// subscript splits metadata.labels['key'].
func subscript(path string) (base, key string, ok bool) {
	base, rest, found := strings.Cut(path, "['")
	if !found || !strings.HasSuffix(rest, "']") {
		return "", "", false
	}
	return base, strings.TrimSuffix(rest, "']"), true
}

func keyed(pod *corev1.Pod, base, key string) (string, error) {
	switch base {
	case "metadata.labels":
		return pod.Labels[key], nil
	case "metadata.annotations":
		return pod.Annotations[key], nil
	}
	return "", fmt.Errorf("fieldPath %q does not support subscript", base)
}

// lines prints a map as key="value" lines, sorted: the format of upstream's
// downward API files.
func lines(m map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, "%s=%s\n", k, strconv.Quote(m[k]))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// Resource resolves a resourceFieldRef for one container: the value divided by
// the divisor and rounded up. A limit that isn't set is that of the whole pod, or
// else the node's allocatable.
func Resource(pod *corev1.Pod, c *corev1.Container, ref *corev1.ResourceFieldSelector, allocatable corev1.ResourceList) (string, error) {
	kind, name, ok := strings.Cut(ref.Resource, ".")
	if !ok || (kind != "limits" && kind != "requests") {
		return "", fmt.Errorf("unsupported container resource : %v", ref.Resource)
	}
	resourceName := corev1.ResourceName(name)
	value := c.Resources.Requests[resourceName]
	if kind == "limits" {
		value = c.Resources.Limits[resourceName]
		if value.IsZero() && wholeNode(resourceName) {
			value = allocatable[resourceName]
			if whole := wholePod(pod, resourceName); !whole.IsZero() {
				value = whole
			}
		}
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if resourceName == corev1.ResourceCPU {
		return ceil(value.MilliValue(), divisor.MilliValue()), nil
	}
	return ceil(value.Value(), divisor.Value()), nil
}

func wholePod(pod *corev1.Pod, name corev1.ResourceName) resource.Quantity {
	if pod.Spec.Resources == nil {
		return resource.Quantity{}
	}
	return pod.Spec.Resources.Limits[name]
}

func wholeNode(name corev1.ResourceName) bool {
	return name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage
}

func ceil(value, divisor int64) string {
	if divisor <= 0 {
		divisor = 1
	}
	return strconv.FormatInt(int64(math.Ceil(float64(value)/float64(divisor))), 10)
}

// Container finds a container of any sort by name.
func Container(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}
