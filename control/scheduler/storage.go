package scheduler

import (
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// Storage are the objects about volumes. What is unknown is nil.
type Storage interface {
	Claim(namespace, name string) *corev1.PersistentVolumeClaim
	Volume(name string) *corev1.PersistentVolume
	Volumes() []*corev1.PersistentVolume
	Class(name string) *storagev1.StorageClass
	CSINode(name string) *storagev1.CSINode
	CSIDriver(name string) *storagev1.CSIDriver
	Capacities() []*storagev1.CSIStorageCapacity
	// Attachments are those to a node.
	Attachments(node string) []*storagev1.VolumeAttachment
}

// NoStorage is a cluster without volumes.
type NoStorage struct{}

// Claim implements Storage.
func (NoStorage) Claim(string, string) *corev1.PersistentVolumeClaim { return nil }

// Volume implements Storage.
func (NoStorage) Volume(string) *corev1.PersistentVolume { return nil }

// Volumes implements Storage.
func (NoStorage) Volumes() []*corev1.PersistentVolume { return nil }

// Class implements Storage.
func (NoStorage) Class(string) *storagev1.StorageClass { return nil }

// CSINode implements Storage.
func (NoStorage) CSINode(string) *storagev1.CSINode { return nil }

// CSIDriver implements Storage.
func (NoStorage) CSIDriver(string) *storagev1.CSIDriver { return nil }

// Capacities implements Storage.
func (NoStorage) Capacities() []*storagev1.CSIStorageCapacity { return nil }

// Attachments implements Storage.
func (NoStorage) Attachments(string) []*storagev1.VolumeAttachment { return nil }
