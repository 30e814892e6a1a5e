package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A load balancer learns where a service has endpoints.
func TestHealthPorts(t *testing.T) {
	w := newWorld(t)
	balanced := service("balanced", "10.96.0.1", nodePort(30080), externalLocal, func(s *corev1.ServiceSpec) {
		s.Type, s.HealthCheckNodePort = corev1.ServiceTypeLoadBalancer, 32000
	})
	a := pod{name: "a", ip: "10.88.0.2"}
	s := w.start(balanced, slice(balanced, []pod{a}, outsideIP))
	t.Cleanup(s.ports.close)
	s.health.synced(nil, time.Now())
	ask := func() string {
		dial := func(context.Context, string, string) (conn net.Conn, err error) {
			err = within(w.host, func() error { conn, err = net.Dial("tcp", "127.0.0.1:32000"); return err })
			return conn, err
		}
		c := &http.Client{Timeout: w.patience, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
		got, err := c.Get("http://node/")
		if err != nil {
			return "nobody"
		}
		defer got.Body.Close()
		body, err := io.ReadAll(got.Body)
		w.must(err)
		return fmt.Sprint(got.StatusCode, " ", got.Header.Get("X-Load-Balancing-Endpoint-Weight"), " ", strings.Join(strings.Fields(string(body)), ""))
	}
	if got, want := ask(), `200 1 {"service":{"namespace":"default","name":"balanced"},"localEndpoints":1,"serviceProxyHealthy":true}`; got != want {
		t.Errorf("with an endpoint here: %s, want %s", got, want)
	}
	away := slice(balanced, nil, outsideIP)
	s.update(away)
	if got, want := ask(), `503 0 {"service":{"namespace":"default","name":"balanced"},"localEndpoints":0,"serviceProxyHealthy":true}`; got != want {
		t.Errorf("without: %s, want %s", got, want)
	}
	s.ports.set(ownerOf(away), nil, 0)
	if got := ask(); got != "nobody" {
		t.Errorf("after the service: %s", got)
	}
}

// A node whose proxy is behind, or that is on its way out, gets no traffic.
func TestHealth(t *testing.T) {
	p := &Proxy{health: &health{}}
	told := func() string {
		var codes []string
		for _, path := range []string{"/livez", "/healthz"} {
			w := httptest.NewRecorder()
			p.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			codes = append(codes, fmt.Sprint(w.Code))
		}
		return strings.Join(codes, " ")
	}
	want := func(what, want string) {
		t.Helper()
		if got := told(); got != want {
			t.Errorf("%s: livez and healthz %s, want %s", what, got, want)
		}
	}
	want("before anything is written", "503 503")
	p.health.synced(nil, time.Now())
	want("in order", "200 200")
	failed := errors.New("no tables")
	p.health.synced(failed, time.Now())
	want("behind, but not for long", "200 200")
	p.health.synced(nil, time.Now())
	p.health.synced(failed, time.Now().Add(-2*overdue))
	p.health.synced(failed, time.Now())
	want("behind for long", "503 503")
	p.health.synced(nil, time.Now())
	node := &corev1.Node{Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: toBeDeleted}}}}
	p.health.nodeIs(node)
	want("about to be removed", "200 503")
	p.health.nodeIs(&corev1.Node{})
	want("to stay after all", "200 200")
}

// Only what is here and ready counts, each pod once.
func TestLocalReady(t *testing.T) {
	here, there, no := "here", "there", false
	at := func(ip string, node *string, ready *bool) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{Addresses: []string{ip}, NodeName: node, Conditions: discoveryv1.EndpointConditions{Ready: ready}}
	}
	slices := []*discoveryv1.EndpointSlice{
		{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Endpoints: []discoveryv1.Endpoint{
			at("10.0.0.1", &here, nil), at("10.0.0.2", &here, &no), at("10.0.0.3", &there, nil), at("10.0.0.4", nil, nil)}},
		{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Endpoints: []discoveryv1.Endpoint{at("10.0.0.1", &here, nil), at("10.0.0.5", &here, nil)}},
	}
	if got := localReady(slices, here); got != 2 {
		t.Errorf("%d endpoints, want 2", got)
	}
}
