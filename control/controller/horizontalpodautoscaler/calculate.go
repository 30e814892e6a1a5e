package horizontalpodautoscaler

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	podresources "k8s.io/component-helpers/resource"

	"github.com/sampan-dev/sampan/control/controller"
)

// Upstream's defaults: how far a metric may be from its target without anything
// being done, and when the cpu of a starting pod begins to count.
const (
	usualTolerance = 0.1
	// initialization is how long after its start an unready pod's cpu is no
	// measure of its load.
	initialization = 5 * time.Minute
	// readinessDelay is how soon after its start a pod's unreadiness is its first.
	readinessDelay = 30 * time.Second
)

// tolerance is a share by which usage may be above or below its target.
type tolerance struct{ up, down float64 }

func (t tolerance) allows(ratio float64) bool { return 1-t.down <= ratio && ratio <= 1+t.up }

func toleranceOf(h *hpa) tolerance {
	t := tolerance{usualTolerance, usualTolerance}
	if b := h.Spec.Behavior; b != nil {
		if b.ScaleUp != nil && b.ScaleUp.Tolerance != nil {
			t.up = b.ScaleUp.Tolerance.AsApproximateFloat64()
		}
		if b.ScaleDown != nil && b.ScaleDown.Tolerance != nil {
			t.down = b.ScaleDown.Tolerance.AsApproximateFloat64()
		}
	}
	return t
}

// use is a metric of each pod by its name, in thousandths.
type use map[string]measured

type measured struct {
	value  int64
	at     time.Time
	window time.Duration
}

// sight is what a metric is judged in.
type sight struct {
	h            *hpa
	spec, status int32 // replicas, wanted and there
	now          time.Time
	pods         []*corev1.Pod
	tolerance    tolerance
}

var (
	errNoPods    = errors.New("no pods returned by selector while calculating replica count")
	errNoMetrics = errors.New("did not receive metrics for targeted pods (pods might be unready)")
)

// groups are pods by how much their metrics count.
type groups struct {
	ready            int32
	unready, missing []string
}

// group sorts pods and takes out of u what does not count: of pods that go or have
// failed, that are pending or, for cpu, not ready yet.
func (s *sight) group(u use, name corev1.ResourceName) groups {
	var g groups
	for _, pod := range s.pods {
		m, known := u[pod.Name]
		switch {
		case pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodFailed:
			delete(u, pod.Name)
		case pod.Status.Phase == corev1.PodPending:
			g.unready = append(g.unready, pod.Name)
			delete(u, pod.Name)
		case !known:
			g.missing = append(g.missing, pod.Name)
		case name == corev1.ResourceCPU && starting(pod, m, s.now):
			g.unready = append(g.unready, pod.Name)
			delete(u, pod.Name)
		default:
			g.ready++
		}
	}
	return g
}

// starting says that a pod's cpu says nothing about its load: it has never been
// ready, or what was measured reaches back to before it was.
func starting(pod *corev1.Pod, m measured, now time.Time) bool {
	i := slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady })
	if i < 0 || pod.Status.StartTime == nil {
		return true
	}
	c, start := pod.Status.Conditions[i], pod.Status.StartTime.Time
	unready := c.Status == corev1.ConditionFalse
	if start.Add(initialization).After(now) {
		return unready || m.at.Before(c.LastTransitionTime.Add(m.window))
	}
	return unready && start.Add(readinessDelay).After(c.LastTransitionTime.Time)
}

// yardstick turns the pods' use into a share of what is wanted.
type yardstick func(u use) (ratio float64, err error)

// judge is the rule for metrics of pods: missing ones count as exactly what would
// not scale further in the direction that the others ask for, starting ones as
// idle when they ask for more; and none of that may turn the direction round.
// ratio is that of u, once counted. filler is a missing pod's use on the way down.
func (s *sight) judge(u use, g groups, ratio float64, measure yardstick, filler func(pod string) int64) (int32, error) {
	rising := len(g.unready) > 0 && ratio > 1
	if !rising && len(g.missing) == 0 {
		if s.tolerance.allows(ratio) {
			return s.spec, nil
		}
		return ceil(ratio * float64(g.ready)), nil
	}
	for _, name := range g.missing {
		switch {
		case ratio < 1:
			u[name] = measured{value: filler(name)}
		case ratio > 1:
			u[name] = measured{}
		}
	}
	if rising {
		for _, name := range g.unready {
			u[name] = measured{}
		}
	}
	again, err := measure(u)
	if err != nil {
		return 0, err
	}
	if s.tolerance.allows(again) || ratio < 1 && again > 1 || ratio > 1 && again < 1 {
		return s.spec, nil
	}
	n := ceil(again * float64(len(u)))
	if again < 1 && n > s.spec || again > 1 && n < s.spec {
		return s.spec, nil
	}
	return n, nil
}

// byValue judges pods by an average that each shall have. For other metrics than
// those of a resource, name is empty.
func (s *sight) byValue(u use, target int64, name corev1.ResourceName) (replicas int32, average int64, err error) {
	if len(s.pods) == 0 {
		return 0, 0, errNoPods
	}
	g := s.group(u, name)
	if len(u) == 0 {
		return 0, 0, errNoMetrics
	}
	mean := func(u use) int64 {
		total := int64(0)
		for _, m := range u {
			total += m.value
		}
		return total / int64(len(u))
	}
	measure := func(u use) (float64, error) { return float64(mean(u)) / float64(target), nil }
	average = mean(u)
	replicas, err = s.judge(u, g, float64(average)/float64(target), measure, func(string) int64 { return target })
	return replicas, average, err
}

// byUtilization judges pods by the share of what they requested.
func (s *sight) byUtilization(u use, w wantedUse) (replicas, percent int32, average int64, err error) {
	if len(s.pods) == 0 {
		return 0, 0, 0, errNoPods
	}
	g := s.group(u, w.name)
	if len(u) == 0 {
		return 0, 0, 0, errNoMetrics
	}
	requests := map[string]int64{}
	for _, pod := range s.pods {
		if requests[pod.Name], err = requestOf(pod, w.container, w.name); err != nil {
			return 0, 0, 0, err
		}
	}
	target := *w.target.AverageUtilization
	measure := func(u use) (int32, int64, error) { return utilization(u, requests) }
	percent, average, err = measure(u)
	if err != nil {
		return 0, 0, 0, err
	}
	full := int64(max(100, target))
	replicas, err = s.judge(u, g, float64(percent)/float64(target), func(u use) (float64, error) {
		p, _, err := measure(u)
		return float64(p) / float64(target), err
	}, func(pod string) int64 { return requests[pod] * full / 100 })
	return replicas, percent, average, err
}

// utilization is the use of all pods in percent of their requests, and their
// average.
func utilization(u use, requests map[string]int64) (percent int32, average int64, err error) {
	var total, requested, n int64
	for name, m := range u {
		r, ok := requests[name]
		if !ok {
			continue
		}
		total, requested, n = total+m.value, requested+r, n+1
	}
	if requested == 0 {
		return 0, 0, errors.New("no metrics returned matched known pods")
	}
	return int32(total * 100 / requested), total / n, nil
}

// requestOf is what a pod requests, in thousandths: a container alone, or the pod
// as a whole where it says so, or all its containers and sidecars.
func requestOf(pod *corev1.Pod, container string, name corev1.ResourceName) (int64, error) {
	if container == "" && podresources.IsPodLevelRequestsSet(pod) {
		q, ok := podresources.PodRequests(pod, podresources.PodResourcesOptions{})[name]
		if !ok {
			return 0, fmt.Errorf("missing pod-level request for %s in Pod %s", name, pod.Name)
		}
		return q.MilliValue(), nil
	}
	all := slices.Clone(pod.Spec.Containers)
	for i := range pod.Spec.InitContainers {
		if p := pod.Spec.InitContainers[i].RestartPolicy; p != nil && *p == corev1.ContainerRestartPolicyAlways {
			all = append(all, pod.Spec.InitContainers[i])
		}
	}
	total, found := int64(0), false
	for i := range all {
		if container != "" && all[i].Name != container {
			continue
		}
		q, ok := all[i].Resources.Requests[name]
		if !ok {
			return 0, fmt.Errorf("missing request for %s in container %s of Pod %s", name, all[i].Name, pod.Name)
		}
		total, found = total+q.MilliValue(), true
	}
	if container != "" && !found {
		return 0, fmt.Errorf("container %s not found in Pod %s", container, pod.Name)
	}
	return total, nil
}

// byTotal judges a number that all replicas share: it grows and shrinks with the
// ready ones. From zero, tolerance does not count.
func (s *sight) byTotal(value, target int64) (int32, error) {
	ratio := float64(value) / float64(target)
	if s.spec == 0 {
		return ceil(ratio), nil
	}
	if s.tolerance.allows(ratio) {
		return s.spec, nil
	}
	if len(s.pods) == 0 {
		return 0, fmt.Errorf("unable to calculate ready pods: %w", errNoPods)
	}
	n := 0
	for _, pod := range s.pods {
		if ready, _ := controller.Ready(pod); ready && pod.Status.Phase == corev1.PodRunning {
			n++
		}
	}
	return ceil(ratio * float64(n)), nil
}

// byShare judges a number of which each replica shall have its share; each is
// what it has now.
func (s *sight) byShare(value, target int64) (replicas int32, each int64) {
	replicas = s.status
	if ratio := float64(value) / (float64(target) * float64(s.status)); !s.tolerance.allows(ratio) {
		replicas = ceil(float64(value) / float64(target))
	}
	if s.status == 0 || value == math.MaxInt64 {
		return replicas, value // one would divide by nobody
	}
	return replicas, int64(math.Ceil(float64(value) / float64(s.status)))
}

// ceil rounds up, within what replicas can be.
func ceil(n float64) int32 {
	if math.IsNaN(n) || n <= 0 {
		return 0
	}
	if n = math.Ceil(n); n < math.MaxInt32 {
		return int32(n)
	}
	return math.MaxInt32
}
