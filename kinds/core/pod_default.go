package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sampan-dev/sampan/kinds"
)

// DefaultPod fills what a client left out of a pod.
func DefaultPod(p *corev1.Pod) {
	DefaultPodSpec(&p.Spec)
	spec := &p.Spec
	if grace := spec.TerminationGracePeriodSeconds; grace != nil && *grace < 0 {
		one := int64(1)
		spec.TerminationGracePeriodSeconds = &one
	}
	for _, containers := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range containers {
			defaultRequests(&containers[i].Resources)
			if spec.HostNetwork {
				defaultHostPorts(containers[i].Ports)
			}
		}
	}
	orDefault(&spec.EnableServiceLinks, corev1.DefaultEnableServiceLinks)
	eachHTTPGet(spec, func(a *corev1.HTTPGetAction) { orDefault(&a.Protocol, corev1.HTTPProtocolHTTP1) })
	defaultPodStatus(&p.Status)
	p.Status.QOSClass = QOSClass(p)
}

// eachHTTPGet visits the HTTP requests of all probes and hooks.
func eachHTTPGet(spec *corev1.PodSpec, visit func(*corev1.HTTPGetAction)) {
	eachContainer(spec, func(c *corev1.Container, _ place) {
		for _, probe := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
			if probe != nil && probe.HTTPGet != nil {
				visit(probe.HTTPGet)
			}
		}
		if c.Lifecycle == nil {
			return
		}
		for _, hook := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
			if hook != nil && hook.HTTPGet != nil {
				visit(hook.HTTPGet)
			}
		}
	})
}

// DefaultPodTemplate fills a pod template in a workload. Less is filled than in
// a pod: what is added here becomes part of every template's hash.
func DefaultPodTemplate(t *corev1.PodTemplateSpec) { DefaultPodSpec(&t.Spec) }

// DefaultPodSpec fills what pods and pod templates share.
func DefaultPodSpec(spec *corev1.PodSpec) {
	for i := range spec.Volumes {
		defaultVolume(&spec.Volumes[i])
	}
	for i := range spec.InitContainers {
		defaultContainer(&spec.InitContainers[i])
	}
	for i := range spec.Containers {
		defaultContainer(&spec.Containers[i])
	}
	for i := range spec.EphemeralContainers {
		c := corev1.Container(spec.EphemeralContainers[i].EphemeralContainerCommon)
		defaultContainer(&c)
		spec.EphemeralContainers[i].EphemeralContainerCommon = corev1.EphemeralContainerCommon(c)
	}
	// The deprecated name follows the new one, wherever it was given.
	if spec.ServiceAccountName == "" {
		spec.ServiceAccountName = spec.DeprecatedServiceAccount
	}
	spec.DeprecatedServiceAccount = spec.ServiceAccountName
	orString(&spec.DNSPolicy, corev1.DNSClusterFirst)
	orString(&spec.RestartPolicy, corev1.RestartPolicyAlways)
	orString(&spec.SchedulerName, corev1.DefaultSchedulerName)
	orDefault(&spec.TerminationGracePeriodSeconds, corev1.DefaultTerminationGracePeriodSeconds)
	orDefault(&spec.SecurityContext, corev1.PodSecurityContext{})
	roundResources(spec.Overhead)
	if spec.Resources != nil {
		roundResources(spec.Resources.Limits)
		roundResources(spec.Resources.Requests)
	}
}

func orDefault[T any](p **T, value T) {
	if *p == nil {
		*p = &value
	}
}

func orString[T ~string](p *T, value T) {
	if *p == "" {
		*p = value
	}
}

func defaultContainer(c *corev1.Container) {
	orString(&c.ImagePullPolicy, pullPolicy(c.Image))
	orString(&c.TerminationMessagePath, corev1.TerminationMessagePathDefault)
	orString(&c.TerminationMessagePolicy, corev1.TerminationMessageReadFile)
	for i := range c.Ports {
		orString(&c.Ports[i].Protocol, corev1.ProtocolTCP)
	}
	for i := range c.Env {
		from := c.Env[i].ValueFrom
		if from == nil {
			continue
		}
		defaultFieldRef(from.FieldRef)
		if from.FileKeyRef != nil {
			orDefault(&from.FileKeyRef.Optional, false)
		}
	}
	roundResources(c.Resources.Limits)
	roundResources(c.Resources.Requests)
	for _, probe := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		defaultProbe(probe)
	}
	if c.Lifecycle == nil {
		return
	}
	for _, hook := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
		if hook != nil {
			defaultHTTPGet(hook.HTTPGet)
		}
	}
}

// pullPolicy is Always for the tag "latest", which is also that of images with
// neither tag nor digest, and IfNotPresent for all others, nonsense too.
func pullPolicy(image string) corev1.PullPolicy {
	if tag, _ := imageTag(image); tag == "latest" {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

func defaultProbe(p *corev1.Probe) {
	if p == nil {
		return
	}
	orNumber(&p.TimeoutSeconds, 1)
	orNumber(&p.PeriodSeconds, 10)
	orNumber(&p.SuccessThreshold, 1)
	orNumber(&p.FailureThreshold, 3)
	defaultHTTPGet(p.HTTPGet)
	if p.GRPC != nil {
		orDefault(&p.GRPC.Service, "")
	}
}

func orNumber(p *int32, value int32) {
	if *p == 0 {
		*p = value
	}
}

func defaultHTTPGet(a *corev1.HTTPGetAction) {
	if a == nil {
		return
	}
	orString(&a.Path, "/")
	orString(&a.Scheme, corev1.URISchemeHTTP)
}

func defaultFieldRef(ref *corev1.ObjectFieldSelector) {
	if ref != nil {
		orString(&ref.APIVersion, "v1")
	}
}

// roundResources rounds up to thousandths: finer amounts were never kept. It
// writes only what it changes, since the list may be shared with what is stored.
func roundResources(list corev1.ResourceList) {
	for name, amount := range list {
		rounded := amount.DeepCopy()
		if exact := rounded.RoundUp(resource.Milli); !exact {
			list[name] = rounded
		}
	}
}

// defaultRequests: what is limited but not requested is requested in full.
func defaultRequests(r *corev1.ResourceRequirements) {
	if r.Limits != nil {
		fillResources(&r.Requests, r.Limits)
	}
}

func defaultHostPorts(ports []corev1.ContainerPort) {
	for i := range ports {
		orNumber(&ports[i].HostPort, ports[i].ContainerPort)
	}
}

// defaultPodStatus keeps the one address and the list of them in step; the one
// wins, for the sake of old kubelets.
func defaultPodStatus(s *corev1.PodStatus) {
	switch {
	case s.PodIP == "" && len(s.PodIPs) > 0:
		s.PodIP = s.PodIPs[0].IP
	case s.PodIP != "" && (len(s.PodIPs) == 0 || s.PodIPs[0].IP != s.PodIP):
		s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	}
}

// Sidecar says whether an init container keeps running beside the others.
func Sidecar(c *corev1.Container) bool {
	return kinds.Deref(c.RestartPolicy) == corev1.ContainerRestartPolicyAlways
}
