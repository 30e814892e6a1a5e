package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	restclient "k8s.io/client-go/rest"
	remote "k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
	streaming "k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/node/agent/agenttest"
	"github.com/sampan-dev/sampan/node/agent/tally"
	"github.com/sampan-dev/sampan/node/cri"
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
	return Container{ID: "c1", LogPath: p.log, Running: true, Attempt: 3, StdinOnce: true}, nil
}

func (p pods) Sandbox(context.Context, string, string) (string, error) { return "box", nil }

// start serves the API to a user "ok" who may do what allowed lists, as
// "verb/subresource".
func start(t *testing.T, engine cri.Engine, allowed ...string) (*httptest.Server, *[]string) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(log, []byte("2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stdout F two\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	system := t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(system, "messages"), []byte("a line\n"), 0o600), os.Symlink(log, filepath.Join(system, "out"))); err != nil {
		t.Fatal(err)
	}
	var asked []string
	srv := httptest.NewServer(New(Config{
		Node: pods{log}, NodeName: "n1", Engine: engine, Settings: map[string]string{"k": "v"}, Probes: NewProbes(), SystemLogs: system, Checkpoints: t.TempDir(), Counts: []prometheus.Collector{tally.New("n1")},
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

func TestNothingIsOpen(t *testing.T) {
	srv, _ := start(t, agenttest.New())
	for _, path := range []string{"/healthz", "/healthz/ping", "/metrics/cadvisor", "/metrics/probes", "/pods", "/runningpods/", "/configz", "/metrics", "/metrics/resource", "/stats/summary",
		"/logs/", "/containerLogs/ns/p/c", "/exec/ns/p/c?command=x&output=1", "/attach/ns/p/c?output=1", "/portForward/ns/p"} {
		if code, _ := get(t, srv.URL+path, ""); code != http.StatusUnauthorized {
			t.Errorf("%s is open to nobody in particular: %d", path, code)
		}
		if code, _ := get(t, srv.URL+path, "ok"); code != http.StatusForbidden {
			t.Errorf("%s is open to a user without rights: %d", path, code)
		}
	}
}

// TestFineRights: each part has a right of its own; nodes/proxy stands for those
// that upstream lets it stand for.
func TestFineRights(t *testing.T) {
	for right, open := range map[string][]string{
		"get/healthz": {"/healthz", "/healthz/ping"}, "get/pods": {"/pods", "/runningpods/"}, "get/configz": {"/configz"},
		"get/stats": {"/stats/summary"}, "get/log": {"/logs/", "/logs/messages", "/containerLogs/ns/p/c"}, "get/metrics": {"/metrics", "/metrics/resource", "/metrics/cadvisor", "/metrics/probes"},
		"get/proxy": {"/healthz", "/healthz/ping", "/pods", "/runningpods/", "/configz", "/containerLogs/ns/p/c"},
	} {
		srv, _ := start(t, agenttest.New(), right)
		for _, path := range []string{"/healthz", "/healthz/ping", "/pods", "/runningpods/", "/configz", "/stats/summary", "/metrics", "/metrics/resource",
			"/metrics/cadvisor", "/metrics/probes", "/logs/", "/logs/messages", "/containerLogs/ns/p/c", "/exec/ns/p/c?command=x&output=1"} {
			want := http.StatusForbidden
			if slices.Contains(open, path) {
				want = http.StatusOK
			}
			if code, body := get(t, srv.URL+path, "ok"); code != want {
				t.Errorf("with %s, %s: %d %s", right, path, code, body)
			}
		}
	}
}

// TestCheckpoint: an engine that can't says so, one that can is asked for a file.
func TestCheckpoint(t *testing.T) {
	for _, c := range []struct {
		node pods
		path string
		code int
		want string
	}{
		{pods{}, "/checkpoint/ns/p/c", http.StatusInternalServerError, "checkpointing of ns/p/c failed (the container engine does not use CRIU"},
		{pods{}, "/checkpoint/ns/p/x", http.StatusNotFound, "no such container"},
		{pods{}, "/checkpoint/ns/p/c?timeout=soon", http.StatusNotFound, "cannot parse value of timeout parameter"},
		{pods{}, "/checkpoint/ns/p/c?timeout=-1", http.StatusInternalServerError, "requires the timeout value to be > 0"},
	} {
		srv, asked := start(t, agenttest.New(), "create/checkpoint")
		res, err := post(t, srv.URL+c.path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != c.code || !strings.Contains(string(body), c.want) {
			t.Errorf("%s: %d %s after asking %v", c.path, res.StatusCode, body, *asked)
		}
	}
}

func post(t *testing.T, url string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "ok")
	return http.DefaultClient.Do(req)
}

// measured is an engine with metrics.
type measured struct{ *agenttest.Engine }

func (measured) ListMetricDescriptors(context.Context, *rt.ListMetricDescriptorsRequest) (*rt.ListMetricDescriptorsResponse, error) {
	return &rt.ListMetricDescriptorsResponse{Descriptors: []*rt.MetricDescriptor{{Name: "container_memory_usage_bytes", Help: "Memory.", LabelKeys: []string{"id", "pod"}}}}, nil
}

func (measured) ListPodSandboxMetrics(context.Context, *rt.ListPodSandboxMetricsRequest) (*rt.ListPodSandboxMetricsResponse, error) {
	return &rt.ListPodSandboxMetricsResponse{PodMetrics: []*rt.PodSandboxMetrics{{ContainerMetrics: []*rt.ContainerMetrics{{Metrics: []*rt.Metric{
		{Name: "container_memory_usage_bytes", Timestamp: 5e9, MetricType: rt.MetricType_GAUGE, LabelValues: []string{"/a", "p\"q"}, Value: &rt.UInt64Value{Value: 7}},
	}}}}}}, nil
}

func TestCadvisorMetrics(t *testing.T) {
	w := httptest.NewRecorder()
	(&Server{cfg: Config{Engine: measured{agenttest.New()}}}).cadvisor(w, httptest.NewRequest(http.MethodGet, "/metrics/cadvisor", nil))
	want := "# HELP container_memory_usage_bytes Memory.\n# TYPE container_memory_usage_bytes gauge\n" +
		"container_memory_usage_bytes{id=\"/a\",pod=\"p\\\"q\"} 7 5000\n"
	if got := w.Body.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestProbeMetrics: results are counted until the pod is forgotten.
func TestProbeMetrics(t *testing.T) {
	p := NewProbes()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"}}
	p.Count(pod, Asked{"c", "Liveness", "failed", time.Second})
	p.Count(pod, Asked{"c", "Liveness", "failed", time.Second})
	p.Count(pod, Asked{"c", "Liveness", "successful", time.Second})
	show := func() string {
		w := httptest.NewRecorder()
		p.handler()(w, httptest.NewRequest(http.MethodGet, "/metrics/probes", nil))
		return w.Body.String()
	}
	if want := `prober_probe_total{container="c",namespace="ns",pod="p",pod_uid="u",probe_type="Liveness",result="failed"} 2`; !strings.Contains(show(), want) {
		t.Errorf("%q isn't in %s", want, show())
	}
	if want := `prober_probe_duration_seconds_count{container="c",namespace="ns",pod="p",probe_type="Liveness"} 1`; !strings.Contains(show(), want) {
		t.Errorf("%q isn't in %s", want, show())
	}
	p.Forget(pod)
	if strings.Contains(show(), "prober_probe") {
		t.Error("a forgotten pod is still shown")
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
	srv, _ := start(t, agenttest.New(), "get/pods", "get/log", "get/proxy", "get/metrics", "get/stats")
	for path, want := range map[string]string{
		"/pods":                             `"name":"p"`,
		"/containerLogs/ns/p/c":             "one\ntwo\n",
		"/containerLogs/ns/p/c?tailLines=1": "two\n",
		"/containerLogs/ns/p/x":             "no such container",
		"/logs/":                            `<a href="messages">`,
		"/logs/messages":                    "a line\n",
		"/logs/out":                         "500",
		"/logs/../server.go":                "404",
		"/configz":                          `{"kubeletconfig":{"k":"v"}}`,
		"/metrics":                          "kubelet_node_name{node=\"n1\"} 1\n",
		"/metrics/resource":                 "resource_scrape_error 0\n",
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

// told is an engine that counts who is told that a log is read.
type told struct {
	*agenttest.Engine
	ids []string
}

func (e *told) ReopenContainerLog(_ context.Context, r *rt.ReopenContainerLogRequest) (*rt.ReopenContainerLogResponse, error) {
	e.ids = append(e.ids, r.GetContainerId())
	return &rt.ReopenContainerLogResponse{}, nil
}

// The engine of a container for one client is told that its log is read, so that
// kubectl run, which reads and then attaches, does not show the same twice.
func TestReadLogsAreTold(t *testing.T) {
	engine := &told{Engine: agenttest.New()}
	srv, _ := start(t, engine, "get/log", "get/proxy")
	if _, body := get(t, srv.URL+"/containerLogs/ns/p/c", "ok"); body != "one\ntwo\n" {
		t.Error(body)
	}
	if got := fmt.Sprint(engine.ids); got != "[c1]" {
		t.Errorf("told of %s", got)
	}
}

// TestRunningPods: what the engine runs is shown in outline, though the API has none
// of it; what has not been started, or has a dead sandbox, is not.
func TestRunningPods(t *testing.T) {
	engine := agenttest.New()
	ctx := t.Context()
	box := func(name string) (string, *rt.PodSandboxConfig) {
		config := &rt.PodSandboxConfig{Metadata: &rt.PodSandboxMetadata{Name: name, Namespace: "ns", Uid: "u-" + name}}
		made, err := engine.RunPodSandbox(ctx, &rt.RunPodSandboxRequest{Config: config})
		if err != nil {
			t.Fatal(err)
		}
		return made.GetPodSandboxId(), config
	}
	dead, _ := box("dead")
	if _, err := engine.StopPodSandbox(ctx, &rt.StopPodSandboxRequest{PodSandboxId: dead}); err != nil {
		t.Fatal(err)
	}
	id, config := box("live")
	t.Cleanup(func() {
		if _, err := engine.StopPodSandbox(context.Background(), &rt.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
			t.Error(err)
		}
	})
	engine.Images["app"] = agenttest.Serve
	for _, name := range []string{"runs", "waits"} {
		made, err := engine.CreateContainer(ctx, &rt.CreateContainerRequest{PodSandboxId: id, SandboxConfig: config, Config: &rt.ContainerConfig{
			Metadata: &rt.ContainerMetadata{Name: name}, Image: &rt.ImageSpec{Image: "app"}, Labels: map[string]string{"io.kubernetes.pod.uid": "u-live"},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if name == "waits" {
			continue
		}
		if _, err := engine.StartContainer(ctx, &rt.StartContainerRequest{ContainerId: made.GetContainerId()}); err != nil {
			t.Fatal(err)
		}
	}
	srv, _ := start(t, engine, "get/proxy")
	want := `{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[{"metadata":{"name":"live","namespace":"ns","uid":"u-live"},` +
		`"spec":{"containers":[{"name":"runs","image":"app","resources":{}}]},"status":{}}]}` + "\n"
	if code, body := get(t, srv.URL+"/runningpods/", "ok"); code != http.StatusOK || body != want {
		t.Errorf("%d %s", code, body)
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
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
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

// own is an engine that can run commands as somebody else.
type own struct {
	*agenttest.Engine
	as cri.As
}

func (o *own) ExecAs(ctx context.Context, r *rt.ExecRequest, as cri.As) (*rt.ExecResponse, error) {
	o.as = as
	return o.Exec(ctx, r)
}

// Who may use the node's API may say who a command is, where an engine can do that.
func TestExecWithSomethingOfItsOwn(t *testing.T) {
	const path = "/exec/ns/p/c?command=x&output=1"
	ask := func(engine cri.Engine, query, env string) (int, string) {
		t.Helper()
		srv, _ := start(t, engine, "create/exec")
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+path+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "ok")
		r.Header.Set("Sampan-Exec-Env", env)
		answer, err := srv.Client().Do(r)
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
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "streams, header %q", r.Header.Get("Sampan-Exec-Env"))
	}))
	defer backend.Close()
	const vars = "WyJBPTEiLCJCPTIiXQ==" // ["A=1","B=2"]
	for query, want := range map[string]cri.As{
		"":                             {},
		"&user=bob:x&workdir=/w&env=1": {User: "bob:x", Cwd: "/w", Env: []string{"A=1", "B=2"}},
		"&user=bob":                    {User: "bob"}, // whoever sent that header has not meant the node
	} {
		engine := &own{Engine: agenttest.New()}
		engine.StreamURL = backend.URL
		if code, text := ask(engine, query, vars); code != http.StatusOK || text != `streams, header ""` {
			t.Errorf("%q: %d %s", query, code, text)
		}
		if got := fmt.Sprint(engine.as); got != fmt.Sprint(want) {
			t.Errorf("%q: %s, want %v", query, got, want)
		}
	}
	if code, text := ask(agenttest.New(), "&user=bob", ""); code != http.StatusNotImplemented || !strings.Contains(text, "can't run a command as another user") {
		t.Errorf("an engine that can't: %d %s", code, text)
	}
	if code, text := ask(&own{Engine: agenttest.New()}, "&env=1", "no base64"); code != http.StatusBadRequest {
		t.Errorf("what can't be read: %d %s", code, text)
	}
}

// shout is a command that answers in capitals and exits with 3.
type shout struct{}

//nolint:revive // the interface has that many arguments
func (shout) ExecInContainer(_ context.Context, _, _, _ string, cmd []string, in io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan streaming.TerminalSize, _ time.Duration) error {
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: %s", cmd, strings.ToUpper(string(text)))
	return utilexec.CodeExitError{Err: errors.New("exit code 3"), Code: 3}
}

// TestWebSocketsAreTranslated: kubectl's protocol is served with an engine that speaks SPDY,
// input and its end, output and exit code; unless that is switched off.
func TestWebSocketsAreTranslated(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/stream/token" || r.Header.Get("Authorization") != "" {
			http.Error(w, "unexpected "+r.URL.String(), http.StatusBadRequest)
			return
		}
		options := &streaming.Options{Stdin: true, Stdout: true, Stderr: true}
		streaming.ServeExec(w, r, shout{}, "", "", "", []string{"shout"}, options, time.Minute, 10*time.Second, streaming.SupportedStreamingProtocols)
	}))
	defer backend.Close()
	engine := agenttest.New()
	engine.StreamURL = backend.URL + "/stream/token"
	for _, translated := range []bool{true, false} {
		srv := httptest.NewServer(New(Config{
			Node: pods{}, Engine: engine, Translated: translated,
			Authn: func(*http.Request) (identity.Identity, bool) { return identity.Identity{Name: "ok"}, true },
			Authz: func(context.Context, identity.Identity, string, string) bool { return true },
		}))
		over, err := remote.NewWebSocketExecutor(&restclient.Config{Host: srv.URL}, http.MethodGet, srv.URL+"/exec/ns/p/c?command=shout&input=1&output=1&error=1")
		if err != nil {
			t.Fatal(err)
		}
		var out, complaint bytes.Buffer
		err = over.StreamWithContext(t.Context(), remote.StreamOptions{Stdin: strings.NewReader("quiet"), Stdout: &out, Stderr: &complaint})
		srv.Close()
		var code exec.CodeExitError
		if ended := errors.As(err, &code) && code.Code == 3 && out.String() == "[shout]: QUIET"; ended != translated {
			t.Errorf("translated %t: out %q, ended with %v", translated, out.String(), err)
		}
	}
}

// TestSystemLogQuestions: questions about services are answered where they are allowed.
func TestSystemLogQuestions(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "no-such-unit.log"), []byte("a line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for questions, want := range map[bool]string{true: "a line\n", false: "<pre>\n<a href=\"no-such-unit.log\">"} {
		srv := httptest.NewServer(New(Config{
			Node: pods{}, Engine: agenttest.New(), SystemLogs: dir, Questions: questions,
			Authn: func(*http.Request) (identity.Identity, bool) { return identity.Identity{Name: "ok"}, true },
			Authz: func(context.Context, identity.Identity, string, string) bool { return true },
		}))
		if code, body := get(t, srv.URL+"/logs/?query=no-such-unit", "ok"); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("questions %t: %d %q", questions, code, body)
		}
		srv.Close()
	}
}

// TestRefusedStreams: why there is no stream is an API status, whatever is in the text.
func TestRefusedStreams(t *testing.T) {
	srv, _ := start(t, agenttest.New(), "create/exec", "create/attach", "create/portforward")
	for path, want := range map[string]string{
		"/exec/ns/p/c?command=x":     `"message":"you must specify at least 1 of stdin, stdout, stderr","reason":"BadRequest","code":400`,
		"/attach/ns/p/none?output=1": `"reason":"NotFound","code":404`,
		"/portForward/ns/p?port=0":   `"message":"invalid port \"0\"","reason":"BadRequest","code":400`,
	} {
		res, err := post(t, srv.URL+path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if !strings.Contains(string(body), want) || res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %s %s", path, res.Header.Get("Content-Type"), body)
		}
	}
}

// TestAttachRun: who names a run of the container joins that one, or none.
func TestAttachRun(t *testing.T) {
	srv, _ := start(t, agenttest.New(), "create/attach")
	refused := func(run string) bool {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+"/attach/ns/p/c?output=1", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "ok")
		req.Header.Set(runHeader, run)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return res.StatusCode == http.StatusBadRequest && strings.Contains(string(body), "has ended: this is run 3")
	}
	for run, want := range map[string]bool{"": false, "3": false, "2": true, "4": true, "3x": true} {
		if got := refused(run); got != want {
			t.Errorf("run %q: refused %v", run, got)
		}
	}
}

// TestReadOnly: what everybody may read, and that nothing else is there.
func TestReadOnly(t *testing.T) {
	srv := httptest.NewServer(ReadOnly(Config{Node: pods{}, NodeName: "n1", Engine: agenttest.New(), Probes: NewProbes(), SystemLogs: t.TempDir(), Checkpoints: t.TempDir(), Profiled: true}))
	defer srv.Close()
	for path, want := range map[string]int{
		"/healthz": 200, "/pods": 200, "/metrics": 200, "/metrics/resource": 200, "/metrics/probes": 200, "/metrics/cadvisor": 200, "/stats/summary": 200,
		"/logs/": 404, "/configz": 404, "/exec/ns/p/c?command=x&output=1": 404, "/containerLogs/ns/p/c": 404, "/runningpods/": 404, "/debug/pprof/": 404, "/checkpoint/ns/p/c": 404, "/portForward/ns/p": 404,
	} {
		if code, body := get(t, srv.URL+path, ""); code != want {
			t.Errorf("%s: %d %s, want %d", path, code, body, want)
		}
	}
}
