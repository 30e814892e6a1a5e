package spec

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-helpers/resource"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Limit is how much of CPU or memory a container may use: its own limit, or where it
// has none that of its whole pod (KEP-2837). own are the container's resources, whole
// the pod's, which may be nil.
func Limit(whole *corev1.ResourceRequirements, own *corev1.ResourceRequirements, name corev1.ResourceName) apiresource.Quantity {
	limit := own.Limits[name]
	if limit.IsZero() && whole != nil {
		return whole.Limits[name]
	}
	return limit
}

// spare is an equal part for each container of the memory that the pod as a whole
// requests and that no container of it does.
func spare(pod *corev1.Pod) int64 {
	if !resource.IsPodLevelRequestsSet(pod) || pod.Spec.Resources.Requests.Memory().IsZero() {
		return 0
	}
	theirs := resource.AggregateContainerRequests(pod, resource.PodResourcesOptions{})
	left := pod.Spec.Resources.Requests.Memory().Value() - theirs.Memory().Value()
	return max(left, 0) / int64(len(pod.Spec.Containers)+len(pod.Spec.InitContainers))
}

// PageSizes are the sizes of huge pages that a machine of that capacity has, in the
// kernel's words, the smallest first.
func PageSizes(capacity corev1.ResourceList) []string {
	var sizes []apiresource.Quantity
	for name := range capacity {
		if size, ok := pageSize(name); ok {
			sizes = append(sizes, size)
		}
	}
	slices.SortFunc(sizes, func(a, b apiresource.Quantity) int { return cmp.Compare(a.Value(), b.Value()) })
	var list []string
	for _, size := range sizes {
		list = append(list, pageWord(size))
	}
	return list
}

// hugePages are the limits of huge pages by any of these lists, of which a later one
// counts more; of each size that the node has and none names there may be none.
func hugePages(node Node, lists ...corev1.ResourceList) []*rt.HugepageLimit {
	may := map[string]uint64{}
	for _, list := range lists {
		for name, q := range list {
			if size, ok := pageSize(name); ok {
				may[pageWord(size)] = uint64(q.Value())
			}
		}
	}
	var limits []*rt.HugepageLimit
	for _, size := range node.PageSizes {
		limits = append(limits, &rt.HugepageLimit{PageSize: size, Limit: may[size]})
	}
	return limits
}

func pageSize(name corev1.ResourceName) (apiresource.Quantity, bool) {
	text, huge := strings.CutPrefix(string(name), corev1.ResourceHugePagesPrefix)
	if !huge {
		return apiresource.Quantity{}, false
	}
	size, err := apiresource.ParseQuantity(text)
	return size, err == nil
}

// pageWord is a size of huge pages as cgroups call it: "2MB", "1GB".
func pageWord(size apiresource.Quantity) string {
	n, units := size.Value(), []string{"B", "KB", "MB", "GB"}
	for len(units) > 1 && n > 0 && n%1024 == 0 {
		n, units = n/1024, units[1:]
	}
	return fmt.Sprintf("%d%s", n, units[0])
}
