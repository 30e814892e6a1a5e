package core

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// TestNodeConfig: a store of old may have nodes with a source of their configuration;
// a new node has none, which is why this is no transcript.
func TestNodeConfig(t *testing.T) {
	for _, c := range []struct{ about, node, want string }{
		{"in order", `{spec: {configSource: {configMap: {namespace: a, name: b, kubeletConfigKey: c}}},
			status: {config: {active: {configMap: {uid: u, resourceVersion: "1", namespace: a, name: b, kubeletConfigKey: c}}}}}`, ""},
		{"a source", `{spec: {configSource: {configMap: {uid: u, resourceVersion: "1", name: "", kubeletConfigKey: a/b}}}}`,
			`spec.configSource.configMap.uid: Forbidden: uid must not be set in spec
spec.configSource.configMap.resourceVersion: Forbidden: resourceVersion must not be set in spec
spec.configSource.configMap.namespace: Required value
spec.configSource.configMap.name: Required value
spec.configSource.configMap.kubeletConfigKey: Invalid value: "a/b": `},
		{"no map", `{spec: {configSource: {}}}`, `spec.configSource: Invalid value: {"ConfigMap":null}: exactly one reference subfield must be non-nil`},
		{"what is in use", `{status: {config: {assigned: {}, lastKnownGood: {configMap: {namespace: a, name: b, kubeletConfigKey: c}}}}}`,
			`status.config.assigned: Invalid value: {"ConfigMap":null}: exactly one reference subfield must be non-nil
status.config.lastKnownGood.configMap.uid: Required value
status.config.lastKnownGood.configMap.resourceVersion: Required value`},
	} {
		n := &corev1.Node{}
		if err := yaml.UnmarshalStrict([]byte(c.node), n); err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, err := range validateNodeUpdate(n, n) {
			lines = append(lines, err.Error())
		}
		if got := strings.Join(lines, "\n"); !strings.HasPrefix(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%s:\n%s\nwant\n%s", c.about, got, c.want)
		}
	}
}
