package apiserver

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/kinds/apiregistration"
)

// wares is an extension server for the group wares.example.com: it believes the
// names in the headers of whom the front proxy's authority has certified.
type wares struct {
	t    *testing.T
	at   netip.AddrPort
	ca   *pki.Authority
	halt func()

	// say answers in place of what follows, if set before the first request.
	say func(http.ResponseWriter, *http.Request)

	mu   sync.Mutex
	seen []string // who asked what
}

const waresResources = `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"wares.example.com/v1","resources":[
 {"name":"flunders","singularName":"flunder","namespaced":true,"kind":"Flunder","verbs":["get","list","watch"],"shortNames":["fl"]},
 {"name":"flunders/status","singularName":"","namespaced":true,"kind":"Flunder","verbs":["get"]}]}`

func startWares(t *testing.T, front []byte) *wares {
	ca, err := pki.Temporary(time.Now)
	must(t, err)
	leaf, err := ca.Issue(pki.Leaf{CommonName: "wares", DNSNames: []string{"wares.shop.svc"}, Server: true})
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(front)
	s := &wares{t: t, ca: ca}
	server := httptest.NewUnstartedServer(s)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{*leaf}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"h2", "http/1.1"}}
	server.EnableHTTP2 = true
	server.StartTLS()
	s.halt = sync.OnceFunc(server.Close)
	t.Cleanup(s.halt)
	s.at = netip.MustParseAddrPort(server.Listener.Addr().String())
	return s
}

func (s *wares) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if cn := r.TLS.PeerCertificates[0].Subject.CommonName; cn != "front-proxy-client" {
		http.Error(w, "who is "+cn, http.StatusForbidden)
		return
	}
	if s.say != nil {
		s.say(w, r)
		return
	}
	s.mu.Lock()
	s.seen = append(s.seen, fmt.Sprintf("%s %v uid=%s scopes=%v %s", r.Header.Get("X-Remote-User"), r.Header.Values("X-Remote-Group"),
		r.Header.Get("X-Remote-Uid"), r.Header.Values("X-Remote-Extra-Acme.com%2fscopes"), r.URL.RequestURI()))
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.URL.Path == "/apis/wares.example.com/v1":
		fmt.Fprint(w, waresResources)
	case r.URL.Path == "/openapi/v3":
		fmt.Fprint(w, `{"paths":{"apis/wares.example.com/v1":{"serverRelativeURL":"/openapi/v3/apis/wares.example.com/v1?hash=1"}}}`)
	case r.URL.Path == "/openapi/v2":
		fmt.Fprint(w, `{"swagger":"2.0","paths":{"/apis/wares.example.com/v1/flunders":{}, "/api/v1/pods":{"theirs":true}},"definitions":{"com.example.Flunder":{"type":"object"}}}`)
	case strings.HasSuffix(r.URL.Path, "/flunders") && r.URL.Query().Get("watch") == "true":
		for i := range 2 {
			fmt.Fprintf(w, "{\"type\":\"ADDED\",\"object\":{\"n\":%d}}\n", i)
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
	case strings.HasSuffix(r.URL.Path, "/flunders/f/exec"):
		conn, buf, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(buf, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = buf.Flush()
		line, _ := buf.ReadString('\n')
		fmt.Fprint(conn, "echo "+line)
	case strings.HasSuffix(r.URL.Path, "/flunders"):
		fmt.Fprint(w, `{"kind":"FlunderList","apiVersion":"wares.example.com/v1","items":[]}`)
	default:
		http.Error(w, "no such path", http.StatusNotFound)
	}
}

func (s *wares) lastAsked(part string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range slices.Backward(s.seen) {
		if strings.Contains(line, part) {
			return line
		}
	}
	return ""
}

// publish makes the service, its endpoints and the APIService of s.
func (w *world) publish(admin *http.Client, s *wares) {
	port := int32(s.at.Port())
	w.made(admin, "/api/v1/namespaces", &corev1.Namespace{TypeMeta: typed("v1", "Namespace"), ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	w.made(admin, "/apis/apiregistration.k8s.io/v1/apiservices", &apiregistrationv1.APIService{TypeMeta: typed("apiregistration.k8s.io/v1", "APIService"),
		ObjectMeta: metav1.ObjectMeta{Name: "v1.wares.example.com"}, Spec: apiregistrationv1.APIServiceSpec{
			Group: "wares.example.com", Version: "v1", GroupPriorityMinimum: 17550, VersionPriority: 10, CABundle: s.ca.PEM(),
			Service: &apiregistrationv1.ServiceReference{Namespace: "shop", Name: "wares", Port: &port}}})
	w.condition(admin, "ServiceNotFound", `service/wares in "shop" is not present`)
	w.made(admin, "/api/v1/namespaces/shop/services", &corev1.Service{TypeMeta: typed("v1", "Service"), ObjectMeta: metav1.ObjectMeta{Name: "wares"},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "https", Port: port}}}})
	w.condition(admin, "EndpointsNotFound", `cannot find endpointslices for service/wares in "shop"`)
	// Endpoints may not be on the loopback interface; a name may be.
	var svc corev1.Service
	w.do(admin, "GET", "/api/v1/namespaces/shop/services/wares", nil, &svc)
	svc.Spec.Type, svc.Spec.ExternalName, svc.Spec.ClusterIP, svc.Spec.ClusterIPs = corev1.ServiceTypeExternalName, "localhost", "", nil
	if code, text := w.do(admin, "PUT", "/api/v1/namespaces/shop/services/wares", &svc, nil); code != 200 {
		w.t.Fatalf("move service: %d %s", code, text)
	}
	w.condition(admin, "Passed", "all checks passed")
}

func (w *world) made(c *http.Client, path string, obj any) {
	w.t.Helper()
	if code, text := w.do(c, "POST", path, obj, nil); code != http.StatusCreated {
		w.t.Fatalf("POST %s: %d %s", path, code, text)
	}
}

// condition waits for the APIService's condition to have the reason.
func (w *world) condition(c *http.Client, reason, message string) {
	w.t.Helper()
	var last string
	w.eventually("condition "+reason, func() bool {
		var s apiregistrationv1.APIService
		w.do(c, "GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1.wares.example.com", nil, &s)
		at := apiregistration.Available(&s)
		if at == nil {
			return false
		}
		last = at.Reason + ": " + at.Message
		return at.Reason == reason && strings.Contains(at.Message, message)
	}, func() string { return last })
}

// eventually polls what the server says of itself: there is no event to wait for.
func (w *world) eventually(what string, ok func() bool, say func() string) {
	w.t.Helper()
	deadline := time.Now().Add(patient)
	for !ok() {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not within %v; last %s", what, patient, say())
		}
		<-time.After(20 * time.Millisecond)
	}
}

func TestRemoteAPI(t *testing.T) {
	w := start(t)
	admin, alice := w.as("admin", "system:masters"), w.as("alice")
	w.registered(admin)
	var trust corev1.ConfigMap
	w.do(admin, "GET", "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication", nil, &trust)
	if got := trust.Data["requestheader-allowed-names"]; got != `["front-proxy-client"]` {
		t.Fatalf("allowed names are %q", got)
	}
	s := startWares(t, []byte(trust.Data["requestheader-client-ca-file"]))
	w.publish(admin, s)

	const list = "/apis/wares.example.com/v1/namespaces/shop/flunders"
	w.eventually("list", func() bool { code, _ := w.do(admin, "GET", list, nil, nil); return code == 200 }, func() string { return "" })
	if code, text := w.do(admin, "GET", list+"?limit=5", nil, nil, "Impersonate-User", "bob", "Impersonate-Uid", "u1", "Impersonate-Group", "system:masters",
		"Impersonate-Extra-Acme.com%2fscopes", "view", "X-Remote-User", "mallory"); code != 200 || !strings.Contains(text, "FlunderList") {
		t.Errorf("list as bob: %d %s", code, text)
	}
	if got, want := s.lastAsked("limit=5"), "bob [system:masters system:authenticated] uid=u1 scopes=[view] "+list+"?limit=5"; got != want {
		t.Errorf("the extension server saw\n%s\nwant\n%s", got, want)
	}
	code, text := w.do(alice, "GET", list, nil, nil)
	if code != http.StatusForbidden || !strings.Contains(text, `User \"alice\" cannot list resource \"flunders\" in API group \"wares.example.com\" in the namespace \"shop\"`) {
		t.Errorf("alice: %d %s", code, text)
	}
	t.Run("watch", func(t *testing.T) { watchWares(t, w, admin, list) })
	t.Run("upgrade", func(t *testing.T) { upgradeWares(t, w) })
	t.Run("discovery", func(t *testing.T) { discoverWares(t, w, admin, s) })
	t.Run("schemas", func(t *testing.T) { schemasOfWares(t, w, admin) })
	t.Run("down", func(t *testing.T) { waresDown(t, w, admin, s, list) })
}

func watchWares(t *testing.T, w *world, c *http.Client, list string) {
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+list+"?watch=true", nil)
	must(t, err)
	answer, err := c.Do(r)
	must(t, err)
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	for i := range 2 {
		if !lines.Scan() || !strings.Contains(lines.Text(), strconv.Itoa(i)) {
			t.Fatalf("event %d: %q", i, lines.Text())
		}
	}
}

func upgradeWares(t *testing.T, w *world) {
	leaf, err := w.ca.Issue(pki.Leaf{CommonName: "admin", Organizations: []string{"system:masters"}, Client: true})
	must(t, err)
	conn, err := tls.Dial("tcp", strings.TrimPrefix(w.url, "https://"), &tls.Config{RootCAs: w.ca.Pool(), Certificates: []tls.Certificate{*leaf}, ServerName: "127.0.0.1", NextProtos: []string{"http/1.1"}})
	must(t, err)
	defer conn.Close()
	fmt.Fprint(conn, "POST /apis/wares.example.com/v1/namespaces/shop/flunders/f/exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	in := bufio.NewReader(conn)
	answer, err := http.ReadResponse(in, nil)
	must(t, err)
	if answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("status %d", answer.StatusCode)
	}
	fmt.Fprint(conn, "hello\n")
	if line, _ := in.ReadString('\n'); line != "echo hello\n" {
		t.Errorf("got %q", line)
	}
}

func discoverWares(t *testing.T, w *world, c *http.Client, s *wares) {
	var groups metav1.APIGroupList
	w.do(c, "GET", "/apis", nil, &groups)
	var names []string
	for _, g := range groups.Groups {
		names = append(names, g.Name)
	}
	// Between authorization.k8s.io (17600) and autoscaling (17500) by its priority.
	if i := slices.Index(names, "wares.example.com"); i < 1 || names[i-1] != "authorization.k8s.io" || names[0] != "apiregistration.k8s.io" {
		t.Errorf("groups are %v", names)
	}
	var group metav1.APIGroup
	if code, text := w.do(c, "GET", "/apis/wares.example.com", nil, &group); code != 200 || group.PreferredVersion.GroupVersion != "wares.example.com/v1" {
		t.Errorf("group: %d %s", code, text)
	}
	var resources metav1.APIResourceList
	if code, _ := w.do(c, "GET", "/apis/wares.example.com/v1", nil, &resources); code != 200 || len(resources.APIResources) != 2 {
		t.Errorf("resources: %v", resources)
	}
	var found *apidiscoveryv2.APIVersionDiscovery
	w.eventually("aggregated discovery", func() bool { found = wholeWares(w, c); return found != nil && len(found.Resources) == 1 }, func() string { return "" })
	r := found.Resources[0]
	if found.Freshness != apidiscoveryv2.DiscoveryFreshnessCurrent || r.Resource != "flunders" || r.ResponseKind.Kind != "Flunder" ||
		r.Scope != apidiscoveryv2.ScopeNamespace || len(r.Subresources) != 1 || r.ShortNames[0] != "fl" {
		t.Errorf("aggregated: %+v", found)
	}
	_ = s
}

func wholeWares(w *world, c *http.Client) *apidiscoveryv2.APIVersionDiscovery {
	var list apidiscoveryv2.APIGroupDiscoveryList
	w.do(c, "GET", "/apis", nil, &list, "Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
	for i := range list.Items {
		if list.Items[i].Name == "wares.example.com" && len(list.Items[i].Versions) == 1 {
			return &list.Items[i].Versions[0]
		}
	}
	return nil
}

func schemasOfWares(t *testing.T, w *world, c *http.Client) {
	var index struct{ Paths map[string]json.RawMessage }
	w.do(c, "GET", "/openapi/v3", nil, &index)
	if len(index.Paths) < 10 || !strings.Contains(string(index.Paths["apis/wares.example.com/v1"]), "hash=1") {
		t.Errorf("index has %d paths, of wares %s", len(index.Paths), index.Paths["apis/wares.example.com/v1"])
	}
	var doc struct{ Paths, Definitions map[string]json.RawMessage }
	w.do(c, "GET", "/openapi/v2", nil, &doc)
	if doc.Definitions["com.example.Flunder"] == nil || doc.Paths["/apis/wares.example.com/v1/flunders"] == nil || strings.Contains(string(doc.Paths["/api/v1/pods"]), "theirs") {
		t.Error("OpenAPI v2 is not merged as it should be")
	}
}

// A server that is down costs its own callers a 503, and nobody else anything.
func waresDown(t *testing.T, w *world, c *http.Client, s *wares, list string) {
	s.halt()
	if code, text := w.do(c, "GET", list, nil, nil); code != http.StatusServiceUnavailable {
		t.Errorf("the first to notice: %d %q", code, text)
	}
	w.condition(c, "FailedDiscoveryCheck", "failing or missing response from https://wares.shop.svc:")
	// Who reads the condition may be quicker than who hands requests on by it, and who counts.
	var text string
	w.eventually("it is not even asked", func() bool {
		var code int
		code, text = w.do(c, "GET", list, nil, nil)
		return code == http.StatusServiceUnavailable && text == "service unavailable\n"
	}, func() string { return text })
	for _, want := range []string{`aggregator_unavailable_apiservice{name="v1.wares.example.com"} 1`, `aggregator_unavailable_apiservice{name="v1.apps"} 0`,
		`aggregator_unavailable_apiservice_total{name="v1.wares.example.com",reason="FailedDiscoveryCheck"} 1`} {
		w.eventually("metric "+want, func() bool {
			_, text = w.do(c, "GET", "/metrics", nil, nil)
			return strings.Contains(text, want)
		}, func() string { return "" })
	}
	if v := wholeWares(w, c); v == nil || v.Freshness != apidiscoveryv2.DiscoveryFreshnessStale || len(v.Resources) != 1 {
		t.Errorf("discovery: %+v", v)
	}
	if code, _ := w.do(c, "GET", "/api/v1/namespaces/shop/services", nil, nil); code != 200 {
		t.Errorf("others suffer: %d", code)
	}
	if code, text := w.do(c, "DELETE", "/apis/apiregistration.k8s.io/v1/apiservices/v1.wares.example.com", nil, nil); code != 200 {
		t.Errorf("delete: %d %s", code, text)
	}
	w.eventually("404", func() bool { code, _ := w.do(c, "GET", list, nil, nil); return code == 404 }, func() string { return "" })
}

func TestLocalAPIServices(t *testing.T) {
	w := start(t)
	admin := w.as("admin", "system:masters")
	var all apiregistrationv1.APIServiceList
	w.eventually("all registered", func() bool {
		w.do(admin, "GET", "/apis/apiregistration.k8s.io/v1/apiservices", nil, &all)
		return slices.ContainsFunc(all.Items, func(s apiregistrationv1.APIService) bool { return s.Name == "v1.storage.k8s.io" })
	}, func() string { return strconv.Itoa(len(all.Items)) })
	for _, s := range all.Items {
		c := apiregistration.Available(&s)
		if c == nil || c.Reason != "Local" || s.Labels["kube-aggregator.kubernetes.io/automanaged"] != "onstart" {
			t.Errorf("%s: %+v %v", s.Name, c, s.Labels)
		}
		if s.Name == "v1.apps" && (s.Spec.GroupPriorityMinimum != 17800 || s.Spec.VersionPriority != 15) {
			t.Errorf("apps: %+v", s.Spec)
		}
	}
	if code, text := w.do(admin, "GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1.apps", nil, nil, "Accept", "application/json;as=Table;v=v1;g=meta.k8s.io"); code != 200 || !strings.Contains(text, `"Local","True"`) {
		t.Errorf("table: %d %s", code, text)
	}
}
