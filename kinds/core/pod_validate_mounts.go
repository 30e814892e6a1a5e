package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/sampan-dev/sampan/kinds"
)

func (c *podCheck) checkMounts(container *corev1.Container, at *kinds.Path) {
	deviceNames, devicePaths := sets.New[string](), sets.New[string]()
	for _, device := range container.VolumeDevices {
		deviceNames.Insert(device.Name)
		devicePaths.Insert(device.DevicePath)
	}
	paths := sets.New[string]()
	for i := range container.VolumeMounts {
		mount, here := &container.VolumeMounts[i], at.Index(i)
		c.NonEmpty(here.Child("name"), mount.Name)
		source, known := c.volumes[mount.Name]
		if !known {
			c.NotFound(here.Child("name"), mount.Name)
		}
		c.NonEmpty(here.Child("mountPath"), mount.MountPath)
		if paths.Has(mount.MountPath) {
			c.Invalid(here.Child("mountPath"), mount.MountPath, "must be unique")
		}
		paths.Insert(mount.MountPath)
		if deviceNames.Has(mount.Name) {
			c.Invalid(here.Child("name"), mount.Name, "must not already exist in volumeDevices")
		}
		if devicePaths.Has(mount.MountPath) {
			c.Invalid(here.Child("mountPath"), mount.MountPath, "must not already exist as a path in volumeDevices")
		}
		c.checkSubPath(mount, here, at)
		c.checkPropagation(container, mount, at)
		c.checkBindOptions(mount, known && source.Image != nil, here.Child("bindMountOptions"))
	}
}

// checkSubPath reports bad paths at the list of mounts, as upstream does.
func (c *podCheck) checkSubPath(mount *corev1.VolumeMount, at, list *kinds.Path) {
	if mount.SubPath != "" {
		c.descendingPath(list.Child("subPath"), mount.SubPath)
	}
	if mount.SubPathExpr == "" {
		return
	}
	if mount.SubPath != "" {
		c.Invalid(at.Child("subPathExpr"), mount.SubPathExpr, "subPathExpr and subPath are mutually exclusive")
	}
	c.descendingPath(list.Child("subPathExpr"), mount.SubPathExpr)
}

func (c *podCheck) checkPropagation(container *corev1.Container, mount *corev1.VolumeMount, list *kinds.Path) {
	if mode := mount.MountPropagation; mode != nil {
		at := list.Child("mountPropagation")
		kinds.OneOf(&c.Faults, at, *mode, corev1.MountPropagationBidirectional, corev1.MountPropagationHostToContainer,
			corev1.MountPropagationNone)
		privileged := container.SecurityContext != nil && kinds.Deref(container.SecurityContext.Privileged)
		if *mode == corev1.MountPropagationBidirectional && !privileged {
			c.Forbidden(at, "Bidirectional mount propagation is available only to privileged containers")
		}
	}
	if mount.RecursiveReadOnly == nil || *mount.RecursiveReadOnly == corev1.RecursiveReadOnlyDisabled {
		return
	}
	at := list.Child("recursiveReadOnly")
	switch *mount.RecursiveReadOnly {
	case corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible:
		if !mount.ReadOnly {
			c.Forbidden(at, "may only be specified when readOnly is true")
		}
		if mode := mount.MountPropagation; mode != nil && *mode != corev1.MountPropagationNone {
			c.Forbidden(at, "may only be specified when mountPropagation is None or not specified")
		}
	default:
		kinds.OneOf(&c.Faults, at, *mount.RecursiveReadOnly, corev1.RecursiveReadOnlyDisabled,
			corev1.RecursiveReadOnlyIfPossible, corev1.RecursiveReadOnlyEnabled)
	}
}

func (c *podCheck) checkBindOptions(mount *corev1.VolumeMount, image bool, at *kinds.Path) {
	seen := sets.New[string]()
	for i, option := range mount.BindMountOptions {
		kinds.OneOf(&c.Faults, at.Index(i), option, "noexec", "nodev", "nosuid")
		if seen.Has(option) {
			c.Duplicate(at.Index(i), option)
		}
		seen.Insert(option)
	}
	if image && len(mount.BindMountOptions) > 0 {
		c.Invalid(at, mount.BindMountOptions, "bindMountOptions may not be used with image volumes")
	}
}

func (c *podCheck) checkDevices(container *corev1.Container, at *kinds.Path) {
	mountNames, mountPaths := sets.New[string](), sets.New[string]()
	for _, mount := range container.VolumeMounts {
		mountNames.Insert(mount.Name)
		mountPaths.Insert(mount.MountPath)
	}
	names, paths := sets.New[string](), sets.New[string]()
	for i, device := range container.VolumeDevices {
		here := at.Index(i)
		c.NonEmpty(here.Child("name"), device.Name)
		if device.Name != "" && names.Has(device.Name) {
			c.Invalid(here.Child("name"), device.Name, "must be unique")
		}
		names.Insert(device.Name)
		source, known := c.volumes[device.Name]
		switch {
		case !known:
			c.NotFound(here.Child("name"), device.Name)
		case source.PersistentVolumeClaim == nil && source.Ephemeral == nil:
			c.Invalid(here.Child("name"), device.Name,
				"can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode")
		}
		c.NonEmpty(here.Child("devicePath"), device.DevicePath)
		if paths.Has(device.DevicePath) {
			c.Invalid(here.Child("devicePath"), device.DevicePath, "must be unique")
		}
		if hasBacksteps(device.DevicePath) {
			c.Invalid(here.Child("devicePath"), device.DevicePath, "can not contain backsteps ('..')")
		} else {
			paths.Insert(device.DevicePath)
		}
		if mountNames.Has(device.Name) {
			c.Invalid(here.Child("name"), device.Name, "must not already exist in volumeMounts")
		}
		if mountPaths.Has(device.DevicePath) {
			c.Invalid(here.Child("devicePath"), device.DevicePath, "must not already exist as a path in volumeMounts")
		}
	}
}
