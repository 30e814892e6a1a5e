package daemonset

import (
	"fmt"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/controller"
)

// generationLabel carries the template's generation on pods since before there
// were revisions.
const generationLabel = "pod-template-generation"

// place says which nodes a set's pods belong on.
type place struct {
	nodeName    string
	tolerations []corev1.Toleration
	affinity    nodeaffinity.RequiredNodeAffinity
}

func placeOf(ds *appsv1.DaemonSet) place {
	spec := &ds.Spec.Template.Spec
	return place{
		nodeName:    spec.NodeName,
		tolerations: tolerations(spec),
		affinity:    nodeaffinity.NewRequiredNodeAffinity(spec.NodeSelector, spec.Affinity),
	}
}

// fits says whether a pod shall run on node, and whether one that runs there may
// stay: taints that only keep pods from coming do not drive them away.
func (p place) fits(node *corev1.Node) (run, stay bool) {
	if p.nodeName != "" && p.nodeName != node.Name {
		return false, false
	}
	if ok, _ := p.affinity.Match(node); !ok {
		return false, false
	}
	run, stay = true, true
	for i := range node.Spec.Taints {
		taint := &node.Spec.Taints[i]
		if taint.Effect == corev1.TaintEffectPreferNoSchedule || tolerated(p.tolerations, taint) {
			continue
		}
		run = false
		stay = stay && taint.Effect != corev1.TaintEffectNoExecute
	}
	return run, stay
}

func tolerated(all []corev1.Toleration, taint *corev1.Taint) bool {
	return slices.ContainsFunc(all, func(t corev1.Toleration) bool { return controller.Tolerates(&t, taint) })
}

// tolerations are the template's with those that every daemon has: it comes up
// on nodes that are in trouble, and does not leave them.
func tolerations(spec *corev1.PodSpec) []corev1.Toleration {
	all := slices.Clone(spec.Tolerations)
	put := func(key string, effect corev1.TaintEffect) {
		t := corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect}
		i := slices.IndexFunc(all, func(have corev1.Toleration) bool { return t.MatchToleration(&have) })
		if i < 0 {
			all = append(all, t)
		} else if !equality.Semantic.DeepEqual(all[i], t) {
			all[i] = t
		}
	}
	put(corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute)
	put(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute)
	put(corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule)
	put(corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule)
	put(corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule)
	put(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)
	if spec.HostNetwork {
		put(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule)
	}
	return all
}

// nodeOf is the node that a pod is on, or may go to alone; "" when it says none.
func nodeOf(pod *corev1.Pod) string {
	if pod.Spec.NodeName != "" {
		return pod.Spec.NodeName
	}
	a := pod.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return ""
	}
	for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, f := range term.MatchFields {
			if f.Key == metav1.ObjectNameField && f.Operator == corev1.NodeSelectorOpIn && len(f.Values) == 1 {
				return f.Values[0]
			}
		}
	}
	return ""
}

// podFor is the set's pod for a node. The scheduler binds it, as any other, but
// its affinity leaves one node.
func podFor(ds *appsv1.DaemonSet, node, hash string) *corev1.Pod {
	pod := controller.PodOf(&ds.Spec.Template, ds, client.DaemonSets.Owner(ds))
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	if generation, ok := generationOf(ds); ok {
		pod.Labels[generationLabel] = generation
	}
	pod.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] = hash
	pod.Spec.Tolerations = tolerations(&pod.Spec)
	pin(&pod.Spec, node)
	return pod
}

// generationOf is the template's generation; false when its annotation is no
// number.
func generationOf(ds *appsv1.DaemonSet) (string, bool) {
	n, err := strconv.ParseInt(ds.Annotations[appsv1.DeprecatedTemplateGeneration], 10, 64)
	return fmt.Sprint(n), err == nil
}

// pin replaces the required node affinity, which has been heeded when the node
// was chosen.
func pin(spec *corev1.PodSpec, node string) {
	if spec.Affinity == nil {
		spec.Affinity = &corev1.Affinity{}
	}
	if spec.Affinity.NodeAffinity == nil {
		spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{
			Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node},
		}}}},
	}
}
