package serviceip

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/internal/target"
)

const (
	// manager is the label of the addresses that are given here. Upstream's.
	manager = "ipallocator.k8s.io"
	// guesses is how often a random address is tried before each in turn.
	guesses = 16
	// maxScan bounds how many addresses are looked at in turn: a larger range is
	// never that full.
	maxScan = 1 << 20
	// releasePatience bounds the giving back of an address.
	releasePatience = 10 * time.Second
)

// Objects reads and writes as the server itself; ResourceVersion "0" answers from
// the cache.
type Objects interface {
	Get(ctx context.Context, t target.Target, opts metav1.GetOptions) (runtime.Object, error)
	List(ctx context.Context, t target.Target, opts metav1.ListOptions) (runtime.Object, error)
	Create(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.CreateOptions) (runtime.Object, error)
	Delete(ctx context.Context, t target.Target, opts metav1.DeleteOptions) error
}

var (
	errTaken     = errors.New("provided IP is already allocated")
	errFull      = errors.New("range is full")
	errNotHere   = errors.New("the provided network does not match the current range")
	addresses    = target.Of(networkingv1.SchemeGroupVersion.WithResource("ipaddresses"), "")
	serviceCIDRs = target.Of(networkingv1.SchemeGroupVersion.WithResource("servicecidrs"), "")
)

// prefixes are the ranges that addresses of a family are taken from now: those of
// the ServiceCIDRs that are ready and stay, or the configured one while there are
// none. The configured one comes first.
func (a *Allocator) prefixes(ctx context.Context, f corev1.IPFamily) ([]netip.Prefix, error) {
	configured := a.ranges[f]
	list, err := a.cfg.Objects.List(ctx, serviceCIDRs, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, fmt.Errorf("list the service ranges: %w", err)
	}
	all, any := []netip.Prefix{}, false
	err = meta.EachListItem(list, func(obj runtime.Object) error {
		c, ok := obj.(*networkingv1.ServiceCIDR)
		if !ok {
			return nil
		}
		any = true
		closed := meta.IsStatusConditionFalse(c.Status.Conditions, networkingv1.ServiceCIDRConditionReady)
		if closed || c.DeletionTimestamp != nil {
			return nil
		}
		for _, text := range c.Spec.CIDRs {
			if p, err := netip.ParsePrefix(text); err == nil && familyOf(p.Addr()) == f && !slices.Contains(all, p.Masked()) {
				all = append(all, p.Masked())
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !any && configured.IsValid() {
		return []netip.Prefix{configured}, nil
	}
	slices.SortStableFunc(all, func(x, y netip.Prefix) int {
		switch {
		case x == configured:
			return -1
		case y == configured:
			return 1
		}
		return strings.Compare(x.String(), y.String())
	})
	return all, nil
}

// pick reserves a free address, first in the upper part of a range: the lower is
// for people who choose their own, as upstream divides it.
func (c *claim) pick(ctx context.Context, f corev1.IPFamily) (netip.Addr, error) {
	ranges, err := c.a.prefixes(ctx, f)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, r := range ranges {
		addr, err := c.pickIn(ctx, r)
		if err == nil || !errors.Is(err, errFull) {
			return addr, err
		}
	}
	return netip.Addr{}, errFull
}

func (c *claim) pickIn(ctx context.Context, r netip.Prefix) (netip.Addr, error) {
	size := uint64(1) << min(hostBits(r), 32)
	static := min(max(16, size/16), 256)
	if static+2 >= size {
		static = 2
	}
	upper := size - static
	begin := rand.Uint64N(upper)
	for n := range guesses + min(upper, maxScan) + static {
		var at uint64
		switch {
		case n < guesses:
			at = static + rand.Uint64N(upper)
		case n < guesses+min(upper, maxScan):
			at = static + (begin+n-guesses)%upper
		default:
			at = n - guesses - min(upper, maxScan)
		}
		addr := offset(r, at)
		if at < 2 || !usable(r, addr) || !c.a.vacant(ctx, addr) {
			continue // the first is the API server's own
		}
		err := c.record(ctx, addr)
		if !errors.Is(err, errTaken) {
			return addr, err
		}
	}
	return netip.Addr{}, errFull
}

// take reserves one address.
func (c *claim) take(ctx context.Context, f corev1.IPFamily, addr netip.Addr) error {
	ranges, err := c.a.prefixes(ctx, f)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return usable(r, addr) }) {
		return errNotHere
	}
	return c.record(ctx, addr)
}

// vacant says whether an address seems to be nobody's.
func (a *Allocator) vacant(ctx context.Context, addr netip.Addr) bool {
	_, err := a.cfg.Objects.Get(ctx, addresses.Object(addr.String()), metav1.GetOptions{ResourceVersion: "0"})
	return apierrors.IsNotFound(err)
}

// record writes down whose an address is: errTaken if it is somebody's. A dry run
// only looks.
func (c *claim) record(ctx context.Context, addr netip.Addr) error {
	if c.dryRun {
		if !c.a.vacant(ctx, addr) {
			return errTaken
		}
		return nil
	}
	_, err := c.a.cfg.Objects.Create(ctx, addresses, addressOf(addr, c.svc), metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return errTaken
	}
	return err
}

// addressOf is the object that says that an address is a service's.
func addressOf(addr netip.Addr, svc *corev1.Service) *networkingv1.IPAddress {
	return &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{Name: addr.String(), Labels: map[string]string{
			networkingv1.LabelIPAddressFamily: string(familyOf(addr)), networkingv1.LabelManagedBy: manager}},
		Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{
			Resource: "services", Namespace: svc.Namespace, Name: svc.Name}},
	}
}

// release gives back the addresses in h that are svc's.
func (a *Allocator) release(ctx context.Context, svc *corev1.Service, h holding) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releasePatience)
	defer cancel()
	for addr := range h.addrs {
		if !a.isOf(ctx, addr, svc) {
			continue
		}
		err := a.cfg.Objects.Delete(ctx, addresses.Object(addr.String()), metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			a.cfg.Log.Warn("give back a service address", "address", addr.String(), "service", svc.Namespace+"/"+svc.Name, "err", err)
		}
	}
}

// isOf says whether the record of an address names svc, or is not known to name
// another.
func (a *Allocator) isOf(ctx context.Context, addr netip.Addr, svc *corev1.Service) bool {
	obj, err := a.cfg.Objects.Get(ctx, addresses.Object(addr.String()), metav1.GetOptions{ResourceVersion: "0"})
	r, ok := obj.(*networkingv1.IPAddress)
	return err != nil || !ok || r.Spec.ParentRef != nil && *r.Spec.ParentRef == *addressOf(addr, svc).Spec.ParentRef
}
