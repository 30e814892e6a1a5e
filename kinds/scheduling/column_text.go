package scheduling

import (
	schedulingv1 "k8s.io/api/scheduling/v1"
)

// What the columns of tables mean, as clients may show it. What is a field of the API is
// explained in the API's own words.

func priorityClassTexts() map[string]string {
	return map[string]string{
		"Value":            schedulingv1.PriorityClass{}.SwaggerDoc()["value"],
		"Global-Default":   schedulingv1.PriorityClass{}.SwaggerDoc()["globalDefault"],
		"PreemptionPolicy": schedulingv1.PriorityClass{}.SwaggerDoc()["preemptionPolicy"],
	}
}
