package apiserver

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
)

// componentWait bounds one check, as upstream's do.
const componentWait = 20 * time.Second

// leaders are the leases by which the parts of the control plane elect who works.
var leaders = map[string]string{"scheduler": "kube-scheduler", "controller-manager": "kube-controller-manager"}

// components asks the parts of the control plane how they are, all at once.
func (s *Server) components(ctx context.Context) ([]kinds.Object, error) {
	checks := map[string]func(context.Context) error{"etcd-0": func(ctx context.Context) error { return store.Check(ctx, s.cfg.Store) }}
	for name, lease := range leaders {
		checks[name] = func(ctx context.Context) error { return s.led(ctx, lease) }
	}
	maps.Copy(checks, s.cfg.Components)
	ctx, cancel := context.WithTimeout(ctx, componentWait)
	defer cancel()
	var asking sync.WaitGroup
	names := slices.Sorted(maps.Keys(checks))
	out := make([]kinds.Object, len(names))
	for i, name := range names {
		asking.Go(func() {
			c := corev1.ComponentCondition{Type: corev1.ComponentHealthy, Status: corev1.ConditionTrue, Message: "ok"}
			if err := checks[name](ctx); err != nil {
				c.Status, c.Message, c.Error = corev1.ConditionFalse, "", err.Error()
			}
			out[i] = &corev1.ComponentStatus{ObjectMeta: metav1.ObjectMeta{Name: name}, Conditions: []corev1.ComponentCondition{c}}
		})
	}
	asking.Wait()
	return out, nil
}

// led says that somebody holds a lease and renews it.
func (s *Server) led(ctx context.Context, name string) error {
	at := target.Of(coordinationv1.SchemeGroupVersion.WithResource("leases"), metav1.NamespaceSystem).Object(name)
	obj, err := s.own.Get(ctx, at, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("nobody has taken the lease %q", name)
	}
	lease, ok := obj.(*coordinationv1.Lease)
	if err != nil || !ok {
		return fmt.Errorf("read the lease %q: %w", name, err)
	}
	spec := lease.Spec
	if spec.RenewTime == nil || spec.LeaseDurationSeconds == nil || kinds.Deref(spec.HolderIdentity) == "" {
		return fmt.Errorf("nobody holds the lease %q", name)
	}
	if late := s.cfg.Now().Sub(spec.RenewTime.Add(time.Duration(*spec.LeaseDurationSeconds) * time.Second)); late > 0 {
		return fmt.Errorf("%q has not renewed the lease %q, which ended %s ago", *spec.HolderIdentity, name, late.Round(time.Second))
	}
	return nil
}
