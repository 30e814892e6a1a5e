package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/node/agent/agenttest"
)

// pods is a Node with one pod that has one container.
type pods struct{ log string }

func (p pods) Pods() []*corev1.Pod {
	return []*corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns"}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}}
}

func (p pods) Container(_ context.Context, _, pod, container string, previous bool) (Container, error) {
	if pod != "p" || container != "c" || previous {
		return Container{}, errors.New("no such container")
	}
	return Container{ID: "c1", LogPath: p.log, Running: true}, nil
}

func (p pods) Sandbox(context.Context, string, string) (string, error) { return "box", nil }

// start serves the API to a user "ok" who may do what allowed lists, as
// "verb/subresource".
func start(t *testing.T, engine *agenttest.Engine, allowed ...string) (*httptest.Server, *[]string) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(log, []byte("2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stdout F two\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var asked []string
	srv := httptest.NewServer(New(Config{
		Node: pods{log}, NodeName: "n1", Engine: engine, Settings: map[string]string{"k": "v"},
		Authn: func(r *http.Request) (identity.Identity, bool) {
			return identity.Identity{Name: "ok"}, r.Header.Get("Authorization") == "ok"
		},
		Authz: func(_ context.Context, _ identity.Identity, verb, subresource string) bool {
			asked = append(asked, verb+"/"+subresource)
			for _, a := range allowed {
				if a == verb+"/"+subresource {
					return true
				}
			}
			return false
		},
	}))
	t.Cleanup(srv.Close)
	return srv, &asked
}

func get(t *testing.T, url, auth string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", auth)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func TestOnlyHealthIsOpen(t *testing.T) {
	srv, _ := start(t, agenttest.New())
	if code, body := get(t, srv.URL+"/healthz", ""); code != 200 || body != "ok" {
		t.Errorf("healthz: %d %s", code, body)
	}
	for _, path := range []string{"/pods", "/runningpods/", "/configz", "/metrics", "/metrics/resource", "/stats/summary",
		"/containerLogs/ns/p/c", "/exec/ns/p/c?command=x&output=1", "/attach/ns/p/c?output=1", "/portForward/ns/p"} {
		if code, _ := get(t, srv.URL+path, ""); code != http.StatusUnauthorized {
			t.Errorf("%s is open to nobody in particular: %d", path, code)
		}
		if code, _ := get(t, srv.URL+path, "ok"); code != http.StatusForbidden {
			t.Errorf("%s is open to a user without rights: %d", path, code)
		}
	}
}

// TestAnUpgradeByGetIsNoRead: exec over a websocket is a GET, and the right to
// read nodes/proxy must not allow it.
func TestAnUpgradeByGetIsNoRead(t *testing.T) {
	engine := agenttest.New()
	srv, asked := start(t, engine, "get/proxy", "get/exec")
	if code, _ := get(t, srv.URL+"/exec/ns/p/c?command=x&output=1", "ok"); code != http.StatusForbidden {
		t.Errorf("%d after asking %v", code, *asked)
	}
	for _, a := range *asked {
		if !strings.HasPrefix(a, "create/") {
			t.Errorf("asked for %s", a)
		}
	}
}

func TestAnswers(t *testing.T) {
	srv, _ := start(t, agenttest.New(), "get/pods", "get/log", "get/proxy")
	for path, want := range map[string]string{
		"/pods":                             `"name":"p"`,
		"/containerLogs/ns/p/c":             "one\ntwo\n",
		"/containerLogs/ns/p/c?tailLines=1": "two\n",
		"/containerLogs/ns/p/x":             "no such container",
		"/configz":                          `{"kubeletconfig":{"k":"v"}}`,
		"/metrics":                          "kubelet_running_pods 1\n",
		"/metrics/resource":                 "scrape_error 0\n",
		"/stats/summary":                    `"nodeName":"n1"`,
	} {
		if _, body := get(t, srv.URL+path, "ok"); !strings.Contains(body, want) {
			t.Errorf("%s: %q, want %q in it", path, body, want)
		}
	}
	if code, _ := get(t, srv.URL+"/containerLogs/ns/p/c?tailLines=-1", "ok"); code != http.StatusBadRequest {
		t.Errorf("a negative tail: %d", code)
	}
}

// TestExecJoinsTheEnginesStream upgrades a connection through the server to an
// engine's address and speaks both ways.
func TestExecJoinsTheEnginesStream(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/stream/token" || r.Header.Get("Upgrade") != "SPDY/3.1" || r.Header.Get("Authorization") != "" {
			http.Error(w, "unexpected "+r.URL.String(), http.StatusBadRequest)
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
		line, _ := rw.ReadString('\n')
		fmt.Fprint(conn, "echo "+line)
	}))
	defer backend.Close()
	engine := agenttest.New()
	engine.StreamURL = backend.URL + "/stream/token"
	srv, _ := start(t, engine, "create/exec")
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "POST /exec/ns/p/c?command=sh&output=1 HTTP/1.1\r\nHost: x\r\nAuthorization: ok\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v %v", res, err)
	}
	fmt.Fprint(conn, "hello\n")
	if line, err := r.ReadString('\n'); err != nil || line != "echo hello\n" {
		t.Errorf("%q %v", line, err)
	}
}
