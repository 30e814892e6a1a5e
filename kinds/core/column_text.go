package core

import (
	corev1 "k8s.io/api/core/v1"
)

// What the columns of tables mean, as clients may show it. What is a field of the API is
// explained in the API's own words.

func configMapTexts() map[string]string {
	return map[string]string{
		"Data": corev1.ConfigMap{}.SwaggerDoc()["data"],
	}
}

func endpointsTexts() map[string]string {
	return map[string]string{
		"Endpoints": corev1.Endpoints{}.SwaggerDoc()["subsets"],
	}
}

func eventTexts() map[string]string {
	return map[string]string{
		"Last Seen":  corev1.Event{}.SwaggerDoc()["lastTimestamp"],
		"Type":       corev1.Event{}.SwaggerDoc()["type"],
		"Reason":     corev1.Event{}.SwaggerDoc()["reason"],
		"Object":     corev1.Event{}.SwaggerDoc()["involvedObject"],
		"Subobject":  corev1.ObjectReference{}.SwaggerDoc()["fieldPath"],
		"Source":     corev1.Event{}.SwaggerDoc()["source"],
		"Message":    corev1.Event{}.SwaggerDoc()["message"],
		"First Seen": corev1.Event{}.SwaggerDoc()["firstTimestamp"],
		"Count":      corev1.Event{}.SwaggerDoc()["count"],
	}
}

func namespaceTexts() map[string]string {
	return map[string]string{
		"Status": "The status of the namespace",
	}
}

func nodeTexts() map[string]string {
	return map[string]string{
		"Status":            "The status of the node",
		"Roles":             "The roles of the node",
		"Version":           corev1.NodeSystemInfo{}.SwaggerDoc()["kubeletVersion"],
		"Internal-IP":       corev1.NodeStatus{}.SwaggerDoc()["addresses"],
		"External-IP":       corev1.NodeStatus{}.SwaggerDoc()["addresses"],
		"OS-Image":          corev1.NodeSystemInfo{}.SwaggerDoc()["osImage"],
		"Kernel-Version":    corev1.NodeSystemInfo{}.SwaggerDoc()["kernelVersion"],
		"Container-Runtime": corev1.NodeSystemInfo{}.SwaggerDoc()["containerRuntimeVersion"],
	}
}

func persistentVolumeClaimTexts() map[string]string {
	return map[string]string{
		"Status":                corev1.PersistentVolumeClaimStatus{}.SwaggerDoc()["phase"],
		"Volume":                corev1.PersistentVolumeClaimSpec{}.SwaggerDoc()["volumeName"],
		"Capacity":              corev1.PersistentVolumeClaimStatus{}.SwaggerDoc()["capacity"],
		"Access Modes":          corev1.PersistentVolumeClaimStatus{}.SwaggerDoc()["accessModes"],
		"StorageClass":          "StorageClass of the pvc",
		"VolumeAttributesClass": "VolumeAttributesClass of the pvc",
		"VolumeMode":            corev1.PersistentVolumeClaimSpec{}.SwaggerDoc()["volumeMode"],
	}
}

func persistentVolumeTexts() map[string]string {
	return map[string]string{
		"Capacity":              corev1.PersistentVolumeSpec{}.SwaggerDoc()["capacity"],
		"Access Modes":          corev1.PersistentVolumeSpec{}.SwaggerDoc()["accessModes"],
		"Reclaim Policy":        corev1.PersistentVolumeSpec{}.SwaggerDoc()["persistentVolumeReclaimPolicy"],
		"Status":                corev1.PersistentVolumeStatus{}.SwaggerDoc()["phase"],
		"Claim":                 corev1.PersistentVolumeSpec{}.SwaggerDoc()["claimRef"],
		"StorageClass":          "StorageClass of the pv",
		"VolumeAttributesClass": "VolumeAttributesClass of the pv",
		"Reason":                corev1.PersistentVolumeStatus{}.SwaggerDoc()["reason"],
		"VolumeMode":            corev1.PersistentVolumeSpec{}.SwaggerDoc()["volumeMode"],
	}
}

func podTexts() map[string]string {
	return map[string]string{
		"Ready":           "The aggregate readiness state of this pod for accepting traffic.",
		"Status":          "The aggregate status of the containers in this pod.",
		"Restarts":        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
		"IP":              corev1.PodStatus{}.SwaggerDoc()["podIP"],
		"Node":            corev1.PodSpec{}.SwaggerDoc()["nodeName"],
		"Nominated Node":  corev1.PodStatus{}.SwaggerDoc()["nominatedNodeName"],
		"Readiness Gates": corev1.PodSpec{}.SwaggerDoc()["readinessGates"],
	}
}

func podTemplateTexts() map[string]string {
	return map[string]string{
		"Pod Labels": "The labels for the pod template.",
	}
}

func replicationControllerTexts() map[string]string {
	return map[string]string{
		"Desired":  corev1.ReplicationControllerSpec{}.SwaggerDoc()["replicas"],
		"Current":  corev1.ReplicationControllerStatus{}.SwaggerDoc()["replicas"],
		"Ready":    corev1.ReplicationControllerStatus{}.SwaggerDoc()["readyReplicas"],
		"Selector": corev1.ReplicationControllerSpec{}.SwaggerDoc()["selector"],
	}
}

func resourceQuotaTexts() map[string]string {
	return map[string]string{
		"Request": "Request represents a minimum amount of cpu/memory that a container may consume.",
		"Limit":   "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
	}
}

func secretTexts() map[string]string {
	return map[string]string{
		"Type": corev1.Secret{}.SwaggerDoc()["type"],
		"Data": corev1.Secret{}.SwaggerDoc()["data"],
	}
}

func serviceTexts() map[string]string {
	return map[string]string{
		"Type":        corev1.ServiceSpec{}.SwaggerDoc()["type"],
		"Cluster-IP":  corev1.ServiceSpec{}.SwaggerDoc()["clusterIP"],
		"External-IP": corev1.ServiceSpec{}.SwaggerDoc()["externalIPs"],
		"Port(s)":     corev1.ServiceSpec{}.SwaggerDoc()["ports"],
		"Selector":    corev1.ServiceSpec{}.SwaggerDoc()["selector"],
	}
}
