// Package resources puts pods where their requests fit, and prefers nodes by what
// would be left there.
package resources

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

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
func (f Filter) For(pod *corev1.Pod, _ scheduler.View) scheduler.Fit {
	want := scheduler.Requests(pod)
	names := f.counted(want)
	return func(n *scheduler.Node) scheduler.Reason { return fits(want, names, n) }
}

// counted are the extended resources that a pod wants and that are not ignored.
func (f Filter) counted(want scheduler.Resources) []corev1.ResourceName {
	var names []corev1.ResourceName
	for name, amount := range want.Scalar {
		group, _, _ := strings.Cut(string(name), "/")
		if amount > 0 && !slices.Contains(f.Ignored, string(name)) && !slices.Contains(f.IgnoredGroups, group) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
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

// fits names all resources that are short. A node too small even when empty is a
// final refusal.
func fits(want scheduler.Resources, names []corev1.ResourceName, n *scheduler.Node) scheduler.Reason {
	var short lack
	if int64(len(n.Pods))+1 > n.MaxPods {
		short.note("Too many pods", n.MaxPods == 0)
	}
	for _, r := range [...]struct {
		text              string
		want, used, total int64
	}{
		{"Insufficient cpu", want.MilliCPU, n.Requested.MilliCPU, n.Allocatable.MilliCPU},
		{"Insufficient memory", want.Memory, n.Requested.Memory, n.Allocatable.Memory},
		{"Insufficient ephemeral-storage", want.EphemeralStorage, n.Requested.EphemeralStorage, n.Allocatable.EphemeralStorage},
	} {
		if r.want > 0 && r.want > r.total-r.used {
			short.note(r.text, r.want > r.total)
		}
	}
	for _, name := range names {
		if w, total := want.Scalar[name], n.Allocatable.Scalar[name]; w > total-n.Requested.Scalar[name] {
			short.note("Insufficient "+string(name), w > total)
		}
	}
	return short.Reason
}

// Heeds implements scheduler.Filter.
func (Filter) Heeds() scheduler.ChangeKind {
	return scheduler.PodRemoved | scheduler.NodeAdded | scheduler.NodeAllocatable
}

// Helps implements scheduler.Filter: a node must be large enough, and a pod that
// left must have used something that this one wants.
func (f Filter) Helps(pod *corev1.Pod, c scheduler.Change) bool {
	want := scheduler.Requests(pod)
	if c.Node != nil {
		return !fits(want, f.counted(want), scheduler.NewNode(c.Node)).Refuses()
	}
	return true
}
