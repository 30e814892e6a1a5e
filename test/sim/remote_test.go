package sim_test

import (
	"context"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/apiserver"
	"github.com/sampan-dev/sampan/control/controller"
	controllers "github.com/sampan-dev/sampan/control/controller/all"
	"github.com/sampan-dev/sampan/control/store/memory"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/internal/target"
	kindtable "github.com/sampan-dev/sampan/kinds/all"
)

var flunders = target.Of(schema.GroupVersionResource{Group: "wares.example.com", Version: "v1", Resource: "flunders"}, "default")

// listening is an API server on loopback, in real time: another server can only be
// reached over a network.
type listening struct {
	*plane
	ca   *pki.Authority
	url  string
	stop func()
}

func serve(t *testing.T, proxies *pki.Authority, names ...string) *listening {
	t.Helper()
	dir := t.TempDir()
	ca, err := pki.Open(filepath.Join(dir, "pki"), time.Now)
	check(t, err)
	tokens, err := pki.OpenTokenKey(filepath.Join(dir, "tokens.key"))
	check(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	objects := memory.New(memory.Config{})
	server, err := apiserver.New(apiserver.Config{Store: objects, Kinds: kindtable.Kinds(), Authority: ca, TokenKey: tokens, Listener: l,
		FrontProxy: proxies, Names: names, Log: slog.New(slog.DiscardHandler)})
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = server.Run(ctx) })
	s := &listening{plane: &plane{T: t, server: server}, ca: ca, url: "https://" + l.Addr().String(), stop: func() { cancel(); running.Wait() }}
	t.Cleanup(func() { s.stop(); _ = objects.Close() })
	<-server.Ready()
	s.admin = server.Local(identity.Identity{Name: "admin", Groups: []string{identity.Masters, identity.Authenticated}})
	return s
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until waits for what happens a moment later.
func (s *listening) until(what string, holds func() bool) {
	s.Helper()
	late := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-late:
			s.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// aggregate lets s hand requests for flunders on to back.
func (s *listening) aggregate(back *listening) {
	s.Helper()
	ctx := s.Context()
	crds := target.Of(apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions"), "")
	_, err := back.admin.Create(ctx, crds, &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "flunders.wares.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{Group: "wares.example.com", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "flunders", Kind: "Flunder"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object"}}}}}}, metav1.CreateOptions{})
	check(s.T, err)
	at, err := url.Parse(back.url)
	check(s.T, err)
	port, err := strconv.ParseInt(at.Port(), 10, 32)
	check(s.T, err)
	number := int32(port)
	_, err = s.admin.Create(ctx, target.Of(client.Services.GroupVersionResource, "default"), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "wares"},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost"}}, metav1.CreateOptions{})
	check(s.T, err)
	_, err = s.admin.Create(ctx, target.Of(apiregistrationv1.SchemeGroupVersion.WithResource("apiservices"), ""), &apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: "v1.wares.example.com"}, Spec: apiregistrationv1.APIServiceSpec{Group: "wares.example.com", Version: "v1",
			GroupPriorityMinimum: 100, VersionPriority: 10, CABundle: back.ca.PEM(),
			Service: &apiregistrationv1.ServiceReference{Namespace: "default", Name: "wares", Port: &number}}}, metav1.CreateOptions{})
	check(s.T, err)
	s.until("flunders are served", func() bool {
		_, err := s.admin.List(ctx, flunders, metav1.ListOptions{})
		return err == nil
	})
}

// flunder makes one, owned by a config map.
func (s *listening) flunder(name string, owner *corev1.ConfigMap) *unstructured.Unstructured {
	s.Helper()
	obj := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "wares.example.com/v1", "kind": "Flunder", "metadata": map[string]any{"name": name}}}
	if owner != nil {
		obj.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID}})
	}
	made, err := s.admin.Create(s.Context(), flunders, obj, metav1.CreateOptions{})
	check(s.T, err)
	return made.(*unstructured.Unstructured)
}

func (s *listening) configMap(name string, owners ...metav1.OwnerReference) *corev1.ConfigMap {
	s.Helper()
	made, err := client.ConfigMaps.Create(s.Context(), s.admin, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, OwnerReferences: owners}})
	check(s.T, err)
	return made
}

func (s *listening) has(name string) bool {
	_, err := client.ConfigMaps.Get(s.Context(), s.admin, "default", name)
	return !apierrors.IsNotFound(err)
}

// What another server keeps is collected with its owners, and owns; a server that
// is down keeps its own, and holds up nobody else's.
func TestGarbageOfOtherServers(t *testing.T) {
	proxies, err := pki.Temporary(time.Now)
	check(t, err)
	back := serve(t, proxies, "wares.default.svc")
	front := serve(t, proxies)
	front.aggregate(back)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		_ = controllers.Start(ctx, controllers.Config{Transport: front.component, Kinds: controller.NewKinds(stored()...),
			RootCA: front.ca.PEM(), Log: slog.New(slog.DiscardHandler), Authority: front.ca})
	})
	t.Cleanup(func() { cancel(); running.Wait() })

	owner := front.configMap("owner")
	front.flunder("owned", owner)
	boss := front.flunder("boss", nil)
	ref := metav1.OwnerReference{APIVersion: "wares.example.com/v1", Kind: "Flunder", Name: "boss", UID: boss.GetUID()}
	front.configMap("minion", ref)
	check(t, client.ConfigMaps.Delete(ctx, front.admin, "default", "owner", metav1.DeleteOptions{}))
	front.until("a flunder goes with its owner", func() bool {
		_, err := front.admin.Get(ctx, flunders.Object("owned"), metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	check(t, front.admin.Delete(ctx, flunders.Object("boss"), metav1.DeleteOptions{}))
	front.until("a config map goes with a flunder", func() bool { return !front.has("minion") })

	late := front.flunder("late", nil)
	ref.Name, ref.UID = "late", late.GetUID()
	front.configMap("waits", ref)
	back.stop()
	front.until("the server is known to be down", func() bool {
		_, err := front.admin.Get(ctx, flunders.Object("late"), metav1.GetOptions{})
		return apierrors.IsServiceUnavailable(err)
	})
	above := front.configMap("above")
	front.configMap("below", metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "above", UID: above.UID})
	front.configMap("doubtful", metav1.OwnerReference{APIVersion: "wares.example.com/v1", Kind: "Flunder", Name: "who knows", UID: "1"})
	check(t, client.ConfigMaps.Delete(ctx, front.admin, "default", "above", metav1.DeleteOptions{}))
	front.until("the others' garbage is collected", func() bool { return !front.has("below") })
	if !front.has("waits") || !front.has("doubtful") {
		t.Error("what depends on a server that is down was taken for garbage")
	}
}
