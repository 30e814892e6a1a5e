package apiserver

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	"golang.org/x/sync/errgroup"

	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
)

// bootstrapWriters is how many of the first objects are written at once.
const bootstrapWriters = 16

// bootstrapPatience bounds the making of the first objects.
const bootstrapPatience = 60 * time.Second

// The values of the two classes that keep a cluster alive.
const (
	nodeCritical    = 2000001000
	clusterCritical = 2000000000
)

// wanted is one object that must exist. repair changes what is there already
// and says whether it did; nil leaves it alone.
type wanted struct {
	at     target.Target
	obj    kinds.Object
	repair func(have kinds.Object) bool
}

// bootstrap makes the objects that every cluster has: namespaces first, for they
// hold some of the others.
func (s *Server) bootstrap(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootstrapPatience)
	defer cancel()
	var spaces []wanted
	for _, name := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease} {
		spaces = append(spaces, want(corev1.SchemeGroupVersion.WithResource("namespaces"),
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, nil))
	}
	if err := s.ensureAll(ctx, spaces); err != nil {
		return err
	}
	if err := s.ensureAll(ctx, append(s.policyObjects(), s.firstObjects()...)); err != nil {
		return err
	}
	if err := s.keepFormerAgents(ctx); err != nil {
		return err
	}
	return s.serviceRanges(ctx)
}

// want names obj by its own metadata.
func want(gvr schema.GroupVersionResource, obj kinds.Object, repair func(have kinds.Object) bool) wanted {
	return wanted{at: target.Of(gvr, obj.GetNamespace()).Object(obj.GetName()), obj: obj, repair: repair}
}

// ensureAll makes or repairs all of them, several at once.
func (s *Server) ensureAll(ctx context.Context, all []wanted) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(bootstrapWriters)
	for _, w := range all {
		if !s.served(w.at.Resource) {
			continue
		}
		g.Go(func() error { return s.ensure(ctx, w) })
	}
	return g.Wait()
}

func (s *Server) served(gvr schema.GroupVersionResource) bool {
	for _, k := range s.cfg.Kinds {
		if k.GVR() == gvr {
			return true
		}
	}
	return false
}

// ensure creates what is missing and repairs what is there; another server may
// be doing the same.
func (s *Server) ensure(ctx context.Context, w wanted) error {
	for {
		have, err := s.own.Get(ctx, w.at, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			_, err = s.own.Create(ctx, target.Of(w.at.Resource, w.at.Namespace), w.obj, metav1.CreateOptions{})
		case err != nil || w.repair == nil:
		default:
			next, ok := have.DeepCopyObject().(kinds.Object)
			if !ok || !w.repair(next) {
				return nil
			}
			_, err = s.own.Update(ctx, w.at, next, metav1.UpdateOptions{})
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("ensure %s: %w", w.at, err)
		}
	}
}

// policyObjects are the default roles and bindings. A start adds what is missing
// from them; a binding whose role differs is left to its administrator.
func (s *Server) policyObjects() (all []wanted) {
	gv := rbacv1.SchemeGroupVersion
	for _, r := range s.defaults.ClusterRoles {
		all = append(all, want(gv.WithResource("clusterroles"), r, func(have kinds.Object) (changed bool) {
			h := have.(*rbacv1.ClusterRole)
			if r.AggregationRule != nil {
				return false
			}
			h.Rules, changed = authz.RepairRules(h, h.Rules, r.Rules)
			return changed
		}))
	}
	for _, r := range s.defaults.Roles {
		all = append(all, want(gv.WithResource("roles"), r, func(have kinds.Object) (changed bool) {
			h := have.(*rbacv1.Role)
			h.Rules, changed = authz.RepairRules(h, h.Rules, r.Rules)
			return changed
		}))
	}
	for _, b := range s.defaults.ClusterRoleBindings {
		all = append(all, want(gv.WithResource("clusterrolebindings"), b, func(have kinds.Object) (changed bool) {
			h := have.(*rbacv1.ClusterRoleBinding)
			if h.RoleRef != b.RoleRef {
				return false
			}
			h.Subjects, changed = authz.RepairSubjects(h, h.Subjects, b.Subjects)
			return changed
		}))
	}
	for _, b := range s.defaults.RoleBindings {
		all = append(all, want(gv.WithResource("rolebindings"), b, func(have kinds.Object) (changed bool) {
			h := have.(*rbacv1.RoleBinding)
			if h.RoleRef != b.RoleRef {
				return false
			}
			h.Subjects, changed = authz.RepairSubjects(h, h.Subjects, b.Subjects)
			return changed
		}))
	}
	return all
}

// firstObjects are priority classes, the server's own service and what tells
// extension servers whom to trust.
func (s *Server) firstObjects() []wanted {
	classes := schedulingv1.SchemeGroupVersion.WithResource("priorityclasses")
	class := func(name string, value int32, about string) wanted {
		return want(classes, &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value, Description: about}, nil)
	}
	all := []wanted{
		class("system-node-critical", nodeCritical, "Used for system critical pods that must not be moved from their current node."),
		class("system-cluster-critical", clusterCritical, "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."),
		s.trust(),
	}
	return append(all, s.ownService()...)
}

// ownService is "kubernetes" in the default namespace and, when the server has
// an address that pods can reach, what stands behind it.
func (s *Server) ownService() []wanted {
	meta := metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "kubernetes",
		Labels: map[string]string{"component": "apiserver", "provider": "kubernetes"}}
	at := s.cfg.Advertise
	single, cluster := corev1.IPFamilyPolicySingleStack, corev1.ServiceAffinityNone
	port := int32(at.Port())
	if port == 0 {
		port = 443
	}
	svc := &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeClusterIP, ClusterIP: s.addresses.First().String(), SessionAffinity: cluster, IPFamilyPolicy: &single,
		Ports: []corev1.ServicePort{{Name: "https", Protocol: corev1.ProtocolTCP, Port: 443, TargetPort: intstr.FromInt32(port)}},
	}}
	all := []wanted{want(corev1.SchemeGroupVersion.WithResource("services"), svc, func(have kinds.Object) bool {
		h := have.(*corev1.Service)
		if len(h.Spec.Ports) == 1 && h.Spec.Ports[0].TargetPort == svc.Spec.Ports[0].TargetPort {
			return false
		}
		h.Spec.Ports = svc.Spec.Ports
		return true
	})}
	if !reachable(at.Addr()) {
		return all
	}
	return append(all, behind(at)...)
}

// reachable: loopback and its like mean something else in every pod.
func reachable(a netip.Addr) bool {
	return a.IsValid() && !a.IsLoopback() && !a.IsUnspecified() && !a.IsLinkLocalUnicast() && !a.IsMulticast()
}

// behind is the server's address as Endpoints and as an EndpointSlice. With
// several servers, the one that started last stands behind the service.
func behind(at netip.AddrPort) []wanted {
	name, protocol, port, ready := "https", corev1.ProtocolTCP, int32(at.Port()), true
	family := discoveryv1.AddressTypeIPv4
	if at.Addr().Is6() {
		family = discoveryv1.AddressTypeIPv6
	}
	meta := metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "kubernetes",
		Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"}}
	points := &corev1.Endpoints{ObjectMeta: meta, Subsets: []corev1.EndpointSubset{{
		Addresses: []corev1.EndpointAddress{{IP: at.Addr().String()}},
		Ports:     []corev1.EndpointPort{{Name: name, Port: port, Protocol: protocol}},
	}}}
	sliceMeta := metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "kubernetes",
		Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"}}
	slice := &discoveryv1.EndpointSlice{ObjectMeta: sliceMeta, AddressType: family,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{at.Addr().String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
		Ports:     []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &protocol}}}
	return []wanted{
		want(corev1.SchemeGroupVersion.WithResource("endpoints"), points, func(have kinds.Object) bool {
			h := have.(*corev1.Endpoints)
			if equality.Semantic.DeepEqual(h.Subsets, points.Subsets) {
				return false
			}
			h.Subsets = points.Subsets
			return true
		}),
		want(discoveryv1.SchemeGroupVersion.WithResource("endpointslices"), slice, func(have kinds.Object) bool {
			h := have.(*discoveryv1.EndpointSlice)
			if equality.Semantic.DeepEqual(h.Endpoints, slice.Endpoints) && equality.Semantic.DeepEqual(h.Ports, slice.Ports) {
				return false
			}
			h.Endpoints, h.Ports = slice.Endpoints, slice.Ports
			return true
		}),
	}
}
