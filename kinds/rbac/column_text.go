package rbac

import (
	rbacv1beta1 "k8s.io/api/rbac/v1beta1"
)

// What the columns of tables mean, as clients may show it. What is a field of the API is
// explained in the API's own words.

func clusterRoleBindingTexts() map[string]string {
	return map[string]string{
		"Role":            rbacv1beta1.ClusterRoleBinding{}.SwaggerDoc()["roleRef"],
		"Users":           "Users in the clusterRoleBinding",
		"Groups":          "Groups in the clusterRoleBinding",
		"ServiceAccounts": "ServiceAccounts in the clusterRoleBinding",
	}
}

func roleBindingTexts() map[string]string {
	return map[string]string{
		"Role":            rbacv1beta1.RoleBinding{}.SwaggerDoc()["roleRef"],
		"Users":           "Users in the roleBinding",
		"Groups":          "Groups in the roleBinding",
		"ServiceAccounts": "ServiceAccounts in the roleBinding",
	}
}
