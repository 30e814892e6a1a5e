package aggregate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sampan-dev/sampan/kinds"
)

// managed marks the APIServices that this server keeps, and how: those of
// built-in groups are made when it starts, those of custom resources come and go
// with them.
const (
	managed      = "kube-aggregator.kubernetes.io/automanaged"
	managedStart = "onstart"
	managedSync  = "true"
)

// wanted is one APIService that this server keeps.
type wanted struct {
	gv   schema.GroupVersion
	rank rank
	mode string
}

// again is how long a registration that failed waits for its next try.
const again = time.Second

// register keeps the APIServices of what this server serves, until ctx ends.
func (a *Aggregator) register(ctx context.Context) error {
	select {
	case <-a.synced:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	var retry <-chan time.Time
	starting := true
	for {
		select {
		case <-a.changed:
		case <-retry:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		retry = nil
		if err := a.registerOnce(ctx, starting); err != nil {
			a.cfg.Log.Warn("register API services", "error", err)
			retry = time.After(again)
			continue
		}
		if starting {
			starting = false
			close(a.registered)
		}
	}
}

// registerOnce writes what differs from what is wanted. The APIServices of built-in
// groups are looked at only while the server starts: an administrator may have
// taken one away since.
func (a *Aggregator) registerOnce(ctx context.Context, starting bool) error {
	all, _, _ := a.snapshot()
	have := map[string]*apiregistrationv1.APIService{}
	for _, s := range all {
		have[s.Name] = s
	}
	var failed []error
	want := a.wanted()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if w := want[name]; starting || w.mode != managedStart {
			failed = append(failed, a.keep(ctx, w, have[name]))
		}
	}
	for _, s := range all {
		if _, ok := want[s.Name]; !ok && s.Labels[managed] != "" {
			failed = append(failed, a.drop(ctx, s))
		}
	}
	return errors.Join(failed...)
}

// wanted is what should be there, by name.
func (a *Aggregator) wanted() map[string]wanted {
	builtIn := map[schema.GroupVersion]bool{}
	for _, k := range a.cfg.BuiltIn {
		builtIn[k.GVK.GroupVersion()] = true
	}
	out := map[string]wanted{}
	for _, k := range a.cfg.Kinds() {
		gv := k.GVK.GroupVersion()
		w := wanted{gv, rank{customGroup, customVersion}, managedSync}
		if builtIn[gv] {
			r, ok := builtInRank(gv)
			if !ok {
				continue
			}
			w = wanted{gv, r, managedStart}
		}
		out[gv.Version+"."+gv.Group] = w
	}
	return out
}

// keep makes or repairs one; what somebody else manages is left alone.
func (a *Aggregator) keep(ctx context.Context, w wanted, have *apiregistrationv1.APIService) error {
	spec := apiregistrationv1.APIServiceSpec{Group: w.gv.Group, Version: w.gv.Version,
		GroupPriorityMinimum: w.rank.group, VersionPriority: w.rank.version}
	var err error
	switch {
	case have == nil:
		_, err = a.cfg.Objects.Create(ctx, services, &apiregistrationv1.APIService{
			ObjectMeta: metav1.ObjectMeta{Name: w.gv.Version + "." + w.gv.Group, Labels: map[string]string{managed: w.mode}},
			Spec:       spec,
		}, metav1.CreateOptions{})
	case have.Labels[managed] == "" || have.Labels[managed] == w.mode && kinds.Same(have.Spec, spec):
		return nil
	default:
		next := have.DeepCopy()
		next.Labels[managed], next.Spec = w.mode, spec
		_, err = a.cfg.Objects.Update(ctx, services.Object(have.Name), next, metav1.UpdateOptions{})
	}
	if err == nil || apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("keep API service %q: %w", strings.TrimSuffix(w.gv.Version+"."+w.gv.Group, "."), err)
}

// drop deletes the APIService of a group version that is served no more.
func (a *Aggregator) drop(ctx context.Context, s *apiregistrationv1.APIService) error {
	err := a.cfg.Objects.Delete(ctx, services.Object(s.Name), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID}})
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return fmt.Errorf("drop API service %q: %w", s.Name, err)
}
