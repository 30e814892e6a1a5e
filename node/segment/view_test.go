package segment

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// world is what the API server and the node's engine tell of networks.
type world struct {
	services []*corev1.Service
	slices   []*discoveryv1.EndpointSlice
	s        *Segments
}

func newWorld() *world {
	return &world{s: New(Config{Domain: "cluster.local.", Pods: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}})}
}

// network makes one with members such as "a=10.1.0.1".
func (w *world) network(name string, annotations map[string]string, members ...string) {
	meta := metav1.ObjectMeta{Namespace: "ns", Name: "sampan-network-" + name, Labels: map[string]string{Label: name}, Annotations: annotations}
	slice := &discoveryv1.EndpointSlice{ObjectMeta: meta}
	for _, m := range members {
		pod, ip, _ := strings.Cut(m, "=")
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{ip}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "ns", Name: pod, UID: types.UID("uid-of-" + pod)},
		})
	}
	w.services = append(w.services, &corev1.Service{ObjectMeta: meta})
	w.slices = append(w.slices, slice)
}

// attached tells of a pod of the node as its engine does.
func (w *world) attached(name, ip string, networks ...string) {
	uid, addr := types.UID("uid-of-"+name), netip.MustParseAddr(ip)
	w.s.owners[addr] = owner{uid, "ns"}
	if len(networks) > 0 {
		w.s.local[uid] = &pod{uid: uid, namespace: "ns", name: name, addrs: []netip.Addr{addr}, fresh: networks}
	}
}

func (w *world) view() view {
	w.s.view = picture{services: w.services, slices: w.slices, local: w.s.local, owners: w.s.owners, ranges: w.s.cfg.Pods}.view()
	return w.s.view
}

// Who reaches whom, who knows which names, and who has a way out.
func TestView(t *testing.T) {
	w := newWorld()
	w.network("front", map[string]string{AliasPrefix + "web": "www,shop"}, "web=10.1.0.1", "both=10.1.0.2")
	w.network("back", map[string]string{InternalAnnotation: "true"}, "both=10.1.0.2", "db=10.1.0.3")
	w.network(Bridge, nil, "web=10.1.0.1")
	w.network(None, nil, "lone=10.1.0.4", "other=10.1.0.6")
	v := w.view()
	r := rulesOf(v)
	names := map[string]string{"web": "10.1.0.1", "both": "10.1.0.2", "db": "10.1.0.3", "lone": "10.1.0.4", "plain": "10.1.0.5", "other": "10.1.0.6"}
	at := func(name string) netip.Addr { return netip.MustParseAddr(names[name]) }
	var reach []string
	order := []string{"web", "both", "db", "lone", "other", "plain"}
	for i, a := range order {
		for _, b := range order[i+1:] {
			if r.reaches(at(a), at(b)) != r.reaches(at(b), at(a)) {
				t.Errorf("%s and %s: in one direction alone", a, b)
			}
			if r.reaches(at(a), at(b)) {
				reach = append(reach, a+"-"+b)
			}
		}
	}
	if got, want := strings.Join(reach, " "), "web-both web-plain both-db"; got != want {
		t.Errorf("reach each other: %s, want %s", got, want)
	}
	for question, want := range map[string]string{
		"web both.": "[10.1.0.2]", "both web.": "[10.1.0.1]", "both shop.": "[10.1.0.1]", "both shop.front.": "[10.1.0.1]", "both shop.back.": "[]", "web db.": "[]",
		"both db.ns.svc.cluster.local.": "[10.1.0.3]", "both db.svc.cluster.local.": "[10.1.0.3]", "both db.cluster.local.": "[10.1.0.3]", "both db.other.svc.cluster.local.": "[]",
		"plain web.": "[]", "lone other.": "[]", "both uid-of-web.": "[]", "both both.": "[10.1.0.2]",
	} {
		from, name, _ := strings.Cut(question, " ")
		if got := fmt.Sprint(w.s.Names(at(from), name)); got != want {
			t.Errorf("%s means %s, want %s", question, got, want)
		}
	}
	for question, want := range map[string]string{"both web": "web.front.", "both db": "db.back.", "web db": "", "plain web": "", "web plain": "", "lone other": ""} {
		from, to, _ := strings.Cut(question, " ")
		if got := w.s.Called(at(from), at(to)); got != want {
			t.Errorf("%s is called %q, want %q", question, got, want)
		}
	}
	var confined []string
	for _, name := range order {
		if w.s.Confined(at(name)) {
			confined = append(confined, name)
		}
	}
	if !slices.Equal(confined, []string{"db", "lone", "other"}) {
		t.Errorf("without a way out: %v", confined)
	}
}

// A pod of this node has the addresses that its engine has given it: one that a slice still
// tells of may be another pod's by now.
func TestFormerAddress(t *testing.T) {
	w := newWorld()
	w.attached("web", "10.1.0.2", "front")
	w.network("front", nil, "web=10.1.0.1") // of its sandbox before
	w.view()
	w.attached("next", "10.1.0.1")
	if v := w.view(); v.fenced(netip.MustParseAddr("10.1.0.1")) || !v.fenced(netip.MustParseAddr("10.1.0.2")) {
		t.Errorf("on the network are %v", v.members)
	}
}

// A slice puts no pod of another namespace on a network, nor a node, whatever it says: who
// is on a network is cut off from all others.
func TestForged(t *testing.T) {
	for name, forge := range map[string]func(e *discoveryv1.Endpoint){
		"a pod of this node that is on no network":   func(e *discoveryv1.Endpoint) { e.TargetRef.UID, e.Addresses = "uid-of-plain", []string{"10.1.0.1"} },
		"a pod of this node that is on a network":    func(e *discoveryv1.Endpoint) { e.TargetRef.UID, e.Addresses = "uid-of-web", []string{"10.1.0.2"} },
		"a pod of another node, said to be theirs":   func(e *discoveryv1.Endpoint) { e.TargetRef.Namespace, e.Addresses = "ns", []string{"10.1.9.9"} },
		"a pod that has the address of another":      func(e *discoveryv1.Endpoint) { e.Addresses = []string{"10.1.0.1"} },
		"a node":                                     func(e *discoveryv1.Endpoint) { e.Addresses = []string{"192.0.2.1"} },
		"a pod with the host's network of this node": func(e *discoveryv1.Endpoint) { e.TargetRef.UID, e.Addresses = "uid-of-plain", []string{"192.0.2.1"} },
	} {
		w := newWorld()
		w.attached("plain", "10.1.0.1")
		w.attached("web", "10.1.0.2", "front")
		w.network("front", nil, "web=10.1.0.2")
		e := discoveryv1.Endpoint{TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "theirs", Name: "x", UID: "x"}}
		forge(&e)
		w.slices = append(w.slices, &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: "theirs", Name: "x", Labels: map[string]string{Label: "x"}}, Endpoints: []discoveryv1.Endpoint{e}})
		v := w.view()
		if len(v.pods) != 1 || len(v.members) != 1 || v.pods[0].on[network{"theirs", "x"}] {
			t.Errorf("%s is on a network of theirs: %v", name, v.members)
		}
	}
}

// A pod of the node is on its networks before any slice tells, what slices have told is
// theirs to take back, and an address that is another pod's by now is no longer the old one's.
func TestFresh(t *testing.T) {
	w := newWorld()
	db, web, next := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.1.0.3")
	w.network("back", nil, "db=10.1.0.1")
	w.attached("web", "10.1.0.2", "back")
	if v := w.view(); !rulesOf(v).reaches(db, web) || len(w.s.Names(web, "db.")) != 1 || len(w.s.Names(db, "web.")) != 1 {
		t.Error("before the slice: they do not reach each other")
	}
	w.services, w.slices = nil, nil
	w.network("back", nil, "db=10.1.0.1", "web=10.1.0.2")
	w.view()
	w.services, w.slices = nil, nil
	w.network("back", nil, "db=10.1.0.1")
	w.network(None, nil, "web=10.1.0.2")
	if v := w.view(); rulesOf(v).reaches(db, web) || !v.fenced(web) {
		t.Error("who has been taken off still reaches it")
	}
	w.attached("next", "10.1.0.1")
	v := w.view()
	if v.fenced(db) || !rulesOf(v).reaches(db, next) {
		t.Error("a pod with the address of one that has gone is kept to that one's network")
	}
}
