package autoscaling

import (
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

// What the columns of tables mean, as clients may show it. What is a field of the API is
// explained in the API's own words.

func horizontalPodAutoscalerTexts() map[string]string {
	return map[string]string{
		"Reference": autoscalingv2.HorizontalPodAutoscalerSpec{}.SwaggerDoc()["scaleTargetRef"],
		"Targets":   autoscalingv2.HorizontalPodAutoscalerSpec{}.SwaggerDoc()["metrics"],
		"MinPods":   autoscalingv1.HorizontalPodAutoscalerSpec{}.SwaggerDoc()["minReplicas"],
		"MaxPods":   autoscalingv2.HorizontalPodAutoscalerSpec{}.SwaggerDoc()["maxReplicas"],
		"Replicas":  autoscalingv2.HorizontalPodAutoscalerStatus{}.SwaggerDoc()["currentReplicas"],
	}
}
