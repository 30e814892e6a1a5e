package job

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/controller"
)

const (
	indexEnv = "JOB_COMPLETION_INDEX"
	noIndex  = -1
	// longestPrefix leaves room for the five characters that the server appends
	// within a label's 63: the pod's name is its host name, too.
	longestPrefix = 58
)

// tracked says whether a pod waits to be counted.
func tracked(pod *corev1.Pod) bool {
	return slices.Contains(pod.Finalizers, batchv1.JobTrackingFinalizer)
}

// indexOf is a pod's completion index, noIndex when it has no valid one.
func indexOf(pod *corev1.Pod) int {
	n, err := strconv.Atoi(pod.Annotations[batchv1.JobCompletionIndexAnnotation])
	if err != nil || n < 0 {
		return noIndex
	}
	return n
}

// failuresOf are the failures of a pod's index before it, those that count and
// those that were ignored.
func failuresOf(pod *corev1.Pod) (counted, ignored int32) {
	read := func(key string) int32 {
		n, err := strconv.Atoi(pod.Annotations[key])
		if err != nil || n < 0 || n > math.MaxInt32 {
			return 0
		}
		return int32(n)
	}
	return read(batchv1.JobIndexFailureCountAnnotation), read(batchv1.JobIndexIgnoredFailureCountAnnotation)
}

// podFor is a pod of job for an index, or noIndex. before is the failed pod of
// the same index whose failures it inherits, or nil.
func podFor(job *batchv1.Job, index int, before *corev1.Pod) *corev1.Pod {
	pod := controller.PodOf(&job.Spec.Template, job, client.Jobs.Owner(job))
	if !tracked(pod) {
		pod.Finalizers = append(pod.Finalizers, batchv1.JobTrackingFinalizer)
	}
	if index == noIndex {
		return pod
	}
	number := strconv.Itoa(index)
	suffix := "-" + number + "-"
	pod.GenerateName = job.Name[:min(len(job.Name), longestPrefix-len(suffix))] + suffix
	pod.Spec.Hostname = fmt.Sprintf("%s-%d", job.Name, index)
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Labels[batchv1.JobCompletionIndexAnnotation] = number
	pod.Annotations[batchv1.JobCompletionIndexAnnotation] = number
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			addIndexEnv(&containers[i])
		}
	}
	if job.Spec.BackoffLimitPerIndex != nil {
		inheritFailures(job, pod, before)
	}
	return pod
}

func addIndexEnv(c *corev1.Container) {
	if slices.ContainsFunc(c.Env, func(v corev1.EnvVar) bool { return v.Name == indexEnv }) {
		return
	}
	path := fmt.Sprintf("metadata.labels['%s']", batchv1.JobCompletionIndexAnnotation)
	c.Env = append(c.Env, corev1.EnvVar{
		Name:      indexEnv,
		ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}},
	})
}

// inheritFailures notes on pod how often its index has failed, including before.
func inheritFailures(job *batchv1.Job, pod, before *corev1.Pod) {
	var counted, ignored int32
	if before != nil {
		counted, ignored = failuresOf(before)
		if judge(job.Spec.PodFailurePolicy, before).counts() {
			counted++
		} else {
			ignored++
		}
	}
	pod.Annotations[batchv1.JobIndexFailureCountAnnotation] = strconv.Itoa(int(counted))
	if ignored > 0 {
		pod.Annotations[batchv1.JobIndexIgnoredFailureCountAnnotation] = strconv.Itoa(int(ignored))
	}
}
