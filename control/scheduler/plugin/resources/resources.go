// Package resources puts pods where their requests fit, and prefers nodes by what
// would be left there.
package resources

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"

	"github.com/sampan-dev/sampan/control/scheduler"
)

// Filter is upstream's NodeResourcesFit.
type Filter struct {
	// Ignored are extended resources that are somebody else's business, and
	// IgnoredGroups the parts before the slash of such.
	Ignored, IgnoredGroups []string
}

// Name implements scheduler.Filter.
func (Filter) Name() string { return "NodeResourcesFit" }

// Depends implements scheduler.Filter.
func (Filter) Depends() scheduler.Dependence { return scheduler.OnPods }

// For implements scheduler.Filter.
func (f Filter) For(pod *corev1.Pod, v scheduler.View) scheduler.Fit {
	want := f.asked(pod, v)
	return func(n *scheduler.Node) scheduler.Reason { return want.fits(n, n.Requested, len(n.Pods)) }
}

// asked is what a pod asks of a node.
type asked struct {
	scheduler.Resources
	// counted are the extended resources that are not ignored. Those in devices
	// are given out as devices by nodes that have none otherwise.
	counted []corev1.ResourceName
	devices map[corev1.ResourceName]bool
}

func (f Filter) asked(pod *corev1.Pod, v scheduler.View) asked {
	a := asked{Resources: scheduler.Requests(pod)}
	for name, amount := range a.Scalar {
		group, _, extended := strings.Cut(string(name), "/")
		if amount <= 0 || extended && (slices.Contains(f.Ignored, string(name)) || slices.Contains(f.IgnoredGroups, group)) {
			continue
		}
		a.counted = append(a.counted, name)
		if v.Devices().ClassOf(name) != nil {
			if a.devices == nil {
				a.devices = map[corev1.ResourceName]bool{}
			}
			a.devices[name] = true
		}
	}
	slices.Sort(a.counted)
	return a
}

// lack collects what a node is short of.
type lack struct{ scheduler.Reason }

func (l *lack) note(text string, final bool) {
	l.Final = l.Final || final
	if l.Text == "" {
		l.Text = text
		return
	}
	l.More = append(l.More, text)
}

// fits names all resources that are short where so much is requested by so many
// pods. A node too small even when empty is a final refusal, but for the number of
// pods, which upstream never takes for that.
func (a *asked) fits(n *scheduler.Node, used scheduler.Resources, pods int) scheduler.Reason {
	var short lack
	if int64(pods)+1 > n.MaxPods {
		short.note("Too many pods", false)
	}
	for _, r := range [...]struct {
		text              string
		want, used, total int64
	}{
		{"Insufficient cpu", a.MilliCPU, used.MilliCPU, n.Allocatable.MilliCPU},
		{"Insufficient memory", a.Memory, used.Memory, n.Allocatable.Memory},
		{"Insufficient ephemeral-storage", a.EphemeralStorage, used.EphemeralStorage, n.Allocatable.EphemeralStorage},
	} {
		if r.want > 0 && r.want > r.total-r.used {
			short.note(r.text, r.want > r.total)
		}
	}
	for _, name := range a.counted {
		w, total := a.Scalar[name], n.Allocatable.Scalar[name]
		if total == 0 && a.devices[name] {
			continue
		}
		if w > total-used.Scalar[name] {
			short.note("Insufficient "+string(name), w > total)
		}
	}
	return short.Reason
}

// Heeds implements scheduler.Filter.
func (Filter) Heeds() scheduler.ChangeKind {
	return scheduler.PodRemoved | scheduler.NodeAdded | scheduler.NodeAllocatable | scheduler.DeviceClassChanged
}

// Helps implements scheduler.Filter: a node must be large enough, and where a pod
// has left, there must be room now, were the less important pods evicted.
func (f Filter) Helps(pod *corev1.Pod, c scheduler.Change, v scheduler.View) bool {
	want := f.asked(pod, v)
	switch {
	case c.Kind == scheduler.DeviceClassChanged:
		class, ok := c.New.(*resourcev1.DeviceClass)
		return ok && want.wants(class)
	case c.Node != nil:
		return !want.fits(scheduler.NewNode(c.Node), scheduler.Resources{}, 0).Refuses() && (c.OldNode == nil || want.more(c.Node, c.OldNode))
	}
	n := v.Node(c.On)
	return n == nil || !want.fits(n, n.Requested, len(n.Pods)).Refuses() || want.fitsBefore(pod, n)
}

// more says whether a node has more than before of anything that is asked for.
func (a *asked) more(now, old *corev1.Node) bool {
	n, o := scheduler.NewNode(now), scheduler.NewNode(old)
	if n.MaxPods > o.MaxPods || a.MilliCPU > 0 && n.Allocatable.MilliCPU > o.Allocatable.MilliCPU ||
		a.Memory > 0 && n.Allocatable.Memory > o.Allocatable.Memory ||
		a.EphemeralStorage > 0 && n.Allocatable.EphemeralStorage > o.Allocatable.EphemeralStorage {
		return true
	}
	return slices.ContainsFunc(a.counted, func(name corev1.ResourceName) bool {
		now, old := n.Allocatable.Scalar[name], o.Allocatable.Scalar[name]
		return now > old || a.devices[name] && (now == 0) != (old == 0)
	})
}

// wants says whether a class stands for a resource that is asked for.
func (a *asked) wants(class *resourcev1.DeviceClass) bool {
	if a.Scalar[corev1.ResourceName(resourcev1.ResourceDeviceClassPrefix+class.Name)] > 0 {
		return true
	}
	return class.Spec.ExtendedResourceName != nil && a.Scalar[corev1.ResourceName(*class.Spec.ExtendedResourceName)] > 0
}

// fitsBefore says whether there is room beside the pods that are as important.
func (a *asked) fitsBefore(pod *corev1.Pod, n *scheduler.Node) bool {
	var used scheduler.Resources
	stay := 0
	for _, p := range n.Pods {
		if scheduler.Priority(p.Pod) >= scheduler.Priority(pod) {
			used.Add(p.Requests, 1)
			stay++
		}
	}
	return stay < len(n.Pods) && !a.fits(n, used, stay).Refuses()
}
