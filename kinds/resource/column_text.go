package resource

import (
	resourcev1 "k8s.io/api/resource/v1"
)

// What the columns of tables mean, as clients may show it. What is a field of the API is
// explained in the API's own words.

func deviceTaintRuleTexts() map[string]string {
	return map[string]string{
		"Key":       resourcev1.DeviceTaint{}.SwaggerDoc()["key"],
		"Value":     resourcev1.DeviceTaint{}.SwaggerDoc()["value"],
		"Effect":    resourcev1.DeviceTaint{}.SwaggerDoc()["effect"],
		"TimeAdded": resourcev1.DeviceTaint{}.SwaggerDoc()["timeAdded"],
	}
}

func resourceClaimTexts() map[string]string {
	return map[string]string{
		"State": "A summary of the current state (allocated, pending, reserved, etc.).",
	}
}

func resourceSliceTexts() map[string]string {
	return map[string]string{
		"Node":   resourcev1.ResourceSliceSpec{}.SwaggerDoc()["nodeName"],
		"Driver": resourcev1.ResourceSliceSpec{}.SwaggerDoc()["driver"],
		"Pool":   resourcev1.ResourcePool{}.SwaggerDoc()["name"],
	}
}
