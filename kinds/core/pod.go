package core

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/kinds"
)

// Pod is the kind for containers that live and die together on one node.
func Pod() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("Pod"),
		Resource:   "pods",
		Singular:   "pod",
		Short:      []string{"po"},
		Categories: []string{"all"},
		Namespaced: true,
		Storage:    "pods",
		New:        func() kinds.Object { return &corev1.Pod{} },
		NewList:    func() runtime.Object { return &corev1.PodList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:  true,
			Ratchet:        podRatchet(),
			ReturnsDeleted: true,
			Default:        kinds.Each(DefaultPod),
			PrepareCreate:  kinds.Each(preparePod),
			PrepareUpdate:  kinds.Pair(preparePodUpdate),
			Validate:       kinds.Check(validatePodCreate),
			ValidateUpdate: kinds.CheckUpdate(validatePodUpdate),
			Warnings:       kinds.Warn(podWarnings),
			Generation:     true,
			Grace:          podGrace,
		},
		Table: kinds.Table{
			Columns: kinds.Explained(podTexts(), "Name", "Ready", "Status", "Restarts", "Age", "IP|wide", "Node|wide",
				"Nominated Node|wide", "Readiness Gates|wide"),
			Row: kinds.Row(podRow),
		},
		FieldAliases: map[string]string{"spec.host": "spec.nodeName"}, // from before it had that name
		FieldLabels: []string{
			"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
			"spec.hostNetwork", "status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName",
		},
		Fields:       kinds.Fields(podFields),
		Subresources: podSubresources(),
	}
}

func podFields(p *corev1.Pod) fields.Set {
	ips := make([]string, 0, len(p.Status.PodIPs))
	for _, ip := range p.Status.PodIPs {
		ips = append(ips, ip.IP)
	}
	hostNetwork := "false"
	if p.Spec.HostNetwork {
		hostNetwork = "true"
	}
	ip := p.Status.PodIP
	if ip == "" && len(ips) > 0 {
		ip = ips[0]
	}
	return fields.Set{
		"spec.nodeName":            p.Spec.NodeName,
		"spec.restartPolicy":       string(p.Spec.RestartPolicy),
		"spec.schedulerName":       p.Spec.SchedulerName,
		"spec.serviceAccountName":  p.Spec.ServiceAccountName,
		"spec.hostNetwork":         hostNetwork,
		"status.phase":             string(p.Status.Phase),
		"status.podIP":             ip,
		"status.podIPs":            strings.Join(ips, ","),
		"status.nominatedNodeName": p.Status.NominatedNodeName,
	}
}

func podSubresources() []kinds.Subresource {
	connect := []string{"create", "get"}
	return []kinds.Subresource{
		podStatus(),
		podEphemeralContainers(),
		podResize(),
		{
			Name: "binding", GVK: gvk("Binding"), Verbs: []string{"create"},
			New: func() runtime.Object { return &corev1.Binding{} },
		},
		{
			Name: "eviction", GVK: policyv1.SchemeGroupVersion.WithKind("Eviction"), Verbs: []string{"create"},
			Alike: []schema.GroupVersionKind{{Group: policyv1.GroupName, Version: "v1beta1", Kind: "Eviction"}}, // which older programs send
			New:   func() runtime.Object { return &policyv1.Eviction{} },
		},
		{Name: "log", GVK: gvk("Pod"), Verbs: []string{"get"}, New: func() runtime.Object { return &corev1.PodLogOptions{} }},
		{
			Name: "exec", GVK: gvk("PodExecOptions"), Verbs: connect,
			New: func() runtime.Object { return &corev1.PodExecOptions{} },
		},
		{
			Name: "attach", GVK: gvk("PodAttachOptions"), Verbs: connect,
			New: func() runtime.Object { return &corev1.PodAttachOptions{} },
		},
		{
			Name: "portforward", GVK: gvk("PodPortForwardOptions"), Verbs: connect,
			New: func() runtime.Object { return &corev1.PodPortForwardOptions{} },
		},
		proxyOf("PodProxyOptions", func() runtime.Object { return &corev1.PodProxyOptions{} }),
	}
}
