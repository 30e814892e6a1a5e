package job

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// judgement is what a job's podFailurePolicy says of a failed pod.
type judgement struct {
	action  batchv1.PodFailurePolicyAction // "" when no rule matches: it counts
	message string                         // why the job fails, of FailJob only
}

// counts says whether the failure counts towards the limits.
func (j judgement) counts() bool { return j.action != batchv1.PodFailurePolicyActionIgnore }

// judge finds the first rule that matches a failed pod.
func judge(policy *batchv1.PodFailurePolicy, pod *corev1.Pod) judgement {
	if policy == nil {
		return judgement{}
	}
	for i := range policy.Rules {
		rule := &policy.Rules[i]
		subject := ""
		switch {
		case rule.OnExitCodes != nil:
			if c := exited(pod, rule.OnExitCodes); c != nil {
				subject = fmt.Sprintf("Container %s for pod %s/%s failed with exit code %v", c.Name, pod.Namespace, pod.Name, c.State.Terminated.ExitCode)
			}
		case rule.OnPodConditions != nil:
			if c := conditioned(pod, rule.OnPodConditions); c != nil {
				subject = fmt.Sprintf("Pod %s/%s has condition %v", pod.Namespace, pod.Name, c.Type)
			}
		}
		if subject == "" {
			continue
		}
		found := judgement{action: rule.Action}
		if rule.Action == batchv1.PodFailurePolicyActionFailJob {
			found.message = fmt.Sprintf("%s matching %v rule at index %d", subject, rule.Action, i)
		}
		return found
	}
	return judgement{}
}

// exited is the container whose exit code a rule asks for; containers come before
// init containers.
func exited(pod *corev1.Pod, rule *batchv1.PodFailurePolicyOnExitCodesRequirement) *corev1.ContainerStatus {
	all := slices.Concat(pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses)
	for i := range all {
		c := &all[i]
		if c.State.Terminated == nil || c.State.Terminated.ExitCode == 0 || rule.ContainerName != nil && *rule.ContainerName != c.Name {
			continue
		}
		listed := slices.Contains(rule.Values, c.State.Terminated.ExitCode)
		if listed == (rule.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn) {
			return c
		}
	}
	return nil
}

func conditioned(pod *corev1.Pod, patterns []batchv1.PodFailurePolicyOnPodConditionsPattern) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		c := &pod.Status.Conditions[i]
		for _, p := range patterns {
			if c.Type == p.Type && c.Status == p.Status {
				return c
			}
		}
	}
	return nil
}

// met says whether the indexes that succeeded are enough by a rule of the job's
// successPolicy, and by which.
func met(policy *batchv1.SuccessPolicy, completions int, succeeded indexes) (string, bool) {
	if policy == nil || len(succeeded) == 0 {
		return "", false
	}
	for i, rule := range policy.Rules {
		enough := false
		switch {
		case rule.SucceededIndexes != nil:
			asked := parseIndexes(*rule.SucceededIndexes, completions)
			n := asked.common(succeeded)
			enough = len(asked) > 0 && (n == asked.total() || rule.SucceededCount != nil && n >= int(*rule.SucceededCount))
		case rule.SucceededCount != nil:
			enough = succeeded.total() >= int(*rule.SucceededCount)
		}
		if enough {
			return fmt.Sprintf("Matched rules at index %d", i), true
		}
	}
	return "", false
}
