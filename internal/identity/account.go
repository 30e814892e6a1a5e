package identity

import "strings"

// ServiceAccounts is the group of all service accounts; followed by ":" and a
// namespace it is the group of those in it.
const ServiceAccounts = "system:serviceaccounts"

// ServiceAccount is the identity of a service account.
func ServiceAccount(namespace, name, uid string) Identity {
	return Identity{
		Name:   ServiceAccountPrefix + namespace + ":" + name,
		UID:    uid,
		Groups: []string{ServiceAccounts, ServiceAccounts + ":" + namespace, Authenticated},
	}
}

// SplitServiceAccount takes a user's name apart; ok is false when it is not a
// service account's.
func SplitServiceAccount(user string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(user, ServiceAccountPrefix)
	if !ok {
		return "", "", false
	}
	namespace, name, ok = strings.Cut(rest, ":")
	return namespace, name, ok && namespace != "" && name != "" && !strings.Contains(name, ":")
}

// Node is the node that the caller is, if it is one.
func (i Identity) Node() (name string, ok bool) {
	name, ok = strings.CutPrefix(i.Name, NodePrefix)
	return name, ok && name != "" && i.In(Nodes)
}
