package storage

import (
	storagev1 "k8s.io/api/storage/v1"
)

// What the columns of tables mean, as clients may show it. What is a field of the API is
// explained in the API's own words.

func csiDriverTexts() map[string]string {
	return map[string]string{
		"AttachRequired":    storagev1.CSIDriverSpec{}.SwaggerDoc()["attachRequired"],
		"PodInfoOnMount":    storagev1.CSIDriverSpec{}.SwaggerDoc()["podInfoOnMount"],
		"StorageCapacity":   storagev1.CSIDriverSpec{}.SwaggerDoc()["storageCapacity"],
		"TokenRequests":     storagev1.CSIDriverSpec{}.SwaggerDoc()["tokenRequests"],
		"RequiresRepublish": storagev1.CSIDriverSpec{}.SwaggerDoc()["requiresRepublish"],
		"Modes":             storagev1.CSIDriverSpec{}.SwaggerDoc()["volumeLifecycleModes"],
	}
}

func csiNodeTexts() map[string]string {
	return map[string]string{
		"Drivers": "Drivers indicates the number of CSI drivers registered on the node",
	}
}

func storageClassTexts() map[string]string {
	return map[string]string{
		"Provisioner":          storagev1.StorageClass{}.SwaggerDoc()["provisioner"],
		"ReclaimPolicy":        storagev1.StorageClass{}.SwaggerDoc()["reclaimPolicy"],
		"VolumeBindingMode":    storagev1.StorageClass{}.SwaggerDoc()["volumeBindingMode"],
		"AllowVolumeExpansion": storagev1.StorageClass{}.SwaggerDoc()["allowVolumeExpansion"],
	}
}

func volumeAttachmentTexts() map[string]string {
	return map[string]string{
		"Attacher": storagev1.VolumeAttachmentSpec{}.SwaggerDoc()["attacher"],
		"PV":       storagev1.VolumeAttachmentSource{}.SwaggerDoc()["persistentVolumeName"],
		"Node":     storagev1.VolumeAttachmentSpec{}.SwaggerDoc()["nodeName"],
		"Attached": storagev1.VolumeAttachmentStatus{}.SwaggerDoc()["attached"],
	}
}

func volumeAttributesClassTexts() map[string]string {
	return map[string]string{
		"DriverName": storagev1.VolumeAttributesClass{}.SwaggerDoc()["driverName"],
	}
}
