package spec

import (
	"bufio"
	"io"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Limits of a resolv.conf, as validation and glibc have them.
const (
	maxNameservers  = 3
	maxSearches     = 32
	maxSearchChars  = 2048
	maxResolverRead = 64 << 10
)

// Resolver is a parsed resolv.conf.
type Resolver struct {
	Servers, Searches, Options []string
}

// ParseResolver reads a resolv.conf; lines that it doesn't know are ignored.
func ParseResolver(r io.Reader) (Resolver, error) {
	var out Resolver
	lines := bufio.NewScanner(io.LimitReader(r, maxResolverRead))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			out.Servers = append(out.Servers, fields[1])
		case "search", "domain":
			out.Searches = fields[1:]
		case "options":
			out.Options = append(out.Options, fields[1:]...)
		}
	}
	out.Searches = slices.DeleteFunc(slices.Clone(out.Searches), func(s string) bool { return s == "." })
	return out, lines.Err()
}

// DNS is a pod's resolver configuration after its dnsPolicy and dnsConfig.
func DNS(pod *corev1.Pod, node Node) *rt.DNSConfig {
	policy := pod.Spec.DNSPolicy
	if policy == corev1.DNSClusterFirst && pod.Spec.HostNetwork {
		policy = corev1.DNSDefault
	}
	if policy == corev1.DNSClusterFirst || policy == corev1.DNSClusterFirstWithHostNet || policy == "" {
		policy = corev1.DNSClusterFirst
		if len(node.ClusterDNS) == 0 {
			policy = corev1.DNSDefault
		}
	}
	base := node.Resolver
	switch policy {
	case corev1.DNSNone:
		base = Resolver{}
	case corev1.DNSClusterFirst:
		base = clusterFirst(pod, node)
	}
	merged := merge(base, pod.Spec.DNSConfig)
	return &rt.DNSConfig{
		Servers:  merged.Servers[:min(len(merged.Servers), maxNameservers)],
		Searches: fitSearches(merged.Searches),
		Options:  merged.Options,
	}
}

func clusterFirst(pod *corev1.Pod, node Node) Resolver {
	var searches []string
	if d := node.ClusterDomain; d != "" {
		searches = []string{pod.Namespace + ".svc." + d, "svc." + d, d}
	}
	return Resolver{
		Servers:  node.ClusterDNS,
		Searches: unique(append(searches, node.Resolver.Searches...)),
		Options:  []string{"ndots:5"},
	}
}

func merge(base Resolver, more *corev1.PodDNSConfig) Resolver {
	if more == nil {
		return base
	}
	out := Resolver{
		Servers:  unique(append(slices.Clone(base.Servers), more.Nameservers...)),
		Searches: unique(append(slices.Clone(base.Searches), more.Searches...)),
		Options:  slices.Clone(base.Options),
	}
	for _, o := range more.Options {
		text := o.Name
		if o.Value != nil {
			text += ":" + *o.Value
		}
		same := func(have string) bool { name, _, _ := strings.Cut(have, ":"); return name == o.Name }
		if i := slices.IndexFunc(out.Options, same); i >= 0 {
			out.Options[i] = text
			continue
		}
		out.Options = append(out.Options, text)
	}
	return out
}

func unique(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

func fitSearches(list []string) []string {
	list = list[:min(len(list), maxSearches)]
	chars := 0
	for i, s := range list {
		chars += len(s) + 1
		if chars > maxSearchChars+1 {
			return list[:i]
		}
	}
	return list
}
