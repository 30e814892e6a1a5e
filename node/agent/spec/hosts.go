package spec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Hosts is the text of a pod's /etc/hosts. A pod in the host's network gets the
// host's own file with its aliases added; any other one its own names.
func Hosts(pod *corev1.Pod, podIPs []string, clusterDomain, hostFile string) string {
	var b strings.Builder
	if pod.Spec.HostNetwork {
		b.WriteString("# Kubernetes-managed hosts file (host network).\n")
		b.WriteString(hostFile)
		aliases(&b, pod.Spec.HostAliases)
		return b.String()
	}
	b.WriteString("# Kubernetes-managed hosts file.\n" +
		"127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::0\tip6-localnet\n" +
		"fe00::0\tip6-mcastprefix\n" +
		"fe00::1\tip6-allnodes\n" +
		"fe00::2\tip6-allrouters\n")
	name, domain := Hostname(pod, clusterDomain)
	name = strings.TrimSuffix(name, "."+domain)
	for _, ip := range podIPs {
		if domain != "" {
			fmt.Fprintf(&b, "%s\t%s.%s\t%s\n", ip, name, domain, name)
			continue
		}
		fmt.Fprintf(&b, "%s\t%s\n", ip, name)
	}
	aliases(&b, pod.Spec.HostAliases)
	return b.String()
}

func aliases(b *strings.Builder, list []corev1.HostAlias) {
	if len(list) == 0 {
		return
	}
	b.WriteString("\n# Entries added by HostAliases.\n")
	for _, a := range list {
		fmt.Fprintf(b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
	}
}
