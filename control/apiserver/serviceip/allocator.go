// Package serviceip gives services their addresses and node ports: no two
// services ever hold the same one.
//
// Whose an address is says an IPAddress object, whose name is the address: of two
// servers that give the same one, only one can create it. From which ranges
// addresses are taken say the ServiceCIDR objects. Which node ports are taken is
// written down in the store, where upstream has it.
//
// Facts: the Service, IPAddress and ServiceCIDR APIs of Kubernetes v1.37, their
// messages, and how upstream divides a range.
package serviceip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Config is what an Allocator needs.
type Config struct {
	// Ranges hold the service addresses until ServiceCIDRs say more: one, or two
	// of different families, of which the first is the default.
	Ranges []netip.Prefix
	// FirstPort and LastPort bound the node ports; zero means 30000-32767.
	FirstPort, LastPort int32
	// List gives all services that exist, for repairs.
	List func(ctx context.Context) ([]*corev1.Service, error)
	// Book is where the taken node ports are written down.
	Book Book
	// Objects reads and writes IPAddresses and ServiceCIDRs as the server itself.
	Objects Objects
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
	// Log gets what no client is told; nil discards it.
	Log *slog.Logger
}

// Allocator is safe for concurrent use.
type Allocator struct {
	cfg    Config
	ranges map[corev1.IPFamily]netip.Prefix
	prime  corev1.IPFamily

	booking sync.Mutex    // held by who changes the book; guards what follows
	leaks   map[int32]int // in how many comparisons in turn a port was nobody's
}

// New checks cfg.
func New(cfg Config) (*Allocator, error) {
	if len(cfg.Ranges) == 0 || len(cfg.Ranges) > 2 {
		return nil, fmt.Errorf("service ranges %v: one or two are needed", cfg.Ranges)
	}
	if cfg.FirstPort == 0 && cfg.LastPort == 0 {
		cfg.FirstPort, cfg.LastPort = 30000, 32767
	}
	if cfg.FirstPort < 1 || cfg.LastPort > 65535 || cfg.FirstPort > cfg.LastPort {
		return nil, fmt.Errorf("node ports %d-%d are no range", cfg.FirstPort, cfg.LastPort)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Book == nil {
		return nil, errors.New("service addresses: no book of node ports")
	}
	a := &Allocator{cfg: cfg, ranges: map[corev1.IPFamily]netip.Prefix{}}
	for _, r := range cfg.Ranges {
		r = r.Masked()
		f := familyOf(r.Addr())
		if _, twice := a.ranges[f]; twice {
			return nil, fmt.Errorf("service ranges %v are of one family", cfg.Ranges)
		}
		if hostBits(r) < 3 {
			return nil, fmt.Errorf("service range %s is too small: at least 8 addresses are needed", r)
		}
		a.ranges[f] = r
	}
	a.prime = familyOf(cfg.Ranges[0].Addr())
	return a, nil
}

// First is the first address of the default range: that of the API server's own
// service.
func (a *Allocator) First() netip.Addr { return a.ranges[a.prime].Addr().Next() }

// BeginCreate completes svc's addresses, families and ports and reserves them.
// The caller calls finish once, with whether svc was stored: if not, everything
// is free again.
func (a *Allocator) BeginCreate(ctx context.Context, svc *corev1.Service, dryRun bool) (finish func(stored bool), err error) {
	plural(svc, nil)
	return a.begin(ctx, svc, nil, dryRun)
}

// BeginUpdate is BeginCreate for a change of old, which is not touched. What old
// held and svc does not is freed when svc was stored.
func (a *Allocator) BeginUpdate(ctx context.Context, svc, old *corev1.Service, dryRun bool) (finish func(stored bool), err error) {
	adopt(svc, old)
	plural(svc, old)
	return a.begin(ctx, svc, old, dryRun)
}

// AfterDelete frees what svc held. Addresses that cannot be freed now are by Repair.
func (a *Allocator) AfterDelete(svc *corev1.Service, dryRun bool) {
	if dryRun {
		return
	}
	h := holdings(svc)
	a.freePorts(context.Background(), h)
	a.release(context.Background(), svc, h)
}

func (a *Allocator) begin(ctx context.Context, svc, old *corev1.Service, dryRun bool) (func(bool), error) {
	if errs := a.families(svc, old); len(errs) > 0 {
		return nil, invalid(svc, errs)
	}
	c := &claim{a: a, svc: svc, dryRun: dryRun, took: newHolding()}
	if old != nil {
		c.had = holdings(old)
	}
	err := c.ports(ctx)
	if err == nil {
		err = c.addresses(ctx)
	}
	if err != nil {
		c.finish(ctx, false)
		return nil, err
	}
	return func(stored bool) { c.finish(ctx, stored && !dryRun) }, nil
}

func invalid(svc *corev1.Service, errs field.ErrorList) error {
	return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Service").GroupKind(), svc.Name, errs)
}
