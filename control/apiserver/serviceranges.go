package apiserver

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/apiserver/serviceip"
	"github.com/sampan-dev/sampan/internal/target"
)

// defaultRange is the ServiceCIDR that holds what this server is configured with.
const defaultRange = "kubernetes"

// serviceRanges makes the default range of service addresses, and then the records
// of addresses agree with the services.
func (s *Server) serviceRanges(ctx context.Context) error {
	if err := s.nodePorts(ctx); err != nil {
		return err
	}
	if !s.served(networkingv1.SchemeGroupVersion.WithResource("servicecidrs")) {
		return nil
	}
	if err := s.ensureDefaultRange(ctx); err != nil {
		return fmt.Errorf("default service range: %w", err)
	}
	if err := s.addresses.Repair(ctx); err != nil {
		return fmt.Errorf("repair service addresses: %w", err)
	}
	return nil
}

// ensureDefaultRange creates the default range, lets a second family join it, and
// says that it is ready. One that is otherwise than configured is left alone, as
// upstream: it may be another server's.
func (s *Server) ensureDefaultRange(ctx context.Context) error {
	at := target.Of(networkingv1.SchemeGroupVersion.WithResource("servicecidrs"), "").Object(defaultRange)
	var want []string
	for _, r := range s.cfg.ServiceRanges {
		want = append(want, r.Masked().String())
	}
	obj, err := s.own.Get(ctx, at, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		made := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: defaultRange}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: want}}
		obj, err = s.own.Create(ctx, target.Of(at.Resource, ""), made, metav1.CreateOptions{})
	}
	if apierrors.IsAlreadyExists(err) {
		return nil // another server is at it
	}
	if err != nil {
		return err
	}
	have, ok := obj.(*networkingv1.ServiceCIDR)
	if ok && len(have.Spec.CIDRs) == 1 && len(want) == 2 && have.Spec.CIDRs[0] == want[0] {
		next := have.DeepCopy()
		next.Spec.CIDRs = want
		if obj, err = s.own.Update(ctx, at, next, metav1.UpdateOptions{}); err != nil {
			return err
		}
		have, ok = obj.(*networkingv1.ServiceCIDR)
	}
	if !ok || have.DeletionTimestamp != nil || !slices.Equal(have.Spec.CIDRs, want) ||
		meta.FindStatusCondition(have.Status.Conditions, networkingv1.ServiceCIDRConditionReady) != nil {
		return nil
	}
	next := have.DeepCopy()
	meta.SetStatusCondition(&next.Status.Conditions, metav1.Condition{Type: networkingv1.ServiceCIDRConditionReady,
		Status: metav1.ConditionTrue, Message: "Kubernetes default Service CIDR is ready", LastTransitionTime: metav1.NewTime(s.cfg.Now())})
	_, err = s.own.Update(ctx, at.Sub("status"), next, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// nodePorts makes the book of node ports agree with the services.
func (s *Server) nodePorts(ctx context.Context) error {
	if !s.served(corev1.SchemeGroupVersion.WithResource("services")) {
		return nil
	}
	if err := s.addresses.RepairPorts(ctx); err != nil {
		return fmt.Errorf("repair node ports: %w", err)
	}
	return nil
}

// keepAddresses repairs from time to time, until ctx ends: node ports more often,
// since one that has leaked is known only after some looks.
func (s *Server) keepAddresses(ctx context.Context) error {
	addresses, ports := time.NewTicker(serviceip.RepairEvery), time.NewTicker(serviceip.RepairPortsEvery)
	defer addresses.Stop()
	defer ports.Stop()
	for {
		repair := s.serviceRanges
		select {
		case <-addresses.C:
		case <-ports.C:
			repair = s.nodePorts
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := repair(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Log.Warn("keep service addresses and node ports", "err", err)
		}
	}
}
