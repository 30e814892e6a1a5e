package apiserver

import (
	"context"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
)

// aggregator is who fills the roles that gather others.
var aggregator = identity.Identity{Name: "system:serviceaccount:kube-system:clusterrole-aggregation-controller",
	Groups: []string{identity.ServiceAccounts, identity.ServiceAccounts + ":kube-system", identity.Authenticated, identity.Masters}}

// aggregateRoles keeps the rules of roles with an aggregation rule equal to those
// of the roles they select, until ctx ends. A write changes the policy, which
// brings the next look: nested roles settle round by round.
func (s *Server) aggregateRoles(ctx context.Context) error {
	own := s.resources.Local(aggregator, "clusterrole-aggregation-controller")
	for {
		select {
		case <-s.policy.changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		select {
		case <-s.ready: // the defaults are written complete
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		all := s.policy.ClusterRoles()
		for _, r := range all {
			rules, differ := authz.Aggregate(r, all)
			if !differ {
				continue
			}
			next := r.DeepCopy()
			next.Rules = rules
			at := target.Of(rbacv1.SchemeGroupVersion.WithResource("clusterroles"), "").Object(r.Name)
			_, err := own.Update(ctx, at, next, metav1.UpdateOptions{})
			if err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
				s.cfg.Log.Warn("aggregate role", "role", r.Name, "error", err)
			}
		}
	}
}
