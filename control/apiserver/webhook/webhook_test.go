package webhook

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/internal/target"
)

// cluster is one service and its one slice.
type cluster struct {
	service *corev1.Service
	slice   *discoveryv1.EndpointSlice
}

func (c cluster) Get(_ context.Context, t target.Target, _ metav1.GetOptions) (runtime.Object, error) {
	if t.Name != c.service.Name {
		return nil, apierrors.NewNotFound(t.Resource.GroupResource(), t.Name)
	}
	return c.service, nil
}

func (c cluster) List(context.Context, target.Target, metav1.ListOptions) (runtime.Object, error) {
	return &discoveryv1.EndpointSliceList{Items: []discoveryv1.EndpointSlice{*c.slice}}, nil
}

// serving is a webhook with a certificate for its service's name, and its roots.
func serving(t *testing.T) (*httptest.Server, *pki.Authority) {
	t.Helper()
	ca, err := pki.Open(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue(pki.Leaf{CommonName: "web.prod.svc", DNSNames: []string{"web.prod.svc"}, Server: true})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/echo":
			_, _ = io.Copy(w, r.Body)
		case "/elsewhere":
			http.Redirect(w, r, "/echo", http.StatusTemporaryRedirect)
		case "/large":
			_, _ = io.Copy(w, io.LimitReader(zeros{}, MaxResponse+2))
		default:
			http.Error(w, "no such hook", http.StatusInternalServerError)
		}
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{*leaf}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server, ca
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '0'
	}
	return len(p), nil
}

func TestCall(t *testing.T) {
	server, ca := serving(t)
	at := server.Listener.Addr().(*net.TCPAddr)
	port, ready := int32(at.Port), true //nolint:gosec // a port
	c := cluster{
		service: &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "prod"},
			Spec: corev1.ServiceSpec{Selector: map[string]string{"a": "b"}, Ports: []corev1.ServicePort{{Name: "https", Port: 443}}}},
		slice: &discoveryv1.EndpointSlice{Ports: []discoveryv1.EndpointPort{{Name: new("https"), Port: &port}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"127.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}}},
	}
	caller := New(c)
	t.Cleanup(caller.Close)
	roots := ca.PEM()
	service := func(name, path string, port int32) ClientConfig {
		return ClientConfig{Service: &Service{Namespace: "prod", Name: name, Path: path, Port: port}, CABundle: roots}
	}
	for _, step := range []struct {
		about  string
		cfg    ClientConfig
		ready  bool
		answer string // "" when it must work
	}{
		{"by service", service("web", "echo", 0), true, ""},
		{"refused", service("web", "/nothing", 443), true, `an error on the server ("no such hook")`},
		{"sent elsewhere", service("web", "/elsewhere", 443), true, "the server"},
		{"too large", service("web", "/large", 443), true, "more than " + strconv.Itoa(MaxResponse)},
		{"unknown port", service("web", "/echo", 80), true, `no service port 80 found for service "web"`},
		{"unknown service", service("other", "/echo", 443), true, `service "other" not found`},
		{"by address, under another name", ClientConfig{URL: server.URL + "/echo", CABundle: roots}, true, "certificate"},
		{"not https", ClientConfig{URL: "http://127.0.0.1/echo"}, true, "must be https"},
		{"nowhere", ClientConfig{}, true, "either service or URL"},
		{"bad roots", ClientConfig{URL: server.URL, CABundle: []byte("x")}, true, "unable to load root certificates"},
	} {
		got := map[string]string{}
		err := caller.Call(t.Context(), step.cfg, map[string]string{"a": "b"}, &got)
		if step.answer == "" && (err != nil || got["a"] != "b") {
			t.Errorf("%s: %v %v", step.about, got, err)
		}
		if step.answer != "" && (err == nil || !strings.Contains(err.Error(), step.answer)) {
			t.Errorf("%s: %v", step.about, err)
		}
	}
	ready = false
	late := New(c) // without the other's connections
	err := late.Call(t.Context(), service("web", "/echo", 443), map[string]string{}, &json.RawMessage{})
	if err == nil || !strings.Contains(err.Error(), `no endpoints available for service "web"`) {
		t.Errorf("no endpoints: %v", err)
	}
}

// Where a webhook is asked, as upstream's client has it.
func TestAddress(t *testing.T) {
	for want, in := range map[string]ClientConfig{
		"https://hook.example:8443/":         {URL: "https://hook.example:8443"},
		"https://hook.example/validate":      {URL: "https://hook.example//a/../validate/"},
		"https://hook.example/a/b":           {URL: "https://hook.example/a%2Fb"},
		"https://web.prod.svc:443/":          {Service: &Service{Namespace: "prod", Name: "web"}},
		"https://web.prod.svc:8443/validate": {Service: &Service{Namespace: "prod", Name: "web", Path: "//validate/", Port: 8443}},
	} {
		if at, err := in.address(); err != nil || at.String() != want {
			t.Errorf("%+v: %v, %v; want %s", in, at, err, want)
		}
	}
}
