package segment

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
)

// network names one of a namespace's networks.
type network struct{ namespace, name string }

// pod is one that is on networks.
type pod struct {
	uid                       types.UID
	namespace, name, hostname string
	addrs                     []netip.Addr
	// on are its networks; fresh those of its labels that no slice has told of yet.
	on    map[network]bool
	fresh []string
}

// picture is all that is known at a moment.
type picture struct {
	services []*corev1.Service
	slices   []*discoveryv1.EndpointSlice
	local    map[types.UID]*pod
	owners   map[netip.Addr]owner
	// ranges are those of all pods of the cluster.
	ranges []netip.Prefix
}

// owner is the pod of this node that has an address.
type owner struct {
	uid       types.UID
	namespace string
}

// view is who is on what.
type view struct {
	pods   []*pod
	byAddr map[netip.Addr]*pod
	// members are each network's addresses, sorted; internal are those without a way out.
	members  map[network][]netip.Addr
	internal map[network]bool
	// called are the pods of a network by their names in lower case.
	called map[network]map[string][]*pod
}

// namesIn are the networks that a pod's labels say it is on.
func namesIn(labels map[string]string) []string {
	var all []string
	for label, value := range labels {
		if name, ok := strings.CutPrefix(label, Member); ok && value == IsMember {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// view makes it. What a slice has told of a pod once is the slice's to say from then on:
// fresh loses it.
func (k picture) view() view {
	v := view{byAddr: map[netip.Addr]*pod{}, members: map[network][]netip.Addr{}, internal: map[network]bool{}, called: map[network]map[string][]*pod{}}
	pods := map[types.UID]*pod{}
	for uid, p := range k.local {
		p.on = map[network]bool{}
		pods[uid] = p
	}
	for _, s := range k.slices {
		n := network{s.Namespace, s.Labels[Label]}
		for i := range s.Endpoints {
			k.endpoint(pods, n, &s.Endpoints[i])
		}
	}
	for _, p := range k.local {
		for _, name := range p.fresh {
			p.on[network{p.namespace, name}] = true
		}
	}
	aliases := map[network]map[string]string{}
	for _, svc := range k.services {
		n := network{svc.Namespace, svc.Labels[Label]}
		v.internal[n] = svc.Annotations[InternalAnnotation] == "true"
		aliases[n] = svc.Annotations
	}
	for _, p := range pods {
		v.add(p, aliases)
	}
	slices.SortFunc(v.pods, func(a, b *pod) int { return strings.Compare(string(a.uid), string(b.uid)) })
	for _, list := range v.members {
		slices.SortFunc(list, netip.Addr.Compare)
	}
	return v
}

// endpoint takes one line of a slice. An address that is another pod's by now is left out,
// and so is one that is no pod's: who may write slices of a namespace shall put nobody on
// its networks but that namespace's own pods, and no node.
func (k picture) endpoint(pods map[types.UID]*pod, n network, e *discoveryv1.Endpoint) {
	ref := e.TargetRef
	if ref == nil || ref.Kind != "Pod" || n.name == "" || ref.Namespace != n.namespace {
		return
	}
	p := pods[ref.UID]
	if p != nil && p.namespace != n.namespace {
		return
	}
	if p == nil {
		p = &pod{uid: ref.UID, namespace: ref.Namespace, name: ref.Name, on: map[network]bool{}}
		pods[ref.UID] = p
	}
	addresses := e.Addresses
	if k.local[ref.UID] != nil {
		addresses = nil // it has those that the engine has told of: a slice may tell of former ones
	}
	for _, text := range addresses {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			continue
		}
		ip = ip.Unmap()
		of, known := k.owners[ip]
		if known && of != (owner{ref.UID, n.namespace}) || !known && !k.within(ip) {
			continue
		}
		if !slices.Contains(p.addrs, ip) {
			p.addrs = append(p.addrs, ip)
		}
	}
	p.on[n] = true
	p.fresh = slices.DeleteFunc(p.fresh, func(name string) bool { return name == n.name })
}

// within says whether an address can be that of a pod of another node.
func (k picture) within(ip netip.Addr) bool {
	return slices.ContainsFunc(k.ranges, func(p netip.Prefix) bool { return p.Contains(ip) })
}

func (v *view) add(p *pod, aliases map[network]map[string]string) {
	if len(p.on) == 0 || len(p.addrs) == 0 {
		return
	}
	v.pods = append(v.pods, p)
	for _, ip := range p.addrs {
		v.byAddr[ip] = p
	}
	for n := range p.on {
		if n.name == None {
			continue
		}
		v.members[n] = append(v.members[n], p.addrs...)
		if n.name == Bridge {
			continue // nobody has a name there
		}
		if v.called[n] == nil {
			v.called[n] = map[string][]*pod{}
		}
		for _, name := range namesOf(p, n, aliases[n]) {
			v.called[n][name] = append(v.called[n][name], p)
		}
	}
}

// shortID is how many digits docker shows of an ID.
const shortID = 12

// namesOf are a pod's names on a network, each also with the network's behind it.
func namesOf(p *pod, n network, annotations map[string]string) []string {
	names := []string{p.name}
	if len(p.uid) >= shortID {
		names = append(names, string(p.uid)[:shortID])
	}
	if p.hostname != "" {
		names = append(names, p.hostname)
	}
	if more := annotations[AliasPrefix+p.name]; more != "" {
		names = append(names, strings.Split(more, ",")...)
	}
	for i, name := range names {
		names[i] = strings.ToLower(name)
	}
	for _, name := range slices.Clone(names) {
		names = append(names, name+"."+n.name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// fenced says whether an address is that of a pod on networks by name.
func (v *view) fenced(ip netip.Addr) bool { return v.byAddr[ip] != nil }

// outward says whether a pod has a way out.
func (v *view) outward(p *pod) bool {
	for n := range p.on {
		if n.name != None && !v.internal[n] {
			return true
		}
	}
	return false
}

// find is what a name means to a pod: the addresses of those called so on the networks
// that it is on.
func (v *view) find(from *pod, name string) []netip.Addr {
	var all []netip.Addr
	for n := range from.on {
		for _, p := range v.called[n][name] {
			for _, ip := range p.addrs {
				if !slices.Contains(all, ip) {
					all = append(all, ip)
				}
			}
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all
}
