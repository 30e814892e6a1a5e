package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateRole(_ *rbacv1.Role) field.ErrorList                                      { return nil }
func validateRoleUpdate(_, _ *rbacv1.Role) field.ErrorList                             { return nil }
func validateClusterRole(_ *rbacv1.ClusterRole) field.ErrorList                        { return nil }
func validateClusterRoleUpdate(_, _ *rbacv1.ClusterRole) field.ErrorList               { return nil }
func validateRoleBinding(_ *rbacv1.RoleBinding) field.ErrorList                        { return nil }
func validateRoleBindingUpdate(_, _ *rbacv1.RoleBinding) field.ErrorList               { return nil }
func validateClusterRoleBinding(_ *rbacv1.ClusterRoleBinding) field.ErrorList          { return nil }
func validateClusterRoleBindingUpdate(_, _ *rbacv1.ClusterRoleBinding) field.ErrorList { return nil }
