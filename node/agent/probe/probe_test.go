package probe

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/node/agent/actual"
)

// TestJudge reads each case as a row of results (s, f, ? for unknown) and the
// verdict after each (S, F, - for the first).
func TestJudge(t *testing.T) {
	for _, c := range []struct {
		kind              Kind
		success, failure  int32
		results, verdicts string
	}{
		{Readiness, 1, 3, "sffsfffs", "SSSSSSFS"},
		{Readiness, 2, 1, "ssfss", "FSFFS"},
		{Liveness, 1, 3, "ff?fs", "SSSFS"},
		{Startup, 1, 3, "ffs", "--S"},
		{Startup, 1, 2, "ff", "-F"},
	} {
		j := NewJudge(c.kind, &corev1.Probe{SuccessThreshold: c.success, FailureThreshold: c.failure})
		got := ""
		for _, r := range c.results {
			v, _ := j.Add(map[rune]Result{'s': Success, 'f': Failure, '?': Unknown}[r])
			got += map[Result]string{Success: "S", Failure: "F", Unknown: "-"}[v]
		}
		if got != c.verdicts {
			t.Errorf("%s %d/%d %s: %s, want %s", c.kind, c.success, c.failure, c.results, got, c.verdicts)
		}
	}
}

// TestSchedule checks when probes are asked, in false time.
func TestSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var asked []string
		ask := func(_ context.Context, _ *corev1.Pod, _ *actual.Container, p *corev1.Probe) (Result, string) {
			asked = append(asked, fmt.Sprintf("%s@%s", p.Exec.Command[0], time.Since(begin)))
			if p.Exec.Command[0] == "startup" && time.Since(begin) < 12*time.Second {
				return Failure, ""
			}
			return Success, ""
		}
		probe := func(name string, delay, period int32) *corev1.Probe {
			return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{name}}},
				InitialDelaySeconds: delay, PeriodSeconds: period, FailureThreshold: 10, SuccessThreshold: 1, TimeoutSeconds: 1}
		}
		pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "c", StartupProbe: probe("startup", 5, 5), LivenessProbe: probe("live", 0, 10),
		}}}}
		now := &actual.Pod{Containers: []actual.Container{{ID: "1", Name: "c", State: actual.Running, Started: begin}}}
		bell := make(chan struct{}, 1)
		s := NewSet(ask, func() { bell <- struct{}{} }, func(string, Kind, string) {})
		s.Update(t.Context(), pod, now, false)
		<-bell // the startup probe has succeeded
		if !s.Started(&pod.Spec.Containers[0], "1") {
			t.Error("not started")
		}
		s.Update(t.Context(), pod, now, false)
		time.Sleep(12 * time.Second)
		s.Stop()
		if got := strings.Join(asked, " "); got != "startup@5s startup@10s startup@15s live@15s live@25s" {
			t.Error(got)
		}
	})
}

// TestAStartingServerIsAskedMoreOften: at 0, 1, 3, 7 and 10 s, but only the
// regular failures count.
func TestAStartingServerIsAskedMoreOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var asked []string
		failures := 0
		ask := func(context.Context, *corev1.Pod, *actual.Container, *corev1.Probe) (Result, string) {
			asked = append(asked, time.Since(begin).String())
			if time.Since(begin) < 25*time.Second {
				return Failure, ""
			}
			return Success, ""
		}
		pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", ReadinessProbe: &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{}},
			PeriodSeconds: 10, FailureThreshold: 3, SuccessThreshold: 1, TimeoutSeconds: 1,
		}}}}}
		now := &actual.Pod{Containers: []actual.Container{{ID: "1", Name: "c", State: actual.Running, Started: begin}}}
		s := NewSet(ask, func() {}, func(string, Kind, string) { failures++ })
		s.Update(t.Context(), pod, now, false)
		time.Sleep(45 * time.Second)
		s.Stop()
		if got := strings.Join(asked, " "); got != "0s 1s 3s 7s 10s 18s 20s 30s 40s" || failures != 3 {
			t.Errorf("asked at %s; %d failures told", got, failures)
		}
		if !s.Ready(&pod.Spec.Containers[0], "1") {
			t.Error("not ready")
		}
	})
}

// TestWarning: it is told of, and counts as a success.
func TestWarning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", ReadinessProbe: &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{}},
			PeriodSeconds: 10, FailureThreshold: 3, SuccessThreshold: 1, TimeoutSeconds: 1,
		}}}}}
		ask := func(context.Context, *corev1.Pod, *actual.Container, *corev1.Probe) (Result, string) {
			return Warned, "redirected"
		}
		s := NewSet(ask, func() {}, func(string, Kind, string) { t.Error("told as a failure") })
		var told, counted []string
		s.Warn = func(container string, kind Kind, output string) {
			told = append(told, container+" "+kind.Title()+" "+output)
		}
		s.Count = func(_ string, _ Kind, r Result, _ time.Duration) {
			counted = append(counted, fmt.Sprint(r == Success))
		}
		s.Update(t.Context(), pod, &actual.Pod{Containers: []actual.Container{{ID: "1", Name: "c", State: actual.Running, Started: time.Now()}}}, false)
		time.Sleep(15 * time.Second)
		s.Stop()
		if got, want := strings.Join(told, ", ")+" "+strings.Join(counted, " "), "c Readiness redirected, c Readiness redirected true true"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if !s.Ready(&pod.Spec.Containers[0], "1") {
			t.Error("not ready")
		}
	})
}

func doer(pod string) *Doer {
	return &Doer{PodIPs: func(*corev1.Pod) []string { return []string{pod} }}
}

func TestHTTP(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/bad":
			w.WriteHeader(http.StatusInternalServerError)
		case "/away":
			http.Redirect(w, r, "http://example.invalid/", http.StatusFound)
		case "/agent":
			if r.Header.Get("User-Agent") != "kube-probe/1.37" || r.Header.Get("X-A") != "b" || r.Host != "me" {
				w.WriteHeader(http.StatusBadRequest)
			}
		case "/slow":
			<-r.Context().Done()
		}
	}))
	defer srv.Close()
	host, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	n, _ := strconv.Atoi(port)
	c := &corev1.Container{Name: "c", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: int32(n)}}}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{*c}}}
	for path, want := range map[string]Result{"/": Success, "/bad": Failure, "/away": Warned, "/agent": Success, "/slow": Failure} {
		limit := time.Minute
		if path == "/slow" {
			limit = 300 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		got, output := doer(host).Probe(ctx, pod, &actual.Container{Name: "c"}, &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Path: path, Port: intstr.FromString("web"), HTTPHeaders: []corev1.HTTPHeader{{Name: "X-A", Value: "b"}, {Name: "Host", Value: "me"}},
		}}})
		cancel()
		if got != want {
			t.Errorf("%s: %v %s", path, got, output)
		}
		if path == "/bad" && output != "HTTP probe failed with statuscode: 500" {
			t.Errorf("%s", output)
		}
	}
	tcp := func(port int) Result {
		r, _ := doer(host).Probe(t.Context(), pod, &actual.Container{Name: "c"}, &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
			TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(int32(port))}}})
		return r
	}
	if tcp(n) != Success {
		t.Error("an open port isn't open")
	}
	srv.Close()
	if tcp(n) != Failure {
		t.Error("a closed port is open")
	}
}

// TestGRPC asks a health service made by hand, since the message is two bytes.
func TestGRPC(t *testing.T) {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		status := uint64(healthServing)
		if strings.Contains(string(body), "sick") {
			status = 2
		}
		w.Header().Set("Trailer", "Grpc-Status")
		w.Header().Set("Content-Type", "application/grpc")
		message := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), status)
		w.Write(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...))
		w.Header().Set("Grpc-Status", "0")
		if strings.Contains(string(body), "none") {
			w.Header().Set("Grpc-Status", "12")
		}
	}))
	srv.Config.Protocols = &protocols
	srv.Start()
	defer srv.Close()
	host, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	n, _ := strconv.Atoi(port)
	for service, want := range map[string]string{
		"": "service healthy", "sick": `service unhealthy (responded with "NOT_SERVING")`,
		"none": "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): ",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_, output := doer(host).grpc(ctx, &corev1.Pod{}, grpcProbe(n, service))
		cancel()
		if output != want {
			t.Errorf("%q: %s", service, output)
		}
	}
}

func grpcProbe(port int, service string) *corev1.Probe {
	return &corev1.Probe{TimeoutSeconds: 1, ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: int32(port), Service: &service}}}
}

// TestGRPCWaitsForItsConnection: until somebody speaks HTTP/2 the probe goes on
// trying, and what it comes to is a timeout.
func TestGRPCWaitsForItsConnection(t *testing.T) {
	for name, accept := range map[string]func(net.Conn){
		"silent": nil, // the kernel takes the connection, and nobody comes for it
		"closes": func(c net.Conn) { c.Close() },
		"HTTP/1": func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\n\r\n"); c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for accept != nil {
					c, err := l.Accept()
					if err != nil {
						return
					}
					accept(c)
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			result, output := doer("127.0.0.1").grpc(ctx, &corev1.Pod{}, grpcProbe(l.Addr().(*net.TCPAddr).Port, ""))
			want := fmt.Sprintf("timeout: failed to connect service %q within 1s: context deadline exceeded", l.Addr())
			if result != Failure || output != want {
				t.Errorf("%v %s", result, output)
			}
		})
	}
}

// TestGRPCThatDoesNotAnswer: the connection is there, and then the time is over.
func TestGRPCThatDoesNotAnswer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: cancel})
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	srv.Config.Protocols = &protocols
	// The first connection is lost, and the next is tried.
	srv.Listener = &deafOnce{Listener: srv.Listener}
	srv.Start()
	defer srv.Close()
	_, output := doer("127.0.0.1").grpc(ctx, &corev1.Pod{}, grpcProbe(srv.Listener.Addr().(*net.TCPAddr).Port, ""))
	if output != "timeout: health rpc did not complete within 1s" {
		t.Error(output)
	}
}

// deafOnce drops the first connection.
type deafOnce struct {
	net.Listener
	heard bool
}

func (d *deafOnce) Accept() (net.Conn, error) {
	c, err := d.Listener.Accept()
	if err != nil || d.heard {
		return c, err
	}
	d.heard = true
	c.Close()
	return d.Listener.Accept()
}

// A hook over HTTPS to a server that speaks HTTP is asked over HTTP, without
// credentials; one that nobody answers fails.
func TestHookFallsBack(t *testing.T) {
	var got []string
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = append(got, r.URL.Path+" "+r.Header.Get("Authorization")+r.Header.Get("X-A"))
	}))
	host, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	n, _ := strconv.Atoi(port)
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
	h := &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{
		Host: host, Port: intstr.FromInt32(int32(n)), Path: "/bye", Scheme: corev1.URISchemeHTTPS, //nolint:gosec // a port
		HTTPHeaders: []corev1.HTTPHeader{{Name: "Authorization", Value: "secret"}, {Name: "X-A", Value: "b"}},
	}}
	var fell []string
	d := &Doer{FellBack: func(_ *corev1.Pod, host string) { fell = append(fell, host) }}
	if err := d.Hook(t.Context(), pod, "c", "id", h); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0] != "/bye b" || len(fell) != 1 || fell[0] != net.JoinHostPort(host, port) {
		t.Errorf("asked %q, told of %q", got, fell)
	}
	srv.Close()
	if err := d.Hook(t.Context(), pod, "c", "id", h); err == nil || len(fell) != 1 {
		t.Errorf("nobody is there: %v, told of %q", err, fell)
	}
}
