package endpointslicemirroring

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// endpoints reads subsets such as "10.0.0.1 10.0.0.2! : http=80 https=443"; the
// mark is on addresses that are not ready.
func endpoints(subsets ...string) *corev1.Endpoints {
	e := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{
		Namespace: "ns", Name: "s", UID: "e1", Labels: map[string]string{"a": "b"},
		Annotations: map[string]string{"note": "x", corev1.LastAppliedConfigAnnotation: "{}"},
	}}
	for _, text := range subsets {
		addresses, ports, _ := strings.Cut(text, ":: ")
		var s corev1.EndpointSubset
		for _, ip := range strings.Fields(addresses) {
			if plain, down := strings.CutSuffix(ip, "!"); down {
				s.NotReadyAddresses = append(s.NotReadyAddresses, corev1.EndpointAddress{IP: plain})
				continue
			}
			s.Addresses = append(s.Addresses, corev1.EndpointAddress{IP: ip})
		}
		for _, p := range strings.Fields(ports) {
			port := corev1.EndpointPort{Protocol: corev1.ProtocolTCP}
			name, number, _ := strings.Cut(p, "=")
			port.Name = name
			if _, err := fmt.Sscan(number, &port.Port); err != nil {
				panic(err)
			}
			s.Ports = append(s.Ports, port)
		}
		e.Subsets = append(e.Subsets, s)
	}
	return e
}

func show(s *discoveryv1.EndpointSlice) string {
	var ports []string
	for _, p := range s.Ports {
		ports = append(ports, fmt.Sprintf("%s=%d", *p.Name, *p.Port))
	}
	var all []string
	for _, e := range s.Endpoints {
		mark := ""
		if !*e.Conditions.Ready {
			mark = "!"
		}
		all = append(all, e.Addresses[0]+mark)
	}
	return fmt.Sprintf("%s %s :: %s", s.AddressType, strings.Join(all, " "), strings.Join(ports, " "))
}

func showAll(list []*discoveryv1.EndpointSlice) string {
	var all []string
	for _, s := range list {
		all = append(all, show(s))
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func TestDecide(t *testing.T) {
	many := strings.Builder{}
	for i := range maxEndpoints + 3 {
		fmt.Fprintf(&many, "10.0.%d.%d ", i/256, i%256)
	}
	tests := map[string]struct {
		subsets          []string
		want             string
		invalid, surplus int
	}{
		"one":                       {subsets: []string{"10.0.0.1 10.0.0.2! :: http=80"}, want: "IPv4 10.0.0.1 10.0.0.2! :: http=80"},
		"both families":             {subsets: []string{"10.0.0.1 fd00::1 :: http=80"}, want: "IPv4 10.0.0.1 :: http=80\nIPv6 fd00::1 :: http=80"},
		"ports of the same":         {subsets: []string{"10.0.0.1 :: a=1", "10.0.0.1 :: b=2"}, want: "IPv4 10.0.0.1 :: a=1 b=2"},
		"ports of others":           {subsets: []string{"10.0.0.1 :: a=1", "10.0.0.2 :: b=2"}, want: "IPv4 10.0.0.1 :: a=1\nIPv4 10.0.0.2 :: b=2"},
		"not ready wins":            {subsets: []string{"10.0.0.1 :: a=1", "10.0.0.1! :: a=1"}, want: "IPv4 10.0.0.1! :: a=1"},
		"without ports":             {subsets: []string{"10.0.0.1"}, want: "IPv4 10.0.0.1 :: "},
		"an address that is no one": {subsets: []string{"10.0.0.256 10.0.0.1 :: a=1"}, want: "IPv4 10.0.0.1 :: a=1", invalid: 1},
		"nothing":                   {},
		"more than a slice has":     {subsets: []string{many.String() + ":: a=1"}, surplus: 3, want: "-"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := decide(endpoints(tt.subsets...), nil)
			if got := showAll(p.create); got != tt.want && tt.want != "-" {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			if p.invalid != tt.invalid || p.surplus != tt.surplus || len(p.update)+len(p.remove) > 0 {
				t.Errorf("%d invalid, %d surplus, %d updated, %d removed", p.invalid, p.surplus, len(p.update), len(p.remove))
			}
			for i, s := range p.create {
				s.Name = fmt.Sprint("s-", i)
			}
			again := decide(endpoints(tt.subsets...), p.create)
			if n := len(again.create) + len(again.update) + len(again.remove); n > 0 {
				t.Errorf("what is right is changed: %+v", again)
			}
		})
	}
}

// A slice is taken over when the ports change, and follows metadata and owner.
func TestDecideAgain(t *testing.T) {
	first := decide(endpoints("10.0.0.1 :: a=1"), nil).create
	first[0].Name = "s-x"
	next := endpoints("10.0.0.1 :: b=2")
	next.UID, next.Labels = "e2", map[string]string{"c": "d"}
	p := decide(next, first)
	if len(p.create)+len(p.remove) > 0 || len(p.update) != 1 {
		t.Fatalf("want one update: %+v", p)
	}
	s := p.update[0]
	if s.Name != "s-x" || show(s) != "IPv4 10.0.0.1 :: b=2" || s.OwnerReferences[0].UID != "e2" {
		t.Errorf("%s %s owned by %s", s.Name, show(s), s.OwnerReferences[0].UID)
	}
	want := map[string]string{"c": "d", discoveryv1.LabelServiceName: "s", discoveryv1.LabelManagedBy: managedBy}
	if fmt.Sprint(s.Labels) != fmt.Sprint(want) || fmt.Sprint(s.Annotations) != fmt.Sprint(map[string]string{"note": "x"}) {
		t.Errorf("labels %v, annotations %v", s.Labels, s.Annotations)
	}
	if gone := decide(endpoints(), first); len(gone.remove) != 1 {
		t.Errorf("an empty Endpoints keeps its slice: %+v", gone)
	}
}
