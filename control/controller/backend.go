package controller

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/reconcile"
)

// Backends finds the pods behind services and the services before pods, by one
// label each: whoever matches all labels of a selector matches its first.
type Backends struct {
	services *informer.Informer[*corev1.Service]
	pods     *informer.Informer[*corev1.Pod]
}

const byLabel = "label" // "namespace/key=value"

// NewBackends indexes both mirrors. Before they run.
func NewBackends(services *informer.Informer[*corev1.Service], pods *informer.Informer[*corev1.Pod]) *Backends {
	services.AddIndex(byLabel, func(s *corev1.Service) []string {
		if len(s.Spec.Selector) == 0 {
			return nil
		}
		return []string{firstPair(s.Namespace, s.Spec.Selector)}
	})
	pods.AddIndex(byLabel, func(p *corev1.Pod) []string {
		all := make([]string, 0, len(p.Labels))
		for k, v := range p.Labels {
			all = append(all, pair(p.Namespace, k, v))
		}
		return all
	})
	return &Backends{services, pods}
}

// Of returns the pods that service selects, in the order of their names.
func (b *Backends) Of(service *corev1.Service) []*corev1.Pod {
	if len(service.Spec.Selector) == 0 {
		return nil
	}
	selector := labels.SelectorFromSet(service.Spec.Selector)
	pods := slices.DeleteFunc(b.pods.ByIndex(byLabel, firstPair(service.Namespace, service.Spec.Selector)),
		func(p *corev1.Pod) bool { return !selector.Matches(labels.Set(p.Labels)) })
	slices.SortFunc(pods, func(a, c *corev1.Pod) int { return strings.Compare(a.Name, c.Name) })
	return pods
}

// Before names the services that select pod.
func (b *Backends) Before(pod *corev1.Pod) []reconcile.Key {
	var keys []reconcile.Key
	for k, v := range pod.Labels {
		for _, s := range b.services.ByIndex(byLabel, pair(pod.Namespace, k, v)) {
			if labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(pod.Labels)) {
				keys = append(keys, KeyOf(s))
			}
		}
	}
	return keys
}

// Subscriber returns a subscriber to pods that looks at the services before a
// pod when something that endpoints show has changed.
func (b *Backends) Subscriber(enqueue func(reconcile.Key)) func(informer.Event[*corev1.Pod]) {
	return func(e informer.Event[*corev1.Pod]) {
		if e.Old != nil && e.New != nil && sameBackend(e.Old, e.New) {
			return
		}
		for _, pod := range []*corev1.Pod{e.Old, e.New} {
			if pod == nil {
				continue
			}
			for _, key := range b.Before(pod) {
				enqueue(key)
			}
		}
	}
}

func sameBackend(a, b *corev1.Pod) bool {
	readyA, _ := Ready(a)
	readyB, _ := Ready(b)
	return readyA == readyB && Ended(a) == Ended(b) &&
		(a.DeletionTimestamp == nil) == (b.DeletionTimestamp == nil) &&
		a.Spec.NodeName == b.Spec.NodeName && a.Spec.Hostname == b.Spec.Hostname && a.Spec.Subdomain == b.Spec.Subdomain &&
		slices.Equal(a.Status.PodIPs, b.Status.PodIPs) && a.Status.PodIP == b.Status.PodIP &&
		maps.Equal(a.Labels, b.Labels)
}

// Serves says whether a pod may stand behind a service at all. Pods that are
// being deleted count only withTerminating.
func Serves(pod *corev1.Pod, withTerminating bool) bool {
	if Ended(pod) || pod.Status.PodIP == "" && len(pod.Status.PodIPs) == 0 {
		return false
	}
	return withTerminating || pod.DeletionTimestamp == nil
}

// Address is the pod's address of a family, in canonical form.
func Address(pod *corev1.Pod, family corev1.IPFamily) (string, bool) {
	for _, ip := range pod.Status.PodIPs {
		addr, err := netip.ParseAddr(ip.IP)
		if err == nil && FamilyOf(addr) == family {
			return addr.Unmap().String(), true
		}
	}
	if addr, err := netip.ParseAddr(pod.Status.PodIP); len(pod.Status.PodIPs) == 0 && err == nil && FamilyOf(addr) == family {
		return addr.Unmap().String(), true
	}
	return "", false
}

// FamilyOf is an address's family.
func FamilyOf(addr netip.Addr) corev1.IPFamily {
	if addr.Is4() || addr.Is4In6() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// Families are those that a service's endpoints are made for. The API sets them;
// where it has not, the cluster address tells.
func Families(service *corev1.Service) []corev1.IPFamily {
	if len(service.Spec.IPFamilies) > 0 {
		return service.Spec.IPFamilies
	}
	if addr, err := netip.ParseAddr(service.Spec.ClusterIP); err == nil {
		return []corev1.IPFamily{FamilyOf(addr)}
	}
	return []corev1.IPFamily{corev1.IPv4Protocol}
}

// Headless says whether a service has no address of its own.
func Headless(service *corev1.Service) bool {
	return service.Spec.ClusterIP == "" || service.Spec.ClusterIP == corev1.ClusterIPNone
}

// Named says whether a pod has a host name below a service's name.
func Named(pod *corev1.Pod, service *corev1.Service) bool {
	return pod.Spec.Hostname != "" && pod.Spec.Subdomain == service.Name && pod.Namespace == service.Namespace
}

// PortOf is the number of the pod's port that a service's port leads to; a name
// is looked up among the pod's containers and sidecars.
func PortOf(pod *corev1.Pod, port *corev1.ServicePort) (int32, error) {
	if port.TargetPort.Type == intstr.Int {
		return port.TargetPort.IntVal, nil
	}
	find := func(ports []corev1.ContainerPort) (int32, bool) {
		for _, p := range ports {
			if p.Name == port.TargetPort.StrVal && p.Protocol == port.Protocol {
				return p.ContainerPort, true
			}
		}
		return 0, false
	}
	for i := range pod.Spec.Containers {
		if n, ok := find(pod.Spec.Containers[i].Ports); ok {
			return n, nil
		}
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			continue
		}
		if n, ok := find(c.Ports); ok {
			return n, nil
		}
	}
	return 0, fmt.Errorf("pod %q has no port %q (%s)", pod.Name, port.TargetPort.StrVal, port.Protocol)
}

func firstPair(namespace string, selector map[string]string) string {
	k := slices.Min(slices.Collect(maps.Keys(selector)))
	return pair(namespace, k, selector[k])
}

func pair(namespace, k, v string) string { return namespace + "/" + k + "=" + v }
