package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
)

// networkLabelsAnnotation are a network's labels, as JSON: docker's may have names that
// Kubernetes' may not.
const networkLabelsAnnotation = "sampan.dev/network-labels"

// noteLabels are the annotations of a network with such labels.
func noteLabels(texts []string) (map[string]string, error) {
	noted := map[string]string{}
	labels, err := labelsOf(texts)
	if err != nil || len(labels) == 0 {
		return noted, err
	}
	raw, err := json.Marshal(labels)
	noted[networkLabelsAnnotation] = string(raw)
	return noted, err
}

// labelsOn reads them; what is none is nothing.
func labelsOn(m *corev1.Service) labelled {
	var all labelled
	if json.Unmarshal([]byte(m.Annotations[networkLabelsAnnotation]), &all) != nil {
		return nil
	}
	return all
}

// Label is docker's {{.Label "NAME"}}.
func (v namedNetwork) Label(name string) string { return v.Labels[name] }

// CreatedAt is docker's word for when it was made.
func (v namedNetwork) CreatedAt() time.Time { return v.Created }

// IPv6 is false: a network's addresses are the cluster's.
func (namedNetwork) IPv6() bool { return false }

// networkForeign are the flags of network create that do not act.
func networkForeign(cmd *cobra.Command) {
	const ofCluster = "all pods of a cluster are on one network, of which sampan up --cluster-cidr says the addresses"
	const swarm = "it is about swarm; the network of a cluster is on all its nodes"
	const plugin = "who gives addresses is the node's CNI configuration"
	foreignFlags(cmd,
		foreign{name: "attachable", idle: true, why: "any container may be on it"},
		foreign{name: "aux-address", word: true, why: ofCluster}, foreign{name: "gateway", word: true, why: ofCluster},
		foreign{name: "ip-range", word: true, why: ofCluster}, foreign{name: "subnet", word: true, why: ofCluster},
		foreign{name: "ipv4", same: "true", why: ofCluster}, foreign{name: "ipv6", why: ofCluster},
		foreign{name: "config-from", word: true, why: swarm}, foreign{name: "config-only", why: swarm}, foreign{name: "ingress", why: swarm},
		foreign{name: "scope", word: true, same: "local", why: swarm},
		foreign{name: "ipam-driver", word: true, same: "default", why: plugin}, foreign{name: "ipam-opt", word: true, why: plugin},
		foreign{name: "opt", letter: "o", word: true, why: "a network is rules of the nodes: there is no bridge of its own with options"},
	)
}

// networkFilterWords is what --filter of network ls may say.
const networkFilterWords = "name=TEXT, id=ID, driver=bridge|host|null, label=NAME[=VALUE], scope=local, type=custom|builtin or dangling=true|false"

// networkFilters reads --filter: of one name any must fit, of different ones all; but all
// labels, as in docker.
func networkFilters(texts []string) (func(namedNetwork) bool, error) {
	byName := filters[namedNetwork]{}
	for i, text := range texts {
		name, value, ok := strings.Cut(text, "=")
		fits := networkFilter(name, value)
		if !ok || fits == nil {
			return nil, fmt.Errorf("--filter %q: want %s", text, networkFilterWords)
		}
		if name == "label" {
			name = fmt.Sprint(name, i)
		}
		byName[name] = append(byName[name], fits)
	}
	return byName.fit, nil
}

// networkFilter is one of them, nil for none that there is.
func networkFilter(name, value string) func(namedNetwork) bool {
	switch {
	case name == "name":
		return func(v namedNetwork) bool { return strings.Contains(v.Name, value) }
	case name == "id":
		return func(v namedNetwork) bool { return strings.HasPrefix(v.ID, digits(value)) }
	case name == "driver":
		return func(v namedNetwork) bool { return v.Driver == value }
	case name == "scope":
		return func(v namedNetwork) bool { return v.Scope == value }
	case name == "label":
		return func(v namedNetwork) bool { return hasLabel(v.Labels, value) }
	case name == "type" && (value == "custom" || value == "builtin"):
		return func(v namedNetwork) bool { return slices.Contains(builtIn, v.Name) == (value == "builtin") }
	case name == "dangling" && (value == "true" || value == "false"):
		return func(v namedNetwork) bool {
			return !slices.Contains(builtIn, v.Name) && (len(v.Containers) == 0) == (value == "true")
		}
	}
	return nil
}
