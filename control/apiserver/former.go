package apiserver

import (
	"context"
	"fmt"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
)

// formerAgents is the binding that lets the nodes of a cluster that was made by an earlier
// version go on: their certificates do not say yet that their agents are ours.
const formerAgents = "sampan:former-agents"

// Earlier versions gave what our agents need to every node, by these; the first of them
// goes last, so that an interrupted change is made again.
var (
	formerBindings = []string{"sampan:node-proxier", "sampan:dns", "sampan:image-reader"}
	formerRoles    = []string{"sampan:dns", "sampan:image-reader"}
)

// keepFormerAgents replaces what an earlier version bound to all nodes by one binding of
// the role of our agents, which somebody removes once every node has its new certificate.
// In a cluster that this version has made it does nothing.
func (s *Server) keepFormerAgents(ctx context.Context) error {
	nodes := rbacv1.Subject{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: identity.Nodes}
	bindings := rbacv1.SchemeGroupVersion.WithResource("clusterrolebindings")
	if !s.served(bindings) {
		return nil
	}
	have, err := s.own.Get(ctx, target.Of(bindings, "").Object(formerBindings[0]), metav1.GetOptions{})
	if old, ok := have.(*rbacv1.ClusterRoleBinding); err == nil && ok && slices.Contains(old.Subjects, nodes) {
		if err := s.replaceFormer(ctx, bindings, nodes); err != nil {
			return err
		}
	} else if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("look for what an earlier version bound to nodes: %w", err)
	}
	if _, err := s.own.Get(ctx, target.Of(bindings, "").Object(formerAgents), metav1.GetOptions{}); err == nil {
		s.cfg.Log.Warn("every node may what our agents may, as an earlier version had it: delete the ClusterRoleBinding once all nodes run this version",
			"clusterrolebinding", formerAgents)
	}
	return nil
}

func (s *Server) replaceFormer(ctx context.Context, bindings schema.GroupVersionResource, nodes rbacv1.Subject) error {
	next := want(bindings, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: formerAgents},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "sampan:agent"},
		Subjects: []rbacv1.Subject{nodes}}, nil)
	if err := s.ensureAll(ctx, []wanted{next}); err != nil {
		return err
	}
	roles := rbacv1.SchemeGroupVersion.WithResource("clusterroles")
	for _, name := range formerRoles {
		if err := s.discard(ctx, target.Of(roles, "").Object(name)); err != nil {
			return err
		}
	}
	for _, name := range slices.Backward(formerBindings) {
		if err := s.discard(ctx, target.Of(bindings, "").Object(name)); err != nil {
			return err
		}
	}
	return nil
}

// discard deletes what may be gone already.
func (s *Server) discard(ctx context.Context, at target.Target) error {
	if err := s.own.Delete(ctx, at, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("discard %s: %w", at, err)
	}
	return nil
}
