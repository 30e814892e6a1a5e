// Package rbac says what the kinds of the rbac.authorization.k8s.io group are:
// who may do what.
package rbac

import (
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/kinds"
)

// Kinds lists the group's kinds.
func Kinds() []*kinds.Kind {
	return []*kinds.Kind{ClusterRole(), ClusterRoleBinding(), Role(), RoleBinding()}
}

// segment is the rule for names: anything that can be one segment of a URL's path. For
// the prefix of a generated name it is no other.
func segment(name string, _ bool) []string { return content.IsPathSegmentName(name) }

func gvk(kind string) schema.GroupVersionKind { return rbacv1.SchemeGroupVersion.WithKind(kind) }

// Role is the kind for permissions in one namespace.
func Role() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("Role"),
		Resource:   "roles",
		Singular:   "role",
		Namespaced: true,
		Storage:    "roles",
		New:        func() kinds.Object { return &rbacv1.Role{} },
		NewList:    func() runtime.Object { return &rbacv1.RoleList{} },
		Strategy: kinds.Strategy{
			Validate:       kinds.Check(validateRole),
			ValidateUpdate: kinds.CheckUpdate(validateRoleUpdate),
			ValidateName:   segment,
			NamesOnUpdate:  true,
			CreateOnUpdate: true,
		},
		Table: createdAt(),
	}
}

// ClusterRole is the kind for permissions in every namespace and outside them.
func ClusterRole() *kinds.Kind {
	return &kinds.Kind{
		GVK:      gvk("ClusterRole"),
		Resource: "clusterroles",
		Singular: "clusterrole",
		Storage:  "clusterroles",
		New:      func() kinds.Object { return &rbacv1.ClusterRole{} },
		NewList:  func() runtime.Object { return &rbacv1.ClusterRoleList{} },
		Strategy: kinds.Strategy{
			Validate:       kinds.Check(validateClusterRole),
			ValidateUpdate: kinds.CheckUpdate(validateClusterRoleUpdate),
			ValidateName:   segment,
			NamesOnUpdate:  true,
			CreateOnUpdate: true,
		},
		Table: createdAt(),
	}
}

// createdAt is the table of roles: a name and the time of creation.
func createdAt() kinds.Table {
	return kinds.Table{
		Columns: kinds.Columns("Name", "Created At|date"),
		Row: func(obj kinds.Object, _ time.Time) []any {
			return []any{obj.GetName(), obj.GetCreationTimestamp().UTC().Format(time.RFC3339)}
		},
	}
}

// RoleBinding is the kind that gives a role to subjects in one namespace.
func RoleBinding() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("RoleBinding"),
		Resource:   "rolebindings",
		Singular:   "rolebinding",
		Namespaced: true,
		Storage:    "rolebindings",
		New:        func() kinds.Object { return &rbacv1.RoleBinding{} },
		NewList:    func() runtime.Object { return &rbacv1.RoleBindingList{} },
		Strategy: kinds.Strategy{
			Default:        kinds.Each(func(b *rbacv1.RoleBinding) { defaultBinding(&b.RoleRef, b.Subjects) }),
			Validate:       kinds.Check(validateRoleBinding),
			ValidateUpdate: kinds.CheckUpdate(validateRoleBindingUpdate),
			ValidateName:   segment,
			NamesOnUpdate:  true,
			CreateOnUpdate: true,
		},
		Table: kinds.Table{
			Columns: bindingColumns(roleBindingTexts()),
			Row: kinds.Row(func(b *rbacv1.RoleBinding, now time.Time) []any {
				return bindingRow(b, &b.RoleRef, b.Subjects, now)
			}),
		},
	}
}

// ClusterRoleBinding is the kind that gives a cluster role to subjects everywhere.
func ClusterRoleBinding() *kinds.Kind {
	return &kinds.Kind{
		GVK:      gvk("ClusterRoleBinding"),
		Resource: "clusterrolebindings",
		Singular: "clusterrolebinding",
		Storage:  "clusterrolebindings",
		New:      func() kinds.Object { return &rbacv1.ClusterRoleBinding{} },
		NewList:  func() runtime.Object { return &rbacv1.ClusterRoleBindingList{} },
		Strategy: kinds.Strategy{
			Default:        kinds.Each(func(b *rbacv1.ClusterRoleBinding) { defaultBinding(&b.RoleRef, b.Subjects) }),
			Validate:       kinds.Check(validateClusterRoleBinding),
			ValidateUpdate: kinds.CheckUpdate(validateClusterRoleBindingUpdate),
			ValidateName:   segment,
			NamesOnUpdate:  true,
			CreateOnUpdate: true,
		},
		Table: kinds.Table{
			Columns: bindingColumns(clusterRoleBindingTexts()),
			Row: kinds.Row(func(b *rbacv1.ClusterRoleBinding, now time.Time) []any {
				return bindingRow(b, &b.RoleRef, b.Subjects, now)
			}),
		},
	}
}

func bindingColumns(texts map[string]string) []metav1.TableColumnDefinition {
	return kinds.Explained(texts, "Name", "Role", "Age", "Users|wide", "Groups|wide", "ServiceAccounts|wide")
}

func defaultBinding(role *rbacv1.RoleRef, subjects []rbacv1.Subject) {
	if role.APIGroup == "" {
		role.APIGroup = rbacv1.GroupName
	}
	for i := range subjects {
		s := &subjects[i]
		if s.APIGroup == "" && (s.Kind == rbacv1.UserKind || s.Kind == rbacv1.GroupKind) {
			s.APIGroup = rbacv1.GroupName
		}
	}
}

func bindingRow(obj kinds.Object, role *rbacv1.RoleRef, subjects []rbacv1.Subject, now time.Time) []any {
	var users, groups, accounts []string
	for _, s := range subjects {
		switch s.Kind {
		case rbacv1.UserKind:
			users = append(users, s.Name)
		case rbacv1.GroupKind:
			groups = append(groups, s.Name)
		case rbacv1.ServiceAccountKind:
			accounts = append(accounts, s.Namespace+"/"+s.Name)
		}
	}
	return []any{obj.GetName(), role.Kind + "/" + role.Name, kinds.Created(obj, now),
		strings.Join(users, ", "), strings.Join(groups, ", "), strings.Join(accounts, ", ")}
}
