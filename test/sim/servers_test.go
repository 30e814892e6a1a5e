package sim_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/apiserver"
	"github.com/sampan-dev/sampan/control/store/memory"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
	kindtable "github.com/sampan-dev/sampan/kinds/all"
	"github.com/sampan-dev/sampan/kinds/quota"
)

// servers starts API servers on one store and returns an administrator's way to
// each.
func servers(t *testing.T, n int) []client.Transport {
	dir := t.TempDir()
	authority, err := pki.Open(filepath.Join(dir, "pki"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := pki.OpenTokenKey(filepath.Join(dir, "tokens.key"))
	if err != nil {
		t.Fatal(err)
	}
	objects := memory.New(memory.Config{})
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() {
		stop()
		running.Wait()
		_ = objects.Close()
	})
	ways := make([]client.Transport, 0, n)
	for range n {
		server, err := apiserver.New(apiserver.Config{Store: objects, Kinds: kindtable.Kinds(), Authority: authority, TokenKey: tokens,
			Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))})
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() { _ = server.Run(ctx) })
		<-server.Ready()
		ways = append(ways, server.Local(identity.Identity{Name: "admin", Groups: []string{identity.Masters, identity.Authenticated}}))
	}
	synctest.Wait()
	return ways
}

// Two servers share one store: they never give one address to two services, nor
// let more in together than a quota allows.
func TestTwoServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most, tries = 8, 40
		ways := servers(t, 2)
		q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "few"}}
		q.Spec.Hard = amounts("count/configmaps", fmt.Sprint(most))
		made, err := client.ResourceQuotas.Create(t.Context(), ways[0], q)
		if err != nil {
			t.Fatal(err)
		}
		counted := made.DeepCopy() // no controller runs here
		counted.Status = corev1.ResourceQuotaStatus{Hard: q.Spec.Hard, Used: amounts("count/configmaps", "0")}
		if _, err := client.ResourceQuotas.UpdateStatus(t.Context(), ways[0], counted); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		var wg sync.WaitGroup
		for i := range tries {
			way := ways[i%len(ways)]
			wg.Go(func() { _, _ = client.ConfigMaps.Create(t.Context(), way, note(fmt.Sprintf("c-%d", i))) })
			wg.Go(func() {
				// The same small choice for both: the lower part of the range, by hand.
				s := plain(fmt.Sprintf("s-%d", i), fmt.Sprintf("10.96.0.%d", 20+i/2))
				_, _ = client.Services.Create(t.Context(), way, s)
			})
		}
		wg.Wait()
		configs, _, err := client.ConfigMaps.List(t.Context(), ways[1], "default", metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		after, err := client.ResourceQuotas.Get(t.Context(), ways[1], "default", "few")
		if err != nil {
			t.Fatal(err)
		}
		if used := quota.Show(after.Status.Used); len(configs) != most || used != fmt.Sprintf("count/configmaps=%d", most) {
			t.Errorf("%d config maps, the quota says %s", len(configs), used)
		}
		services, _, err := client.Services.List(t.Context(), ways[0], "", metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, s := range services {
			if seen[s.Spec.ClusterIP] {
				t.Errorf("two services have %s", s.Spec.ClusterIP)
			}
			seen[s.Spec.ClusterIP] = true
		}
		if len(services) != tries/2+1 {
			t.Errorf("%d services, want %d", len(services), tries/2+1)
		}
	})
}
