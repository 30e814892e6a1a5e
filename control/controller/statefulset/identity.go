package statefulset

import (
	"fmt"
	"maps"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/controller"
)

// noOrdinal is what a pod has whose name does not end in a number.
const noOrdinal = -1

// split takes a pod's name apart: "web-3" is number 3 of "web".
func split(name string) (set string, ordinal int) {
	i := strings.LastIndexByte(name, '-')
	if i < 0 || i+1 == len(name) || strings.Trim(name[i+1:], "0123456789") != "" {
		return "", noOrdinal
	}
	n, err := strconv.ParseInt(name[i+1:], 10, 32)
	if err != nil {
		return name[:i], noOrdinal
	}
	return name[:i], int(n)
}

func ordinalOf(pod *corev1.Pod) int {
	_, n := split(pod.Name)
	return n
}

// member says whether a pod is named as one of set's.
func member(set *appsv1.StatefulSet, pod *corev1.Pod) bool {
	name, _ := split(pod.Name)
	return name == set.Name
}

// first is the ordinal that set begins with.
func first(set *appsv1.StatefulSet) int {
	if set.Spec.Ordinals == nil {
		return 0
	}
	return int(set.Spec.Ordinals.Start)
}

// within says whether a pod's ordinal is one of those that set wants.
func within(set *appsv1.StatefulSet, pod *corev1.Pod) bool {
	i := ordinalOf(pod) - first(set)
	return i >= 0 && i < int(*set.Spec.Replicas)
}

// revisionOf is the name of the revision that a pod was made of.
func revisionOf(pod *corev1.Pod) string { return pod.Labels[appsv1.StatefulSetRevisionLabel] }

// podFor is number ordinal of set, with the template of a revision.
func podFor(set *appsv1.StatefulSet, rev version, ordinal int) *corev1.Pod {
	pod := controller.PodOf(rev.template, set, client.StatefulSets.Owner(set))
	pod.Name = fmt.Sprintf("%s-%d", set.Name, ordinal) // beside the generateName, as upstream
	identify(pod)
	pod.Labels[appsv1.StatefulSetRevisionLabel] = rev.name
	pod.Spec.Hostname, pod.Spec.Subdomain = pod.Name, set.Spec.ServiceName
	attach(set, pod)
	return pod
}

// identify puts on the labels by which a pod is known.
func identify(pod *corev1.Pod) {
	pod.Labels = maps.Clone(pod.Labels)
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	pod.Labels[appsv1.StatefulSetPodNameLabel] = pod.Name
	pod.Labels[appsv1.PodIndexLabel] = strconv.Itoa(ordinalOf(pod))
}

// identified says whether a pod is known by its name.
func identified(pod *corev1.Pod) bool { return pod.Labels[appsv1.StatefulSetPodNameLabel] == pod.Name }

// attach makes a pod's volumes those of its claims, and the template's others.
func attach(set *appsv1.StatefulSet, pod *corev1.Pod) {
	var volumes []corev1.Volume
	ours := map[string]bool{}
	for i := range set.Spec.VolumeClaimTemplates {
		t := &set.Spec.VolumeClaimTemplates[i]
		ours[t.Name] = true
		volumes = append(volumes, corev1.Volume{Name: t.Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName(set, t, pod)},
		}})
	}
	for _, v := range pod.Spec.Volumes {
		if !ours[v.Name] {
			volumes = append(volumes, v)
		}
	}
	pod.Spec.Volumes = volumes
}

// attached says whether a pod has the volumes of its claims.
func attached(set *appsv1.StatefulSet, pod *corev1.Pod) bool {
	has := map[string]string{}
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			has[v.Name] = v.PersistentVolumeClaim.ClaimName
		}
	}
	for i := range set.Spec.VolumeClaimTemplates {
		t := &set.Spec.VolumeClaimTemplates[i]
		if has[t.Name] != claimName(set, t, pod) {
			return false
		}
	}
	return true
}

func claimName(set *appsv1.StatefulSet, template *corev1.PersistentVolumeClaim, pod *corev1.Pod) string {
	return fmt.Sprintf("%s-%s-%d", template.Name, set.Name, ordinalOf(pod))
}
