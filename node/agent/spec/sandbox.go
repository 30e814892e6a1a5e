package spec

import (
	"fmt"
	"maps"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/node/util/sysctl"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
)

// maxHostname is the kernel's limit for a host name.
const maxHostname = 63

// Sandbox is the configuration of a pod's sandbox.
func Sandbox(pod *corev1.Pod, attempt uint32, node Node) *rt.PodSandboxConfig {
	annotations := maps.Clone(pod.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[actual.AnnotationGracePeriod] = strconv.FormatInt(Grace(pod), 10)
	cfg := &rt.PodSandboxConfig{
		Metadata: &rt.PodSandboxMetadata{
			Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: attempt,
		},
		LogDirectory: node.LogDirectory(pod),
		DnsConfig:    DNS(pod, node),
		Labels:       podLabels(pod),
		Annotations:  annotations,
		PortMappings: ports(pod),
		Linux: &rt.LinuxPodSandboxConfig{
			CgroupParent:    CgroupParent(pod, node),
			SecurityContext: sandboxSecurity(pod, node),
			Sysctls:         sysctls(pod, node.Sysctls),
			Resources:       PodResources(pod, node),
			Overhead:        overhead(pod),
		},
	}
	if !pod.Spec.HostNetwork {
		cfg.Hostname, _ = Hostname(pod, node.ClusterDomain)
	}
	return cfg
}

// Hostname is the pod's host name and domain: the name is the pod's own or
// spec.hostname, the domain is there when spec.subdomain is. With
// setHostnameAsFQDN the name is the whole.
func Hostname(pod *corev1.Pod, clusterDomain string) (name, domain string) {
	override := pod.Spec.HostnameOverride
	switch {
	case override != nil:
		name = *override
	case pod.Spec.Hostname != "":
		name = pod.Spec.Hostname
	default:
		name = pod.Name
	}
	if len(name) > maxHostname {
		name = strings.TrimRight(name[:maxHostname], "-.")
	}
	if override != nil {
		return name, ""
	}
	if pod.Spec.Subdomain != "" {
		domain = pod.Spec.Subdomain + "." + pod.Namespace + ".svc." + clusterDomain
	}
	if domain != "" && pod.Spec.SetHostnameAsFQDN != nil && *pod.Spec.SetHostnameAsFQDN {
		return name + "." + domain, domain
	}
	return name, domain
}

// maxFQDN is what the kernel takes of a host name that is a whole domain name.
const maxFQDN = 64

// CheckHostname says what is wrong with a host name that is the whole domain name:
// unlike a pod's name it can't be cut.
func CheckHostname(pod *corev1.Pod, clusterDomain string) error {
	if pod.Spec.HostNetwork || pod.Spec.SetHostnameAsFQDN == nil || !*pod.Spec.SetHostnameAsFQDN {
		return nil
	}
	name, _ := Hostname(pod, clusterDomain)
	if len(name) <= maxFQDN {
		return nil
	}
	return fmt.Errorf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long (%d characters is the max, %d characters requested)",
		name, maxFQDN, len(name))
}

func ports(pod *corev1.Pod) []*rt.PortMapping {
	if pod.Spec.HostNetwork {
		return nil
	}
	var list []*rt.PortMapping
	for _, c := range Containers(pod) {
		for _, p := range c.Ports {
			if p.HostPort == 0 {
				continue
			}
			list = append(list, &rt.PortMapping{
				Protocol: protocol(p.Protocol), ContainerPort: p.ContainerPort, HostPort: p.HostPort, HostIp: p.HostIP,
			})
		}
	}
	return list
}

func protocol(p corev1.Protocol) rt.Protocol {
	switch p {
	case corev1.ProtocolUDP:
		return rt.Protocol_UDP
	case corev1.ProtocolSCTP:
		return rt.Protocol_SCTP
	}
	return rt.Protocol_TCP
}

// sysctls are those of the pod, and the node's defaults of parts that are the pod's own.
func sysctls(pod *corev1.Pod, defaults map[string]string) map[string]string {
	all := map[string]string{}
	for name, value := range defaults {
		if ownSysctl(pod, sysctl.NormalizeName(name)) {
			all[sysctl.NormalizeName(name)] = value
		}
	}
	if pod.Spec.SecurityContext == nil {
		return all
	}
	for _, s := range pod.Spec.SecurityContext.Sysctls {
		all[strings.ReplaceAll(s.Name, "/", ".")] = s.Value
	}
	return all
}

// ownSysctl reports whether a parameter is of a namespace that the pod has for itself.
func ownSysctl(pod *corev1.Pod, name string) bool {
	switch space, _, _ := sysctl.GetNamespace(name); space {
	case sysctl.IPCNamespace:
		return !pod.Spec.HostIPC
	case sysctl.NetNamespace, sysctl.UTSNamespace:
		return !pod.Spec.HostNetwork
	case sysctl.UserNamespace:
		return pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers
	}
	return false
}

// sandboxSecurity is what the sandbox itself runs with. Privileged only says
// that a container of the pod may be.
func sandboxSecurity(pod *corev1.Pod, node Node) *rt.LinuxSandboxSecurityContext {
	sc := &rt.LinuxSandboxSecurityContext{
		NamespaceOptions: Namespaces(pod),
		Seccomp:          &rt.SecurityProfile{ProfileType: rt.SecurityProfile_RuntimeDefault},
	}
	for _, c := range Containers(pod) {
		if c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged {
			sc.Privileged = true
		}
	}
	p := pod.Spec.SecurityContext
	if p == nil {
		return sc
	}
	if p.RunAsUser != nil {
		sc.RunAsUser = &rt.Int64Value{Value: *p.RunAsUser}
	}
	if p.RunAsUser != nil && p.RunAsGroup != nil {
		sc.RunAsGroup = &rt.Int64Value{Value: *p.RunAsGroup}
	}
	sc.SupplementalGroups = supplemental(pod)
	sc.SupplementalGroupsPolicy = groupsPolicy(pod)
	sc.SelinuxOptions = selinux(p.SELinuxOptions)
	if p.SeccompProfile != nil {
		sc.Seccomp = profile(p.SeccompProfile, node.SeccompRoot)
	}
	return sc
}

// OwnUsers says that the pod's users are not the host's: spec.hostUsers is false.
func OwnUsers(pod *corev1.Pod) bool { return pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers }

// Namespaces are the namespaces that a pod's containers share.
func Namespaces(pod *corev1.Pod) *rt.NamespaceOption {
	n := &rt.NamespaceOption{Network: rt.NamespaceMode_POD, Ipc: rt.NamespaceMode_POD, Pid: rt.NamespaceMode_CONTAINER}
	if pod.Spec.ShareProcessNamespace != nil && *pod.Spec.ShareProcessNamespace {
		n.Pid = rt.NamespaceMode_POD
	}
	if pod.Spec.HostPID {
		n.Pid = rt.NamespaceMode_NODE
	}
	if pod.Spec.HostNetwork {
		n.Network = rt.NamespaceMode_NODE
	}
	if pod.Spec.HostIPC {
		n.Ipc = rt.NamespaceMode_NODE
	}
	return n
}
