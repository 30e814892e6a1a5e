package cli

import (
	"fmt"
	"net"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// hostGateway is docker's word for the address of this machine, as containers reach it.
const hostGateway = "host-gateway"

// names are --add-host and --dns.
func (b *podBuilder) names() error {
	for _, text := range b.flags.addHosts {
		at := strings.IndexAny(text, ":=")
		if at < 1 || at == len(text)-1 {
			return fmt.Errorf("--add-host %q: want HOST:IP", text)
		}
		host, ip := text[:at], text[at+1:]
		if ip = strings.Trim(ip, "[]"); ip != hostGateway && net.ParseIP(ip) == nil {
			return fmt.Errorf("--add-host %q: %q is no address", text, ip)
		}
		b.pod.Spec.HostAliases = append(b.pod.Spec.HostAliases, corev1.HostAlias{IP: ip, Hostnames: []string{host}})
	}
	if len(b.flags.dns)+len(b.flags.dnsSearch)+len(b.flags.dnsOptions) == 0 {
		return nil
	}
	if len(b.flags.dns) > 0 {
		b.pod.Spec.DNSPolicy = corev1.DNSNone
	}
	dns := &corev1.PodDNSConfig{Nameservers: b.flags.dns, Searches: b.flags.dnsSearch}
	for _, text := range b.flags.dnsOptions {
		name, value, ok := strings.Cut(text, ":")
		o := corev1.PodDNSConfigOption{Name: name}
		if ok {
			o.Value = &value
		}
		dns.Options = append(dns.Options, o)
	}
	b.pod.Spec.DNSConfig = dns
	return nil
}

// hostname has the container call itself as --hostname says. One with dots is in a domain,
// and is told to the pod as a whole (KEP-4762).
func (b *podBuilder) hostname() {
	name := b.flags.hostname
	if strings.Contains(name, ".") {
		b.pod.Spec.HostnameOverride = &name
		return
	}
	b.pod.Spec.Hostname = name
}

// reachHost gives the names that --add-host has for this machine the address of its node,
// which is nil where it is none.
func reachHost(pod *corev1.Pod, node *corev1.Node) error {
	for i := range pod.Spec.HostAliases {
		alias := &pod.Spec.HostAliases[i]
		if alias.IP != hostGateway {
			continue
		}
		if node == nil {
			return fmt.Errorf("--add-host %s:%s: this machine is no node of the cluster", alias.Hostnames[0], hostGateway)
		}
		j := slices.IndexFunc(node.Status.Addresses, func(a corev1.NodeAddress) bool { return a.Type == corev1.NodeInternalIP })
		if j < 0 {
			return fmt.Errorf("--add-host %s:%s: node %s has no address", alias.Hostnames[0], hostGateway, node.Name)
		}
		alias.IP = node.Status.Addresses[j].Address
	}
	return nil
}

// besideOf is what to do instead of sharing another container's namespaces.
func besideOf(name string) string {
	return "who shares a network, processes or memory is of one pod: sampan kubectl apply of a pod with both containers, or, to look into one that runs, " +
		"sampan kubectl debug -it " + name + " --image=IMAGE --target=" + name
}
