package apps

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// What the columns of tables mean, as clients may show it. What is a field of the API is
// explained in the API's own words.

func controllerRevisionTexts() map[string]string {
	return map[string]string{
		"Controller": "Controller of the object",
		"Revision":   appsv1.ControllerRevision{}.SwaggerDoc()["revision"],
	}
}

func daemonSetTexts() map[string]string {
	return map[string]string{
		"Desired":       appsv1.DaemonSetStatus{}.SwaggerDoc()["desiredNumberScheduled"],
		"Current":       appsv1.DaemonSetStatus{}.SwaggerDoc()["currentNumberScheduled"],
		"Ready":         appsv1.DaemonSetStatus{}.SwaggerDoc()["numberReady"],
		"Up-to-date":    appsv1.DaemonSetStatus{}.SwaggerDoc()["updatedNumberScheduled"],
		"Available":     appsv1.DaemonSetStatus{}.SwaggerDoc()["numberAvailable"],
		"Node Selector": corev1.PodSpec{}.SwaggerDoc()["nodeSelector"],
		"Selector":      appsv1.DaemonSetSpec{}.SwaggerDoc()["selector"],
	}
}

func deploymentTexts() map[string]string {
	return map[string]string{
		"Ready":      "Number of the pod with ready state",
		"Up-to-date": appsv1.DeploymentStatus{}.SwaggerDoc()["updatedReplicas"],
		"Available":  appsv1.DeploymentStatus{}.SwaggerDoc()["availableReplicas"],
		"Selector":   appsv1.DeploymentSpec{}.SwaggerDoc()["selector"],
	}
}

func replicaSetTexts() map[string]string {
	return map[string]string{
		"Desired":  appsv1.ReplicaSetSpec{}.SwaggerDoc()["replicas"],
		"Current":  appsv1.ReplicaSetStatus{}.SwaggerDoc()["replicas"],
		"Ready":    appsv1.ReplicaSetStatus{}.SwaggerDoc()["readyReplicas"],
		"Selector": appsv1.ReplicaSetSpec{}.SwaggerDoc()["selector"],
	}
}

func statefulSetTexts() map[string]string {
	return map[string]string{
		"Ready": "Number of the pod with ready state",
	}
}
