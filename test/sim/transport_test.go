package sim_test

import (
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/clienttest"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/apiserver"
	"github.com/sampan-dev/sampan/control/store/memory"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
	kindtable "github.com/sampan-dev/sampan/kinds/all"
)

// listen starts an API server on a real port of this machine and returns it with
// what an administrator needs to reach it.
func listen(t *testing.T) (*apiserver.Server, *rest.Config) {
	dir := t.TempDir()
	authority, err := pki.Open(filepath.Join(dir, "pki"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := pki.OpenTokenKey(filepath.Join(dir, "tokens.key"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	objects := memory.New(memory.Config{})
	server, err := apiserver.New(apiserver.Config{
		Store: objects, Kinds: kindtable.Kinds(), Authority: authority, TokenKey: tokens, Listener: l,
		Advertise: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 0),
		Log:       slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Run(t.Context()) }()
	t.Cleanup(func() { <-done; _ = objects.Close() })
	<-server.Ready()
	admin := server.Local(identity.Identity{Name: "admin", Groups: []string{identity.Masters, identity.Authenticated}})
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"}} // no pod without one
	if _, err := client.ServiceAccounts.Create(t.Context(), admin, account); err != nil {
		t.Fatal(err)
	}
	leaf, err := authority.Issue(pki.Leaf{CommonName: "admin", Organizations: []string{identity.Masters}, Client: true})
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := pki.Encode(leaf)
	if err != nil {
		t.Fatal(err)
	}
	return server, &rest.Config{
		Host:            "https://" + l.Addr().String(),
		TLSClientConfig: rest.TLSClientConfig{CAData: authority.PEM(), CertData: cert, KeyData: key},
	}
}

// Both transports to the real server, and the one in memory, pass one exam.
func TestTransports(t *testing.T) {
	t.Run("local", func(t *testing.T) {
		server, _ := listen(t)
		clienttest.Run(t, func(*testing.T) client.Transport {
			return server.Local(identity.Identity{Name: "admin", Groups: []string{identity.Masters, identity.Authenticated}})
		})
	})
	t.Run("https", func(t *testing.T) {
		_, cfg := listen(t)
		remote, err := client.NewHTTP(cfg)
		if err != nil {
			t.Fatal(err)
		}
		clienttest.Run(t, func(*testing.T) client.Transport { return remote })
	})
}

// A mirror over HTTPS follows changes made in process.
func TestRemoteInformer(t *testing.T) {
	server, cfg := listen(t)
	admin := server.Local(identity.Identity{Name: "admin", Groups: []string{identity.Masters, identity.Authenticated}})
	remote, err := client.NewHTTP(cfg)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 16)
	i := informer.New(remote, client.ConfigMaps, informer.Options{Namespace: "default", LabelSelector: "follow=me"})
	i.Subscribe(func(e informer.Event[*corev1.ConfigMap]) { seen <- e.Object().Name })
	go func() { _ = i.Run(t.Context()) }()
	<-i.Synced()
	made := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "one", Labels: map[string]string{"follow": "me"}}}
	if _, err := client.ConfigMaps.Create(t.Context(), admin, made); err != nil {
		t.Fatal(err)
	}
	select {
	case name := <-seen:
		if _, ok := i.Get("default", name); !ok || name != "one" {
			t.Errorf("saw %q, which the mirror does not hold", name)
		}
	case <-time.After(patience):
		t.Fatal("the mirror has not seen the object")
	}
}
