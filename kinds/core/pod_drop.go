package core

import (
	corev1 "k8s.io/api/core/v1"
)

// DropUnserved empties the fields of a pod that no node here does anything about,
// as upstream does with fields whose feature is off by default: modes of gRPC
// probes, protocols of HTTP probes, modes of empty directories, options of bind
// mounts, users of files in volumes, and who responds to evictions. What the old
// specification has is left, for an update to keep; old is nil on create.
//
// Two fields whose features are off upstream stay, since they are served: a
// container's stop signal and a pod's scheduling group.
func DropUnserved(spec, old *corev1.PodSpec) {
	var kept unserved
	if old != nil {
		kept.note(old)
	}
	if !kept.responders {
		spec.EvictionResponders = nil
	}
	eachContainer(spec, func(c *corev1.Container, _ place) {
		for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
			if p == nil {
				continue
			}
			if p.GRPC != nil && !kept.grpcMode {
				p.GRPC.Mode = nil
			}
			if p.HTTPGet != nil && !kept.protocol {
				p.HTTPGet.Protocol = nil
			}
		}
		for _, h := range hooks(c) {
			if h.HTTPGet != nil && !kept.protocol {
				h.HTTPGet.Protocol = nil
			}
		}
		for i := range c.VolumeMounts {
			if !kept.mountOptions {
				c.VolumeMounts[i].BindMountOptions = nil
			}
		}
	})
	for i := range spec.Volumes {
		v := &spec.Volumes[i]
		if v.EmptyDir != nil && !kept.dirMode {
			v.EmptyDir.Mode = nil
		}
	}
	if !kept.fileUser {
		eachFileUser(spec, func(user **int64) { *user = nil })
	}
}

// DropUnservedTemplate is DropUnserved for the pods of a template.
func DropUnservedTemplate(t, old *corev1.PodTemplateSpec) {
	if t == nil {
		return
	}
	if old == nil {
		DropUnserved(&t.Spec, nil)
		return
	}
	DropUnserved(&t.Spec, &old.Spec)
}

// unserved says which of the fields are in use.
type unserved struct{ responders, grpcMode, protocol, mountOptions, dirMode, fileUser bool }

func (u *unserved) note(spec *corev1.PodSpec) {
	u.responders = len(spec.EvictionResponders) > 0
	eachContainer(spec, func(c *corev1.Container, _ place) {
		for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
			u.grpcMode = u.grpcMode || p != nil && p.GRPC != nil && p.GRPC.Mode != nil
			u.protocol = u.protocol || p != nil && p.HTTPGet != nil && p.HTTPGet.Protocol != nil
		}
		for _, h := range hooks(c) {
			u.protocol = u.protocol || h.HTTPGet != nil && h.HTTPGet.Protocol != nil
		}
		for i := range c.VolumeMounts {
			u.mountOptions = u.mountOptions || len(c.VolumeMounts[i].BindMountOptions) > 0
		}
	})
	for i := range spec.Volumes {
		dir := spec.Volumes[i].EmptyDir
		u.dirMode = u.dirMode || dir != nil && dir.Mode != nil
	}
	eachFileUser(spec, func(user **int64) { u.fileUser = u.fileUser || *user != nil })
}

func hooks(c *corev1.Container) []*corev1.LifecycleHandler {
	var out []*corev1.LifecycleHandler
	if c.Lifecycle != nil && c.Lifecycle.PostStart != nil {
		out = append(out, c.Lifecycle.PostStart)
	}
	if c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
		out = append(out, c.Lifecycle.PreStop)
	}
	return out
}

// eachFileUser visits whose the files of a volume are.
func eachFileUser(spec *corev1.PodSpec, visit func(user **int64)) {
	keys := func(items []corev1.KeyToPath) {
		for i := range items {
			visit(&items[i].User)
		}
	}
	paths := func(items []corev1.DownwardAPIVolumeFile) {
		for i := range items {
			visit(&items[i].User)
		}
	}
	for i := range spec.Volumes {
		v := &spec.Volumes[i]
		switch {
		case v.Secret != nil:
			visit(&v.Secret.DefaultUser)
			keys(v.Secret.Items)
		case v.ConfigMap != nil:
			visit(&v.ConfigMap.DefaultUser)
			keys(v.ConfigMap.Items)
		case v.DownwardAPI != nil:
			visit(&v.DownwardAPI.DefaultUser)
			paths(v.DownwardAPI.Items)
		case v.Projected != nil:
			visit(&v.Projected.DefaultUser)
			for j := range v.Projected.Sources {
				eachSourceUser(&v.Projected.Sources[j], keys, paths, visit)
			}
		}
	}
}

func eachSourceUser(s *corev1.VolumeProjection, keys func([]corev1.KeyToPath), paths func([]corev1.DownwardAPIVolumeFile), visit func(user **int64)) {
	switch {
	case s.Secret != nil:
		keys(s.Secret.Items)
	case s.ConfigMap != nil:
		keys(s.ConfigMap.Items)
	case s.DownwardAPI != nil:
		paths(s.DownwardAPI.Items)
	case s.ServiceAccountToken != nil:
		visit(&s.ServiceAccountToken.User)
	case s.ClusterTrustBundle != nil:
		visit(&s.ClusterTrustBundle.User)
	case s.PodCertificate != nil:
		visit(&s.PodCertificate.User)
	}
}
