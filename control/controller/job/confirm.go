package job

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// confirm asks the API server for those pods that would be counted although
// another leader may have counted them: those that have ended and look tracked,
// and are not named in the status, when the mirror of pods is older than the job.
// In such a picture the job may be from after the count and the pod from before
// it. What is asked for now is newer than the job; should the pod be counted in
// between, the job's status is another, and naming the pod fails.
func (c *Controller) confirm(ctx context.Context, job *batchv1.Job, pods []*corev1.Pod) ([]*corev1.Pod, error) {
	revision, err := strconv.ParseInt(job.ResourceVersion, 10, 64)
	if err != nil || c.pods.Revision() >= revision {
		return pods, nil // a revision that is no number can't be compared
	}
	sure := make([]*corev1.Pod, 0, len(pods))
	for _, pod := range pods {
		if !tracked(pod) || named(job, pod) || pod.DeletionTimestamp == nil && !over(pod) {
			sure = append(sure, pod)
			continue
		}
		// A list of one: upstream's role for this controller has no get.
		found, _, err := client.Pods.List(ctx, c.transport, pod.Namespace, metav1.ListOptions{FieldSelector: "metadata.name=" + pod.Name})
		if err != nil {
			return nil, fmt.Errorf("look at pod %q before it is counted: %w", pod.Name, err)
		}
		if len(found) == 1 && found[0].UID == pod.UID {
			sure = append(sure, found[0])
		}
	}
	return sure, nil
}

func over(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// named says whether the status names the pod as one to be counted.
func named(job *batchv1.Job, pod *corev1.Pod) bool {
	u := job.Status.UncountedTerminatedPods
	return u != nil && (slices.Contains(u.Succeeded, pod.UID) || slices.Contains(u.Failed, pod.UID))
}
