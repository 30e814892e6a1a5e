package proxy

import (
	"net/netip"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/clienttest"
)

// Every service is looked at again when the node is in another zone, and only then:
// a node's heartbeats are many.
func TestZone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := clienttest.NewMemory()
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}}
		api.Seed(service("s", "10.96.0.1"), node)
		p, err := New(Config{Transport: api, NodeName: "here", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.88.0.0/24")}})
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = p.services.Run(t.Context()) }()
		go func() { _ = p.node.Run(t.Context()) }()
		for _, c := range []struct {
			zone, beat string
			looked     bool
		}{{"", "", true}, {"", "1", false}, {"east", "1", true}, {"east", "2", false}, {"west", "3", true}} {
			node.Labels = map[string]string{corev1.LabelTopologyZone: c.zone, "beat": c.beat}
			if c.beat != "" {
				if _, err := client.Nodes.Update(t.Context(), api, node.DeepCopy()); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			p.mu.Lock()
			if looked := len(p.todo) == 1; looked != c.looked || p.zone != c.zone {
				t.Errorf("%v: %d services to look at, zone %q", c, len(p.todo), p.zone)
			}
			p.todo = map[types.NamespacedName]struct{}{}
			p.mu.Unlock()
		}
	})
}
