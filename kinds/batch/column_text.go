package batch

import (
	batchv1 "k8s.io/api/batch/v1"
)

// What the columns of tables mean, as clients may show it. What is a field of the API is
// explained in the API's own words.

func cronJobTexts() map[string]string {
	return map[string]string{
		"Schedule":      batchv1.CronJobSpec{}.SwaggerDoc()["schedule"],
		"Timezone":      batchv1.CronJobSpec{}.SwaggerDoc()["timeZone"],
		"Suspend":       batchv1.CronJobSpec{}.SwaggerDoc()["suspend"],
		"Active":        batchv1.CronJobStatus{}.SwaggerDoc()["active"],
		"Last Schedule": batchv1.CronJobStatus{}.SwaggerDoc()["lastScheduleTime"],
		"Selector":      batchv1.JobSpec{}.SwaggerDoc()["selector"],
	}
}

func jobTexts() map[string]string {
	return map[string]string{
		"Status":      "Status of the job.",
		"Completions": batchv1.JobStatus{}.SwaggerDoc()["succeeded"],
		"Duration":    "Time required to complete the job.",
		"Selector":    batchv1.JobSpec{}.SwaggerDoc()["selector"],
	}
}
