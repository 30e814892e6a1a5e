package engine

import (
	"fmt"
	"testing"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A pod's users are checked before anything is made: without its user 0 nobody could put
// the pod together.
func TestCheckUsers(t *testing.T) {
	root := []*rt.IDMapping{{ContainerId: 5, HostId: 9000, Length: 5}, {HostId: 1 << 16, Length: 1 << 16}}
	other := []*rt.IDMapping{{ContainerId: 1, HostId: 1000, Length: 100000}}
	const refused = `sandbox "n/p": its user namespace has no user or no group 0, whom it is made for`
	for name, c := range map[string]struct {
		users *rt.UserNamespace
		want  string
	}{
		"none":           {nil, "<nil>"},
		"the node's":     {&rt.UserNamespace{Mode: rt.NamespaceMode_NODE, Uids: other, Gids: other}, "<nil>"},
		"root":           {&rt.UserNamespace{Mode: rt.NamespaceMode_POD, Uids: root, Gids: root}, "<nil>"},
		"others":         {&rt.UserNamespace{Mode: rt.NamespaceMode_POD, Uids: other, Gids: other}, refused},
		"no group":       {&rt.UserNamespace{Mode: rt.NamespaceMode_POD, Uids: root}, refused},
		"an empty range": {&rt.UserNamespace{Mode: rt.NamespaceMode_POD, Uids: []*rt.IDMapping{{}}, Gids: root}, refused},
	} {
		err := checkSandbox(&rt.RunPodSandboxRequest{Config: &rt.PodSandboxConfig{
			Metadata: &rt.PodSandboxMetadata{Name: "p", Namespace: "n", Uid: "u"},
			Linux:    &rt.LinuxPodSandboxConfig{SecurityContext: &rt.LinuxSandboxSecurityContext{NamespaceOptions: &rt.NamespaceOption{UsernsOptions: c.users}}},
		}})
		if got := fmt.Sprint(err); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
