package node_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/apiserver"
	"github.com/sampan-dev/sampan/control/controller"
	controllers "github.com/sampan-dev/sampan/control/controller/all"
	"github.com/sampan-dev/sampan/control/store/memory"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
	kindtable "github.com/sampan-dev/sampan/kinds/all"
)

// cluster is a control plane; admin may do everything.
type cluster struct {
	server *apiserver.Server
	admin  client.Transport
}

// shared is the control plane of all tests: it is started by the first, and ends
// with the process.
var shared = sync.OnceValues(startCluster)

func startCluster() (*cluster, error) {
	dir := filepath.Join(home, "control")
	authority, err := pki.Open(filepath.Join(dir, "pki"), time.Now)
	if err != nil {
		return nil, err
	}
	tokens, err := pki.OpenTokenKey(filepath.Join(dir, "tokens.key"))
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.DiscardHandler)
	server, err := apiserver.New(apiserver.Config{Store: memory.New(memory.Config{}), Kinds: kindtable.Kinds(), Authority: authority, TokenKey: tokens, Log: log})
	if err != nil {
		return nil, err
	}
	c := &cluster{server: server, admin: server.Local(identity.Identity{Name: "admin", Groups: []string{identity.Masters, identity.Authenticated}})}
	go func() { _ = server.Run(context.Background()) }()
	<-server.Ready()
	go func() {
		_ = controllers.Start(context.Background(), controllers.Config{
			Transport: c.component, Kinds: controller.NewKinds(stored()...), RootCA: authority.PEM(), Log: log,
			Authority: authority, TokenKey: tokens, LocalPath: true,
		})
	}()
	return c, nil
}

// component connects a controller as upstream's user for it.
func (c *cluster) component(name string) client.Transport {
	if name == "" {
		return c.server.Local(identity.Identity{Name: "system:kube-controller-manager", Groups: []string{identity.Authenticated}})
	}
	return c.server.Local(identity.ServiceAccount("kube-system", name, ""))
}

// node is a node's own connection.
func (c *cluster) node(name string) client.Transport {
	return c.server.Local(identity.Identity{Name: "system:node:" + name, Groups: []string{"system:nodes", identity.Authenticated}})
}

// stored are the kinds to look after, one version each.
func stored() []controller.Kind {
	var all []controller.Kind
	seen := map[string]bool{}
	for _, k := range kindtable.Kinds() {
		if k.Storage == "" || seen[k.Storage] {
			continue
		}
		seen[k.Storage] = true
		all = append(all, controller.Kind{GroupVersionResource: k.GVR(), Kind: k.GVK.Kind, Namespaced: k.Namespaced})
	}
	return all
}

// namespace makes one and waits until pods may be made in it.
func (c *cluster) namespace(t *testing.T, name string) {
	t.Helper()
	if _, err := client.Namespaces.Create(t.Context(), c.admin, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
		t.Fatal(err)
	}
	until(t, "namespace "+name+" has a service account", func() bool {
		_, err := client.ServiceAccounts.Get(t.Context(), c.admin, name, "default")
		return err == nil
	})
}

// lookAgain is the pause between two looks at something that has no event.
const lookAgain = 20 * time.Millisecond

// patience bounds the wait for anything.
const patience = 2 * time.Minute

// until looks again and again.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	within(t, patience, what, done)
}

func within(t testing.TB, limit time.Duration, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	over := time.NewTimer(limit)
	defer over.Stop()
	for !done() {
		select {
		case <-over.C:
			t.Fatalf("waited %s in vain: %s", limit, what)
		case <-tick.C:
		}
	}
}
