package connect

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/control/store/memory"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
)

// objects is what exists, by "resource namespace/name".
type objects map[string]runtime.Object

func (o objects) Get(_ context.Context, t target.Target, _ metav1.GetOptions) (runtime.Object, error) {
	if obj, ok := o[t.String()]; ok {
		return obj, nil
	}
	return nil, apierrors.NewNotFound(t.Resource.GroupResource(), t.Name)
}

func (o objects) List(context.Context, target.Target, metav1.ListOptions) (runtime.Object, error) {
	return o["slices"], nil
}

// everybody may do everything: authorisation is not what is tried here.
type everybody struct{}

func (everybody) Authorize(context.Context, resource.Access) (bool, string, error) {
	return true, "", nil
}

// nodeServer is a node's API with the certificate of the node called name. It
// answers with what it was asked, or speaks a protocol of its own on upgrade.
func nodeServer(t testing.TB, ca *pki.Authority, name string) *net.TCPAddr {
	t.Helper()
	leaf, err := ca.Issue(pki.KubeletLeaf(name, []string{"127.0.0.1"}))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(answer))
	cluster := &tls.Config{Certificates: []tls.Certificate{*leaf}, ClientCAs: ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert}
	// Whoever doesn't say that it is the cluster's own is shown another certificate.
	srv.TLS = &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if !slices.Contains(hello.SupportedProtos, pki.Protocol) {
			return nil, nil
		}
		return cluster, nil
	}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().(*net.TCPAddr)
}

func answer(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasSuffix(r.URL.Path, "/shout"):
		serveShout(w, r)
	case r.Header.Get("Upgrade") == "echo":
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n%s?%s\n", r.URL.Path, r.URL.RawQuery)
		_ = rw.Flush()
		_, _ = io.Copy(conn, rw)
	case strings.HasSuffix(r.URL.Path, "/waiting"):
		http.Error(w, "container \"waiting\" in pod \"web\" is waiting to start: ContainerCreating", http.StatusBadRequest)
	case strings.HasSuffix(r.URL.Path, "/elsewhere"):
		http.Redirect(w, r, "https://example.com/", http.StatusFound)
	default:
		fmt.Fprintf(w, "%s?%s by %s", r.URL.Path, r.URL.RawQuery, r.TLS.PeerCertificates[0].Subject.CommonName)
	}
}

// world is the generic handler with connections, and one node.
func world(t testing.TB, nodeName string) *httptest.Server {
	t.Helper()
	ca, err := pki.Open(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	client, err := ca.Hold(pki.Leaf{CommonName: "kube-apiserver-kubelet-client", Client: true})
	if err != nil {
		t.Fatal(err)
	}
	at := nodeServer(t, ca, nodeName)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{
		Addresses:       []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: "nowhere.invalid"}, {Type: corev1.NodeInternalIP, Address: "127.0.0.1"}},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(at.Port)}}}}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "web"},
		Spec:   corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "a"}, {Name: "waiting"}, {Name: "elsewhere"}, {Name: "shout"}}, InitContainers: []corev1.Container{{Name: "i"}}},
		Status: corev1.PodStatus{PodIP: "127.0.0.1"}}
	single := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "single"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a"}}}}
	world := objects{"nodes n1": node, "pods x/web": pod, "pods x/single": single,
		"services x/s": &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "s"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}},
		"slices":       &discoveryv1.EndpointSliceList{}}
	c := New(Config{Objects: world, Client: client, Roots: ca.Pool(), Fail: func(w http.ResponseWriter, _ *http.Request, err error) {
		var status apierrors.APIStatus
		if !errors.As(err, &status) {
			http.Error(w, err.Error(), http.StatusTeapot)
			return
		}
		http.Error(w, err.Error(), int(status.Status().Code))
	}})
	st := memory.New(memory.Config{})
	server, err := resource.New(resource.Config{Store: st, Authorizer: everybody{}, Connect: c.Handlers(), Kinds: rows()})
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		server.ServeHTTP(w, r.WithContext(identity.With(r.Context(), identity.Identity{Name: "alice"})))
	}))
	t.Cleanup(func() { front.Close(); server.Close(); _ = st.Close() })
	return front
}

func rows() []*kinds.Kind {
	k := func(kind, res string, namespaced bool, subs ...string) *kinds.Kind {
		row := &kinds.Kind{GVK: corev1.SchemeGroupVersion.WithKind(kind), Resource: res, Namespaced: namespaced, Storage: res,
			New: func() kinds.Object { return &corev1.Pod{} }, NewList: func() runtime.Object { return &corev1.PodList{} }}
		for _, s := range subs {
			row.Subresources = append(row.Subresources, kinds.Subresource{Name: s, Verbs: []string{"get", "create"}})
		}
		return row
	}
	return []*kinds.Kind{k("Pod", "pods", true, "log", "exec", "attach", "portforward", "proxy"), k("Service", "services", true, "proxy"), k("Node", "nodes", false, "proxy")}
}

func get(t *testing.T, server *httptest.Server, path string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

func TestPlainConnections(t *testing.T) {
	server := world(t, "n1")
	const pod = "/api/v1/namespaces/x/pods/web"
	for path, want := range map[string]string{
		pod + "/log?container=a&tailLines=5&follow=true": "200 /containerLogs/x/web/a?follow=true&tailLines=5 by kube-apiserver-kubelet-client",
		pod + "/log":                                               "400 a container name must be specified for pod web, choose one of: [a waiting elsewhere shout] or one of the init containers: [i]",
		pod + "/log?container=zzz":                                 "400 container zzz is not valid for pod web",
		pod + "/log?container=waiting":                             `400 container "waiting" in pod "web" is waiting to start: ContainerCreating`,
		pod + "/log?container=elsewhere":                           "302 ",
		pod + "/log?container=a&tailLines=-1":                      `422 PodLogOptions "web" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0`,
		pod + "/log?container=a&tailLines=x":                       `400 strconv.ParseInt: parsing "x": invalid syntax`,
		pod + "/log?container=a&limitBytes=0":                      `422 PodLogOptions "web" is invalid: limitBytes: Invalid value: 0: must be greater than 0`,
		pod + "/log?container=a&sinceTime=x":                       `400 parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006"`,
		pod + "/log?sinceSeconds=1&sinceTime=2020-01-01T00:00:00Z": "422 PodLogOptions \"web\" is invalid: []: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
		pod + "/log?container=a&stream=Zap":                        `422 PodLogOptions "web" is invalid: stream: Unsupported value: "Zap"`,
		"/api/v1/namespaces/x/pods/single/log":                     "204 ",
		"/api/v1/namespaces/x/pods/none/log":                       `404 pods "none" not found`,
		pod + "/exec?container=a&command=ls":                       "400 Upgrade request required",
		"/api/v1/namespaces/x/pods/single/exec":                    "400 pod single does not have a host assigned",
		"/api/v1/nodes/n1/proxy/stats/summary?a=b":                 "200 /stats/summary?a=b by kube-apiserver-kubelet-client",
		"/api/v1/nodes/n1/proxy/?a=b":                              "200 /?a=b by kube-apiserver-kubelet-client",
		pod + "/proxy/":                                            "400 address not allowed",
		"/api/v1/namespaces/x/services/s/proxy/":                   `503 no endpoints available for service "s"`,
		"/api/v1/namespaces/x/services/s:nope/proxy":               `503 no service port "nope" found for service "s"`,
	} {
		code, text := get(t, server, path)
		if got := strconv.Itoa(code) + " " + text; !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

// Who reads a proxy's root without a slash at its end is sent to it with one, as
// links on the page there want it.
func TestProxyRootEndsWithSlash(t *testing.T) {
	server := world(t, "n1")
	client := server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for method, want := range map[string]int{http.MethodGet: 301, http.MethodHead: 301, http.MethodPost: 200} {
		r, err := http.NewRequestWithContext(t.Context(), method, server.URL+"/api/v1/nodes/n1/proxy?a=b", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		where := answer.Header.Get("Location")
		if answer.StatusCode != want || want == 301 && where != "/api/v1/nodes/n1/proxy/?a=b" {
			t.Errorf("%s: %d to %q, want %d", method, answer.StatusCode, where, want)
		}
	}
}

// Bytes flow both ways after an upgrade, and the node got its own words.
func TestUpgrade(t *testing.T) {
	server := world(t, "n1")
	where, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/exec?container=a&command=sh&command=-c&stdin=true&stdout=true&tty=true": "/exec/x/web/a?command=sh&command=-c&input=1&output=1&tty=1",
		"/attach?container=a&stderr=1":                                            "/attach/x/web/a?error=1",
		"/portforward?ports=80,81":                                                "/portForward/x/web?port=80&port=81",
	} {
		conn, err := net.Dial("tcp", where.Host)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		fmt.Fprintf(conn, "GET /api/v1/namespaces/x/pods/web%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", path)
		buf := make([]byte, 4096)
		var got string
		for !strings.Contains(got, "\r\n\r\n") || !strings.HasSuffix(got, "\n") || strings.HasSuffix(got, "\r\n") {
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatalf("%s: %v after %q", path, err, got)
			}
			got += string(buf[:n])
		}
		if !strings.HasPrefix(got, "HTTP/1.1 101") || !strings.HasSuffix(got, want+"\n") {
			t.Errorf("%s: %q, want %s", path, got, want)
		}
		fmt.Fprint(conn, "hello")
		if n, err := io.ReadFull(conn, buf[:5]); err != nil || string(buf[:n]) != "hello" {
			t.Errorf("%s: echo %q %v", path, buf[:n], err)
		}
	}
}

// A certificate of the same authority that names another node is refused: an
// address that a node reports must lead to that node.
func TestWrongNode(t *testing.T) {
	server := world(t, "n2")
	code, text := get(t, server, "/api/v1/namespaces/x/pods/web/log?container=a")
	if code != http.StatusInternalServerError || !strings.Contains(text, `not for node "n1"`) {
		t.Errorf("log from the wrong node: %d %s", code, text)
	}
}
