package proxy

import (
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/clienttest"
)

// A service that gets the label of another proxy, or of none, is let go of; so are
// slices; and both come back without it.
func TestLabels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := clienttest.NewMemory()
		svc := service("s", "10.96.0.1")
		part := slice(svc, nil, "10.0.0.1")
		part.Labels["kept"] = "yes"
		api.Seed(svc, part)
		p, err := New(Config{Transport: api, NodeName: "here", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.88.0.0/24")}})
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = p.services.Run(t.Context()) }()
		go func() { _ = p.slices.Run(t.Context()) }()
		for _, label := range []string{"", "service.kubernetes.io/headless", "", "service.kubernetes.io/service-proxy-name", ""} {
			changed, piece := svc.DeepCopy(), part.DeepCopy()
			if label != "" {
				changed.Labels = map[string]string{label: ""}
				piece.Labels[label] = ""
			}
			if _, err := client.Services.Update(t.Context(), api, changed); err != nil {
				t.Fatal(err)
			}
			if _, err := client.EndpointSlices.Update(t.Context(), api, piece); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			want := 1
			if label != "" {
				want = 0
			}
			if services, slices := len(p.services.List()), len(p.slices.List()); services != want || slices != want {
				t.Errorf("label %q: %d services and %d slices, want %d", label, services, slices, want)
			}
		}
	})
}
