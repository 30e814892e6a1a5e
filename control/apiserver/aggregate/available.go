package aggregate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sampan-dev/sampan/control/apiserver/admit/follow"
	"github.com/sampan-dev/sampan/internal/backoff"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/apiregistration"
)

// How often a remote server is looked at.
const (
	// lookAgain is the time between two looks at a server that is well.
	lookAgain = 30 * time.Second
	// lookWait bounds one look.
	lookWait = 5 * time.Second
	// The waits after failures; a change of the service or its endpoints ends them.
	lookRetryMin = time.Second
	lookRetryMax = 30 * time.Second
)

// look keeps the condition of the APIService true until ctx ends, and what the
// server shows in discovery fresh.
func (r *remote) look(ctx context.Context) {
	retry, failures := backoff.Policy{Min: lookRetryMin, Max: lookRetryMax, Jitter: 0.2}, 0
	for {
		c := r.check(ctx)
		wait := lookAgain
		if c.Status == apiregistrationv1.ConditionTrue {
			failures = 0
			r.refresh(ctx)
		} else {
			r.spoil()
			failures++
			wait = retry.After(failures)
		}
		if err := r.write(ctx, c); err != nil && ctx.Err() == nil {
			r.owner.cfg.Log.Debug("write the state of an API service", "name", r.service.Load().Name, "error", err)
			wait = min(wait, lookRetryMin)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-r.wake:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// check finds out whether the server can be asked.
func (r *remote) check(ctx context.Context) apiregistrationv1.APIServiceCondition {
	spec := r.service.Load().Spec.Service
	c := apiregistrationv1.APIServiceCondition{Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue,
		Reason: "Passed", Message: "all checks passed"}
	is := func(status apiregistrationv1.ConditionStatus, reason, format string, args ...any) apiregistrationv1.APIServiceCondition {
		c.Status, c.Reason, c.Message = status, reason, fmt.Sprintf(format, args...)
		return c
	}
	objects := r.owner.cfg.Objects
	obj, err := objects.Get(ctx, target.Of(corev1.SchemeGroupVersion.WithResource("services"), spec.Namespace).Object(spec.Name), metav1.GetOptions{})
	svc, ok := obj.(*corev1.Service)
	switch {
	case apierrors.IsNotFound(err):
		return is(apiregistrationv1.ConditionFalse, "ServiceNotFound", "service/%s in %q is not present", spec.Name, spec.Namespace)
	case err != nil || !ok:
		return is(apiregistrationv1.ConditionUnknown, "ServiceAccessError", "service/%s in %q cannot be checked due to: %v", spec.Name, spec.Namespace, err)
	}
	if svc.Spec.Type == corev1.ServiceTypeClusterIP {
		name, found := portNamed(svc, kinds.Deref(spec.Port))
		if !found {
			return is(apiregistrationv1.ConditionFalse, "ServicePortError", "service/%s in %q is not listening on port %d", spec.Name, spec.Namespace, kinds.Deref(spec.Port))
		}
		slices, err := r.slices(ctx, spec)
		switch {
		case err != nil:
			return is(apiregistrationv1.ConditionUnknown, "EndpointsAccessError", "service/%s in %q cannot be checked due to: %v", spec.Name, spec.Namespace, err)
		case len(slices) == 0:
			return is(apiregistrationv1.ConditionFalse, "EndpointsNotFound", "cannot find endpointslices for service/%s in %q", spec.Name, spec.Namespace)
		case !ready(slices, name):
			return is(apiregistrationv1.ConditionFalse, "MissingEndpoints", "endpointslices for service/%s in %q have no addresses with port name %q", spec.Name, spec.Namespace, name)
		}
	}
	if err := r.knock(ctx); err != nil {
		return is(apiregistrationv1.ConditionFalse, "FailedDiscoveryCheck", "%v", err)
	}
	return c
}

func portNamed(svc *corev1.Service, number int32) (name string, found bool) {
	for _, p := range svc.Spec.Ports {
		if p.Port == number {
			return p.Name, true
		}
	}
	return "", false
}

func (r *remote) slices(ctx context.Context, spec *apiregistrationv1.ServiceReference) ([]*discoveryv1.EndpointSlice, error) {
	list, err := r.owner.cfg.Objects.List(ctx, target.Of(discoveryv1.SchemeGroupVersion.WithResource("endpointslices"), spec.Namespace),
		metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + spec.Name})
	if err != nil {
		return nil, err
	}
	var out []*discoveryv1.EndpointSlice
	err = meta.EachListItem(list, func(obj runtime.Object) error {
		if s, ok := obj.(*discoveryv1.EndpointSlice); ok {
			out = append(out, s)
		}
		return nil
	})
	return out, err
}

// ready says whether any slice has a ready endpoint and the named port.
func ready(all []*discoveryv1.EndpointSlice, port string) bool {
	for _, s := range all {
		hasPort, hasEndpoint := false, false
		for _, p := range s.Ports {
			hasPort = hasPort || p.Name != nil && *p.Name == port && p.Port != nil
		}
		for _, e := range s.Endpoints {
			hasEndpoint = hasEndpoint || e.Conditions.Ready == nil || *e.Conditions.Ready
		}
		if hasPort && hasEndpoint {
			return true
		}
	}
	return false
}

// knock asks the server for what it must serve.
func (r *remote) knock(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	path := "/apis/" + r.gv.Group + "/" + r.gv.Version
	answer, err := r.own(ctx, path, "")
	if err != nil {
		if r.transport != nil {
			r.transport.CloseIdleConnections()
		}
		return fmt.Errorf("failing or missing response from %s: %w", r.url(path), err)
	}
	defer answer.Body.Close()
	_, _ = io.CopyN(io.Discard, answer.Body, maxDocument) // so that the connection can be kept
	if answer.StatusCode < http.StatusOK || answer.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("failing or missing response from %s: %w", r.url(path), fmt.Errorf("bad status from %s: %d", r.url(path), answer.StatusCode))
	}
	return nil
}

// write stores the condition unless it is there already; the time of a transition
// stays while the status does.
func (r *remote) write(ctx context.Context, c apiregistrationv1.APIServiceCondition) error {
	name := r.service.Load().Name
	for range 3 {
		obj, err := r.owner.cfg.Objects.Get(ctx, services.Object(name), metav1.GetOptions{})
		have, ok := obj.(*apiregistrationv1.APIService)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil || !ok {
			return fmt.Errorf("read API service %q: %w", name, err)
		}
		if !r.same(have) {
			return nil // somebody else's turn
		}
		c.LastTransitionTime = metav1.NewTime(r.owner.cfg.Now())
		var before *apiregistrationv1.APIServiceCondition
		if was := apiregistration.Available(have); was != nil {
			before = was
			if was.Status == c.Status {
				c.LastTransitionTime = was.LastTransitionTime
			}
			if *was == c {
				return nil
			}
		}
		next := have.DeepCopy()
		if at := apiregistration.Available(next); at != nil {
			*at = c
		} else {
			next.Status.Conditions = append(next.Status.Conditions, c)
		}
		_, err = r.owner.cfg.Objects.Update(ctx, services.Object(name).Sub("status"), next, metav1.UpdateOptions{})
		if err == nil {
			r.owner.lapses.note(name, before, c)
		}
		if !apierrors.IsConflict(err) {
			return err
		}
	}
	return errors.New("API service is written by others all the time")
}

// followRemotes runs the watches by which a change of a service or its endpoints
// is seen at once, for as long as there are remotes. The caller holds mu.
func (a *Aggregator) followRemotes(ctx context.Context) {
	switch {
	case len(a.remotes) == 0 && a.followed != nil:
		a.followed()
		a.followed = nil
	case len(a.remotes) > 0 && a.followed == nil:
		ctx, a.followed = context.WithCancel(ctx)
		go func() {
			_ = follow.Each(ctx, a.source(target.Of(corev1.SchemeGroupVersion.WithResource("services"), "")),
				func([]*corev1.Service) { a.wake("", "") },
				func(_ watch.EventType, s *corev1.Service) { a.wake(s.Namespace, s.Name) }) // ends with ctx
		}()
		go func() {
			_ = follow.Each(ctx, a.source(target.Of(discoveryv1.SchemeGroupVersion.WithResource("endpointslices"), "")),
				func([]*discoveryv1.EndpointSlice) { a.wake("", "") },
				func(_ watch.EventType, s *discoveryv1.EndpointSlice) {
					a.wake(s.Namespace, s.Labels[discoveryv1.LabelServiceName])
				}) // ends with ctx
		}()
	}
}

// wake looks again at the remotes behind a service; without a name, at all.
func (a *Aggregator) wake(namespace, name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.remotes {
		s := r.service.Load().Spec.Service
		if name == "" || s.Namespace == namespace && s.Name == name {
			r.again()
		}
	}
}
