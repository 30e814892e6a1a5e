package agent

import (
	"fmt"
	"testing"

	"github.com/sampan-dev/sampan/node/agent/settings"
)

// TestEnforcements: which cgroups are held to which reservations.
func TestEnforcements(t *testing.T) {
	k := settings.Kubelet{SystemReservedCgroup: "/system", KubeReservedCgroup: "/kube",
		SystemReserved: map[string]string{"cpu": "500m", "memory": "1Mi", "pid": "100"}, KubeReserved: map[string]string{"memory": "2Mi", "cpu": "1"}}
	for _, c := range []struct {
		keys []string
		want string
	}{
		{[]string{"pods"}, "[]"},
		{[]string{"none"}, "[]"},
		{[]string{"pods", "system-reserved"}, "[{system-reserved /system {1048576 100 512}}]"},
		{[]string{"system-reserved-compressible", "kube-reserved"}, "[{system-reserved /system {0 0 512}} {kube-reserved /kube {2097152 0 1024}}]"},
	} {
		k.EnforceNodeAllocatable = c.keys
		if got, err := enforcements(&k); err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("%v: %v %v, want %s", c.keys, got, err, c.want)
		}
	}
}
