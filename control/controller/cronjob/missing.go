package cronjob

import (
	"context"
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/client"
)

// jobsOf are a cron job's jobs: those of the mirror, and those that the status names and
// the mirror does not know. It may be behind, for another leader made them: the server
// says whether they are missing.
func (c *Controller) jobsOf(ctx context.Context, cj *batchv1.CronJob, mirrored []*batchv1.Job) ([]*batchv1.Job, error) {
	jobs := mirrored
	for _, ref := range cj.Status.Active {
		if known(mirrored, ref) {
			continue
		}
		j, err := client.Jobs.Get(ctx, c.transport, cj.Namespace, ref.Name)
		switch {
		case apierrors.IsNotFound(err):
			continue
		case err != nil:
			return nil, fmt.Errorf("look for job %q: %w", ref.Name, err)
		case j.UID == ref.UID:
			jobs = append(slices.Clone(jobs), j)
		}
	}
	return jobs, nil
}

func known(jobs []*batchv1.Job, ref corev1.ObjectReference) bool {
	return slices.ContainsFunc(jobs, func(j *batchv1.Job) bool { return j.UID == ref.UID })
}
