package core

import (
	"fmt"
	"math"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// updatableText lists the fields of a pod's spec that may change; clients show it.
const updatableText = "pod updates may not change fields other than `spec.containers[*].image`," +
	"`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations)," +
	"`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"

// validatePodUpdate checks a change made through the pod itself. A pod is what
// was scheduled: hardly anything of it may change.
func validatePodUpdate(p, old *corev1.Pod) field.ErrorList {
	var f kinds.Faults
	spec := kinds.NewPath("spec")
	f.Join(validatePod(p))
	f.Join(validateMirrorAnnotations(p, old))
	for _, containers := range []struct {
		field    string
		now, was []corev1.Container
	}{
		{"containers", p.Spec.Containers, old.Spec.Containers},
		{"initContainers", p.Spec.InitContainers, old.Spec.InitContainers},
	} {
		if len(containers.now) != len(containers.was) {
			f.Forbidden(spec.Child(containers.field), "pod updates may not add or remove containers")
			return f.List()
		}
	}
	if !deadlineMayChange(&f, p.Spec.ActiveDeadlineSeconds, old.Spec.ActiveDeadlineSeconds, spec.Child("activeDeadlineSeconds")) {
		return f.List()
	}
	tolerationsMayChange(&f, p.Spec.Tolerations, old.Spec.Tolerations, spec.Child("tolerations"))
	gatesMayChange(&f, p.Spec.SchedulingGates, old.Spec.SchedulingGates, spec.Child("schedulingGates"))
	if kinds.Same(p.Spec, old.Spec) {
		return f.List()
	}
	rest := withOldFields(&p.Spec, &old.Spec)
	if len(old.Spec.SchedulingGates) > 0 {
		gatedMayChange(&f, rest, &old.Spec, spec)
	}
	if !kinds.Same(*rest, old.Spec) {
		f.Forbidden(spec, updatableText+"\n"+kinds.Diff(old.Spec, *rest))
	}
	return f.List()
}

// withOldFields is the new spec with the old values of what may change: what
// differs then is what may not.
func withOldFields(spec, old *corev1.PodSpec) *corev1.PodSpec {
	rest := spec.DeepCopy()
	for i := range rest.Containers {
		rest.Containers[i].Image = old.Containers[i].Image
	}
	for i := range rest.InitContainers {
		rest.InitContainers[i].Image = old.InitContainers[i].Image
	}
	rest.ActiveDeadlineSeconds = old.ActiveDeadlineSeconds
	rest.SchedulingGates = old.SchedulingGates
	rest.Tolerations = old.Tolerations
	if kinds.Deref(old.TerminationGracePeriodSeconds) < 0 && kinds.Deref(rest.TerminationGracePeriodSeconds) == 1 {
		rest.TerminationGracePeriodSeconds = old.TerminationGracePeriodSeconds
	}
	return rest
}

// deadlineMayChange: it may be set, and come nearer. False: say no more.
func deadlineMayChange(f *kinds.Faults, now, was *int64, at *kinds.Path) bool {
	switch {
	case now == nil && was != nil:
		f.Invalid(at, now, "must not update from a positive integer to nil value")
	case now == nil:
	case *now < 0 || *now > math.MaxInt32:
		f.Invalid(at, *now, validation.InclusiveRangeError(0, math.MaxInt32))
		return false
	case was != nil && *was < *now:
		f.Invalid(at, *now, "must be less than or equal to previous value")
		return false
	}
	return true
}

// tolerationsMayChange: they may be added, and change how long they last.
func tolerationsMayChange(f *kinds.Faults, now, was []corev1.Toleration, at *kinds.Path) {
	for _, old := range was {
		kept := false
		for _, t := range now {
			t.TolerationSeconds = old.TolerationSeconds
			if kinds.Same(t, old) {
				kept = true
				break
			}
		}
		if !kept {
			f.Forbidden(at, "existing toleration can not be modified except its tolerationSeconds")
			return
		}
	}
}

func gatesMayChange(f *kinds.Faults, now, was []corev1.PodSchedulingGate, at *kinds.Path) {
	known := map[string]bool{}
	for _, gate := range was {
		known[gate.Name] = true
	}
	for i, gate := range now {
		if !known[gate.Name] {
			f.Forbidden(at.Index(i).Child("name"), fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", gate.Name))
		}
	}
}

// gatedMayChange: a pod that nobody has tried to schedule yet may become
// choosier about nodes. It undoes in rest what it allows or has complained about.
func gatedMayChange(f *kinds.Faults, rest, old *corev1.PodSpec, spec *kinds.Path) {
	for key, value := range old.NodeSelector {
		if now, ok := rest.NodeSelector[key]; !ok || now != value {
			f.Invalid(spec.Child("nodeSelector"), rest.NodeSelector,
				"only additions to spec.nodeSelector are allowed (no mutations or deletions)")
			break
		}
	}
	rest.NodeSelector = old.NodeSelector

	now, was := nodeAffinity(rest), nodeAffinity(old)
	if kinds.Same(now, was) {
		return
	}
	nodeAffinityMayChange(f, now, was, spec.Child("affinity").Child("nodeAffinity"))
	switch {
	case rest.Affinity == nil:
		rest.Affinity = &corev1.Affinity{NodeAffinity: was}
	case old.Affinity == nil && rest.Affinity.PodAffinity == nil && rest.Affinity.PodAntiAffinity == nil:
		rest.Affinity = nil
	default:
		rest.Affinity.NodeAffinity = was
	}
}

func nodeAffinity(spec *corev1.PodSpec) *corev1.NodeAffinity {
	if spec.Affinity == nil {
		return nil
	}
	return spec.Affinity.NodeAffinity
}

func nodeAffinityMayChange(f *kinds.Faults, now, was *corev1.NodeAffinity, at *kinds.Path) {
	before, after := requiredTerms(was), requiredTerms(now)
	if len(before) == 0 {
		return
	}
	terms := at.Child(requiredField).Child("nodeSelectorTerms")
	if len(before) != len(after) {
		f.Invalid(terms, after, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")
		return
	}
	for i := range before {
		if !onlyNarrower(&after[i], &before[i]) {
			f.Invalid(terms.Index(i), after[i], "only additions are allowed (no mutations or deletions)")
		}
	}
}

func requiredTerms(n *corev1.NodeAffinity) []corev1.NodeSelectorTerm {
	if n == nil || n.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil
	}
	return n.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
}

// onlyNarrower: requirements were appended. To an empty term, which no node
// meets, nothing may be: it would match more nodes, not fewer.
func onlyNarrower(now, was *corev1.NodeSelectorTerm) bool {
	if len(was.MatchExpressions)+len(was.MatchFields) == 0 {
		return len(now.MatchExpressions)+len(now.MatchFields) == 0
	}
	return startsWith(now.MatchExpressions, was.MatchExpressions) && startsWith(now.MatchFields, was.MatchFields)
}

func startsWith(now, was []corev1.NodeSelectorRequirement) bool {
	return len(now) >= len(was) && kinds.Same(now[:len(was)], was)
}

// validateMirrorAnnotations: what a node trusts may not change behind its back.
func validateMirrorAnnotations(p, old *corev1.Pod) field.ErrorList {
	var f kinds.Faults
	at := kinds.NewPath("metadata").Child("annotations")
	changed := map[string]string{}
	for key, value := range old.Annotations {
		if now, ok := p.Annotations[key]; !ok || now != value {
			changed[key] = "remove or update"
		}
	}
	for key := range p.Annotations {
		if _, ok := old.Annotations[key]; !ok {
			changed[key] = "add"
		}
	}
	keys := make([]string, 0, len(changed))
	for key := range changed {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	for _, key := range keys {
		if strings.HasPrefix(key, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix) {
			f.Forbidden(at.Key(key), "may not "+changed[key]+" AppArmor annotations")
		}
		if key == MirrorPodAnnotation {
			f.Forbidden(at.Key(key), "may not "+changed[key]+" mirror pod annotation")
		}
	}
	return f.List()
}

// validateEphemeralContainersUpdate: they may be added, never changed or removed.
func validateEphemeralContainersUpdate(p, old *corev1.Pod) field.ErrorList {
	var f kinds.Faults
	if _, mirror := old.Annotations[MirrorPodAnnotation]; mirror {
		f.Forbidden(kinds.NewPath(""), "static pods do not support ephemeral containers")
		return f.List()
	}
	f.Join(validatePod(p))
	f.Join(validateMirrorAnnotations(p, old))
	at := kinds.NewPath("spec").Child("ephemeralContainers")
	now := map[string]*corev1.EphemeralContainer{}
	for i := range p.Spec.EphemeralContainers {
		now[p.Spec.EphemeralContainers[i].Name] = &p.Spec.EphemeralContainers[i]
	}
	for i := range old.Spec.EphemeralContainers {
		was := &old.Spec.EphemeralContainers[i]
		is, kept := now[was.Name]
		switch {
		case !kept:
			f.Forbidden(at, fmt.Sprintf("existing ephemeral containers %q may not be removed\n", was.Name))
		case !kinds.Same(*is, *was):
			f.Forbidden(at, fmt.Sprintf("existing ephemeral containers %q may not be changed\n%v", was.Name, kinds.Diff(*was, *is)))
		}
	}
	return f.List()
}
