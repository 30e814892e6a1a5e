package serviceip

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/control/store/memory"
	"github.com/sampan-dev/sampan/internal/target"
)

func newAllocator(t *testing.T, exist []*corev1.Service, ranges ...string) *Allocator {
	t.Helper()
	book := memory.New(memory.Config{})
	t.Cleanup(func() { _ = book.Close() })
	cfg := Config{List: func(context.Context) ([]*corev1.Service, error) { return exist, nil }, Objects: newShelf(exist), Book: book}
	for _, r := range ranges {
		cfg.Ranges = append(cfg.Ranges, netip.MustParsePrefix(r))
	}
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// shelf keeps IPAddresses, as the API server does.
type shelf struct {
	mu    sync.Mutex
	addrs map[string]*networkingv1.IPAddress
	cidrs []*networkingv1.ServiceCIDR
}

func newShelf(exist []*corev1.Service) *shelf {
	s := &shelf{addrs: map[string]*networkingv1.IPAddress{}}
	for _, e := range exist {
		for addr := range holdings(e).addrs {
			s.addrs[addr.String()] = addressOf(addr, e)
		}
	}
	return s
}

func (s *shelf) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.addrs)
}

func (s *shelf) Get(_ context.Context, t target.Target, _ metav1.GetOptions) (runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.addrs[t.Name]; a != nil {
		return a, nil
	}
	return nil, apierrors.NewNotFound(t.Resource.GroupResource(), t.Name)
}

func (s *shelf) List(_ context.Context, t target.Target, _ metav1.ListOptions) (runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.Resource.Resource == "ipaddresses" {
		list := &networkingv1.IPAddressList{}
		for _, a := range s.addrs {
			list.Items = append(list.Items, *a)
		}
		return list, nil
	}
	list := &networkingv1.ServiceCIDRList{}
	for _, c := range s.cidrs {
		list.Items = append(list.Items, *c)
	}
	return list, nil
}

func (s *shelf) Create(_ context.Context, t target.Target, obj runtime.Object, _ metav1.CreateOptions) (runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := obj.(*networkingv1.IPAddress)
	if s.addrs[a.Name] != nil {
		return nil, apierrors.NewAlreadyExists(t.Resource.GroupResource(), a.Name)
	}
	s.addrs[a.Name] = a
	return a, nil
}

func (s *shelf) Delete(_ context.Context, t target.Target, _ metav1.DeleteOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.addrs, t.Name)
	return nil
}

func svc(change func(*corev1.ServiceSpec)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeClusterIP, Selector: map[string]string{"a": "b"},
		Ports: []corev1.ServicePort{{Name: "web", Port: 80, Protocol: corev1.ProtocolTCP}}}}
	if change != nil {
		change(&s.Spec)
	}
	return s
}

func TestCreate(t *testing.T) {
	require, single, odd := corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicySingleStack, corev1.IPFamilyPolicy("Both")
	cases := []struct {
		name   string
		ranges []string
		spec   func(*corev1.ServiceSpec)
		want   string // families, policy, number of addresses; or the error
	}{
		{"plain", []string{"10.96.0.0/24"}, nil, "[IPv4] SingleStack 1"},
		{"one's own address", []string{"10.96.0.0/24"}, func(s *corev1.ServiceSpec) { s.ClusterIP = "10.96.0.10" }, "[IPv4] SingleStack 1"},
		{"outside", []string{"10.96.0.0/24"}, func(s *corev1.ServiceSpec) { s.ClusterIP = "10.97.0.10" },
			`spec.clusterIPs: Invalid value: ["10.97.0.10"]: failed to allocate IP 10.97.0.10: the provided network does not match the current range`},
		{"a policy and a family that nobody knows", []string{"10.96.0.0/24"}, func(s *corev1.ServiceSpec) {
			s.IPFamilyPolicy, s.IPFamilies = &odd, []corev1.IPFamily{"IPv5"}
		}, `spec.ipFamilyPolicy: Unsupported value: "Both": supported values: "PreferDualStack", "RequireDualStack", "SingleStack"`},
		{"the range's own", []string{"10.96.0.0/24"}, func(s *corev1.ServiceSpec) { s.ClusterIP = "10.96.0.255" },
			`failed to allocate IP 10.96.0.255: the provided network does not match the current range`},
		{"taken", []string{"10.96.0.0/24"}, func(s *corev1.ServiceSpec) { s.ClusterIP = "10.96.0.5" },
			`failed to allocate IP 10.96.0.5: provided IP is already allocated`},
		{"headless", []string{"10.96.0.0/24"}, func(s *corev1.ServiceSpec) { s.ClusterIP = "None" }, "[IPv4] SingleStack 0"},
		{"headless without selector", []string{"10.96.0.0/24"}, func(s *corev1.ServiceSpec) { s.ClusterIP, s.Selector = "None", nil }, "[IPv4 IPv6] RequireDualStack 0"},
		{"external name", []string{"10.96.0.0/24"}, func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeExternalName }, "[] nil 0"},
		{"two families on a single-stack cluster", []string{"10.96.0.0/24"}, func(s *corev1.ServiceSpec) { s.IPFamilyPolicy = &require },
			`spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services`},
		{"two families", []string{"10.96.0.0/24", "fd00::/112"}, func(s *corev1.ServiceSpec) { s.IPFamilyPolicy = &require }, "[IPv4 IPv6] RequireDualStack 2"},
		{"the other family first", []string{"10.96.0.0/24", "fd00::/112"}, func(s *corev1.ServiceSpec) {
			s.IPFamilyPolicy, s.IPFamilies = &require, []corev1.IPFamily{"IPv6"}
		}, "[IPv6 IPv4] RequireDualStack 2"},
		{"family of an address", []string{"10.96.0.0/24", "fd00::/112"}, func(s *corev1.ServiceSpec) { s.ClusterIP = "fd00::10" }, "[IPv6] SingleStack 1"},
		{"a family that is not there", []string{"10.96.0.0/24"}, func(s *corev1.ServiceSpec) { s.IPFamilies = []corev1.IPFamily{"IPv6"} },
			`spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster`},
		{"too many for one", []string{"10.96.0.0/24"}, func(s *corev1.ServiceSpec) {
			s.IPFamilyPolicy, s.IPFamilies = &single, []corev1.IPFamily{"IPv4", "IPv6"}
		}, "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"},
		{"no address at all", []string{"10.96.0.0/24"}, func(s *corev1.ServiceSpec) { s.ClusterIP = "x" }, "must be a valid IP address"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			taken := svc(func(s *corev1.ServiceSpec) { s.ClusterIPs = []string{"10.96.0.5"} })
			s := svc(c.spec)
			_, err := newAllocator(t, []*corev1.Service{taken}, c.ranges...).BeginCreate(t.Context(), s, false)
			got := describe(s)
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func takenPorts(t *testing.T, a *Allocator) int {
	t.Helper()
	p, err := a.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p.count()
}

func describe(s *corev1.Service) string {
	policy, n := "nil", 0
	if s.Spec.IPFamilyPolicy != nil {
		policy = string(*s.Spec.IPFamilyPolicy)
	}
	for i, ip := range s.Spec.ClusterIPs {
		if addr, err := netip.ParseAddr(ip); err == nil && familyOf(addr) == s.Spec.IPFamilies[i] {
			n++
		}
	}
	return fmt.Sprint(s.Spec.IPFamilies, " ", policy, " ", n)
}

// Everything that a range holds is given once, concurrently, and again after it
// was freed.
func TestNobodySharesAnAddress(t *testing.T) {
	a := newAllocator(t, nil, "10.96.0.0/26")
	const room = 64 - 2 - 1 // without network, broadcast, and the API server's own
	var wg sync.WaitGroup
	made := make([]*corev1.Service, room)
	for i := range made {
		made[i] = svc(func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeNodePort })
		wg.Go(func() {
			finish, err := a.BeginCreate(t.Context(), made[i], false)
			if err != nil {
				t.Error(err)
				return
			}
			finish(true)
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, s := range made {
		for _, what := range []string{s.Spec.ClusterIP, fmt.Sprint(s.Spec.Ports[0].NodePort)} {
			if seen[what] || what == "10.96.0.1" || what == "" || what == "0" {
				t.Errorf("%s was given twice, or should not be given", what)
			}
			seen[what] = true
		}
	}
	if _, err := a.BeginCreate(t.Context(), svc(nil), false); !apierrors.IsInternalError(err) || !strings.Contains(err.Error(), "range is full") {
		t.Errorf("one more: %v", err)
	}
	a.AfterDelete(made[7], false)
	next := svc(nil)
	if _, err := a.BeginCreate(t.Context(), next, false); err != nil || next.Spec.ClusterIP != made[7].Spec.ClusterIP {
		t.Errorf("after a deletion: %s %v", next.Spec.ClusterIP, err)
	}
}

func TestWhatWasNotStoredIsFree(t *testing.T) {
	a := newAllocator(t, nil, "10.96.0.0/24")
	ask := func(dry bool) (func(bool), error) {
		return a.BeginCreate(t.Context(), svc(func(s *corev1.ServiceSpec) {
			s.Type, s.ClusterIP, s.Ports[0].NodePort = corev1.ServiceTypeNodePort, "10.96.0.9", 30100
		}), dry)
	}
	for _, c := range []struct{ dry, stored bool }{{false, false}, {true, true}, {false, true}} {
		finish, err := ask(c.dry)
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		finish(c.stored)
	}
	if _, err := ask(false); !apierrors.IsInvalid(err) {
		t.Errorf("after it was stored: %v", err)
	}
}

func TestPorts(t *testing.T) {
	a := newAllocator(t, nil, "10.96.0.0/24")
	create := func(change func(*corev1.ServiceSpec)) (*corev1.Service, error) {
		s := svc(func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeNodePort; change(s) })
		finish, err := a.BeginCreate(t.Context(), s, false)
		if err == nil {
			finish(true)
		}
		return s, err
	}
	dns, err := create(func(s *corev1.ServiceSpec) {
		s.Ports = []corev1.ServicePort{{Name: "tcp", Port: 53, Protocol: "TCP"}, {Name: "udp", Port: 53, Protocol: "UDP", NodePort: 30053}}
	})
	if err != nil || dns.Spec.Ports[0].NodePort != 30053 {
		t.Errorf("TCP and UDP share: %+v %v", dns.Spec.Ports, err)
	}
	for _, c := range []struct {
		port int32
		want string
	}{{30053, "spec.ports[0].nodePort: Invalid value: 30053: provided port is already allocated"},
		{80, "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"}} {
		if _, err := create(func(s *corev1.ServiceSpec) { s.Ports[0].NodePort = c.port }); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("port %d: %v", c.port, err)
		}
	}
	balanced, err := create(func(s *corev1.ServiceSpec) {
		s.Type, s.ExternalTrafficPolicy = corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal
	})
	if err != nil || balanced.Spec.HealthCheckNodePort == 0 || balanced.Spec.HealthCheckNodePort == balanced.Spec.Ports[0].NodePort {
		t.Errorf("health check port: %+v %v", balanced.Spec, err)
	}
}

func TestUpdate(t *testing.T) {
	a := newAllocator(t, nil, "10.96.0.0/24", "fd00::/112")
	old := svc(func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeNodePort })
	step := func(name string, change func(*corev1.ServiceSpec), want string) {
		t.Helper()
		next := old.DeepCopy()
		change(&next.Spec)
		finish, err := a.BeginUpdate(t.Context(), next, old, false)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		finish(true)
		got := fmt.Sprintf("%s, %d addresses and %d ports taken", describe(next), a.cfg.Objects.(*shelf).count(), takenPorts(t, a))
		if got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
		old = next
	}
	finish, err := a.BeginCreate(t.Context(), old, false)
	if err != nil {
		t.Fatal(err)
	}
	finish(true)
	ip, port := old.Spec.ClusterIP, old.Spec.Ports[0].NodePort
	require, single := corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicySingleStack
	step("the same manifest again", func(s *corev1.ServiceSpec) {
		s.ClusterIP, s.ClusterIPs, s.IPFamilies, s.IPFamilyPolicy, s.Ports[0].NodePort = "", nil, nil, nil, 0
	}, "[IPv4] SingleStack 1, 1 addresses and 1 ports taken")
	if old.Spec.ClusterIP != ip || old.Spec.Ports[0].NodePort != port {
		t.Errorf("the address or port changed: %+v", old.Spec)
	}
	step("two families", func(s *corev1.ServiceSpec) { s.IPFamilyPolicy = &require }, "[IPv4 IPv6] RequireDualStack 2, 2 addresses and 1 ports taken")
	step("one again", func(s *corev1.ServiceSpec) { s.IPFamilyPolicy = &single }, "[IPv4] SingleStack 1, 1 addresses and 1 ports taken")
	step("no node port", func(s *corev1.ServiceSpec) { s.Type, s.Ports[0].NodePort = corev1.ServiceTypeClusterIP, 0 }, "[IPv4] SingleStack 1, 1 addresses and 0 ports taken")
	step("no address", func(s *corev1.ServiceSpec) {
		s.Type, s.ClusterIP, s.ClusterIPs, s.IPFamilies, s.IPFamilyPolicy = corev1.ServiceTypeExternalName, "", nil, nil, nil
	}, "[] nil 0, 0 addresses and 0 ports taken")
	step("an address again", func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeNodePort }, "[IPv4] SingleStack 1, 1 addresses and 1 ports taken")
}

// A range counts unless it is said not to be ready: nobody may be there to say that it
// is, for that is a controller's work.
func TestReadiness(t *testing.T) {
	book := memory.New(memory.Config{})
	t.Cleanup(func() { _ = book.Close() })
	condition := func(status metav1.ConditionStatus) []metav1.Condition {
		return []metav1.Condition{{Type: networkingv1.ServiceCIDRConditionReady, Status: status}}
	}
	for _, c := range []struct {
		name       string
		conditions []metav1.Condition
		want       bool
	}{
		{"nothing said", nil, true},
		{"ready", condition(metav1.ConditionTrue), true},
		{"not ready", condition(metav1.ConditionFalse), false},
	} {
		shelf := newShelf(nil)
		shelf.cidrs = append(shelf.cidrs, &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "more"},
			Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.97.0.0/24"}}, Status: networkingv1.ServiceCIDRStatus{Conditions: c.conditions}})
		a, err := New(Config{Ranges: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/24")},
			List: func(context.Context) ([]*corev1.Service, error) { return nil, nil }, Objects: shelf, Book: book})
		if err != nil {
			t.Fatal(err)
		}
		ranges, err := a.prefixes(t.Context(), corev1.IPv4Protocol)
		if got := slices.Contains(ranges, netip.MustParsePrefix("10.97.0.0/24")); err != nil || got != c.want {
			t.Errorf("%s: %v, %v", c.name, ranges, err)
		}
	}
}
