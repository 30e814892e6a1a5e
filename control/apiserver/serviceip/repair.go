package serviceip

import (
	"context"
	"fmt"
	"net/netip"
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
	// RepairEvery is how often services and addresses should be compared.
	RepairEvery = 10 * time.Minute
	// RepairPortsEvery is how often services and node ports should be compared.
	// Upstream's.
	RepairPortsEvery = 3 * time.Minute
	// leakAge is how old an address without its service must be before it counts
	// as leaked: the service may be about to be stored. Upstream's.
	leakAge = time.Minute
)

// Repair makes the IPAddress objects agree with the services: it records the
// addresses of services that have no record, corrects records that name another
// service, and removes those whose service is gone. Two services with one address
// are left to people, and logged.
func (a *Allocator) Repair(ctx context.Context) error {
	// The addresses first: a service that is stored after this has recorded its
	// own, which is then too young to be a leak.
	records, err := a.records(ctx)
	if err != nil {
		return err
	}
	services, err := a.cfg.List(ctx)
	if err != nil {
		return fmt.Errorf("list services: %w", err)
	}
	owners := map[netip.Addr]*corev1.Service{}
	for _, svc := range services {
		for addr := range holdings(svc).addrs {
			if other, twice := owners[addr]; twice {
				a.cfg.Log.Error("two services have one address; recreate one of them", "address", addr.String(),
					"service", svc.Namespace+"/"+svc.Name, "other", other.Namespace+"/"+other.Name)
				continue
			}
			owners[addr] = svc
		}
	}
	for addr, svc := range owners {
		if err := a.repairOwned(ctx, addr, svc, records[addr]); err != nil {
			return fmt.Errorf("repair the address %s of service %q: %w", addr, svc.Namespace+"/"+svc.Name, err)
		}
	}
	for addr, r := range records {
		if _, owned := owners[addr]; owned || a.cfg.Now().Sub(r.CreationTimestamp.Time) < leakAge {
			continue
		}
		a.cfg.Log.Warn("a service address appears to have leaked: cleaning up", "address", addr.String())
		if err := a.remove(ctx, addr, r); err != nil {
			return fmt.Errorf("remove leaked address %s: %w", addr, err)
		}
	}
	return nil
}

func (a *Allocator) records(ctx context.Context) (map[netip.Addr]*networkingv1.IPAddress, error) {
	list, err := a.cfg.Objects.List(ctx, addresses, metav1.ListOptions{LabelSelector: networkingv1.LabelManagedBy + "=" + manager})
	if err != nil {
		return nil, fmt.Errorf("list service addresses: %w", err)
	}
	found := map[netip.Addr]*networkingv1.IPAddress{}
	err = meta.EachListItem(list, func(obj runtime.Object) error {
		if r, ok := obj.(*networkingv1.IPAddress); ok {
			if addr, err := netip.ParseAddr(r.Name); err == nil {
				found[addr] = r
			}
		}
		return nil
	})
	return found, err
}

// repairOwned makes the record of an address name the service that has it. What
// has changed since it was listed is left alone.
func (a *Allocator) repairOwned(ctx context.Context, addr netip.Addr, svc *corev1.Service, have *networkingv1.IPAddress) error {
	want := addressOf(addr, svc)
	if have != nil {
		if p := have.Spec.ParentRef; p != nil && *p == *want.Spec.ParentRef {
			return nil
		}
		a.cfg.Log.Warn("a service address has a wrong reference; repairing", "address", addr.String(), "service", svc.Namespace+"/"+svc.Name)
		if err := a.remove(ctx, addr, have); err != nil {
			return err
		}
	}
	// The service may have gone, or let go of the address, since it was listed.
	now, err := a.cfg.Objects.Get(ctx, target.Of(corev1.SchemeGroupVersion.WithResource("services"), svc.Namespace).Object(svc.Name), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	current, ok := now.(*corev1.Service)
	if _, still := holdings(current).addrs[addr]; !ok || !still {
		return nil
	}
	_, err = a.cfg.Objects.Create(ctx, addresses, want, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil // the next comparison sees whose it is
	}
	return err
}

func (a *Allocator) remove(ctx context.Context, addr netip.Addr, r *networkingv1.IPAddress) error {
	opts := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &r.UID, ResourceVersion: &r.ResourceVersion}}
	err := a.cfg.Objects.Delete(ctx, addresses.Object(addr.String()), opts)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}
