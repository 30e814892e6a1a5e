package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/cri"
)

// Limits of what a probe reads.
const (
	// maxBody is how much of an HTTP answer is looked at (upstream's).
	maxBody = 10 << 10
	// maxOutput is how much of an exec's output goes into an event.
	maxOutput = 10 << 10
	// maxRedirects as upstream.
	maxRedirects = 10
)

// userAgent names us in HTTP probes; servers match on the "kube-probe/" prefix.
const userAgent = "kube-probe/1.37"

// Doer carries probes and hooks out.
type Doer struct {
	Engine cri.Engine
	// PodIPs tells a pod's addresses, the primary one first.
	PodIPs func(pod *corev1.Pod) []string
	// Cut, if it isn't nil, is told of a sleeping hook that was ended before its time;
	// FellBack of a hook over HTTPS to a server that spoke HTTP, and got that.
	Cut      func()
	FellBack func(pod *corev1.Pod, host string)
}

// Probe asks once, as an Asker.
func (d *Doer) Probe(ctx context.Context, pod *corev1.Pod, c *actual.Container, p *corev1.Probe) (Result, string) {
	container := spec.Container(pod, c.Name)
	switch {
	case p.Exec != nil:
		return d.exec(ctx, c.ID, p.Exec.Command)
	case p.HTTPGet != nil:
		return d.http(ctx, pod, container, p.HTTPGet)
	case p.TCPSocket != nil:
		return d.tcp(ctx, pod, container, p.TCPSocket.Host, p.TCPSocket.Port)
	case p.GRPC != nil:
		return d.grpc(ctx, pod, p)
	}
	return Unknown, fmt.Sprintf("missing probe handler for %s:%s", spec.FullName(pod), c.Name)
}

// exec succeeds when the command ends with 0.
func (d *Doer) exec(ctx context.Context, id string, command []string) (Result, string) {
	timeout := int64(0) // no end
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(int64(time.Until(deadline).Round(time.Second)/time.Second), 1)
	}
	got, err := d.Engine.ExecSync(ctx, &rt.ExecSyncRequest{ContainerId: id, Cmd: command, Timeout: timeout})
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return Failure, fmt.Sprintf("command timed out: %q timed out after %ds", strings.Join(command, " "), timeout)
	}
	if err != nil {
		return Failure, cri.Message(err)
	}
	output := string(got.GetStdout()) + string(got.GetStderr())
	if len(output) > maxOutput {
		output = output[:maxOutput]
	}
	if got.GetExitCode() != 0 {
		return Failure, output
	}
	return Success, output
}

// http succeeds with any status from 200 to 399. A redirect to another host
// isn't followed and counts as success with a warning, as upstream has it.
func (d *Doer) http(ctx context.Context, pod *corev1.Pod, c *corev1.Container, a *corev1.HTTPGetAction) (Result, string) {
	req, err := d.request(ctx, pod, c, a)
	if err != nil {
		return Unknown, err.Error()
	}
	res, err := client().Do(req)
	if err != nil {
		return Failure, err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err != nil {
		return Failure, err.Error()
	}
	if res.StatusCode < http.StatusOK || res.StatusCode >= http.StatusBadRequest {
		return Failure, fmt.Sprintf("HTTP probe failed with statuscode: %d", res.StatusCode)
	}
	if res.StatusCode >= http.StatusMultipleChoices {
		return Warned, "Probe terminated redirects, Response body: " + string(body)
	}
	return Success, string(body)
}

// client makes a connection of its own for each probe, so that none lingers. The
// container's certificate isn't verified: nobody could have vouched for it.
func client() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives:  true,
			DisableCompression: true,
			Proxy:              nil,
			TLSClientConfig:    &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if req.URL.Hostname() != via[0].URL.Hostname() {
				return http.ErrUseLastResponse
			}
			if len(via) >= maxRedirects {
				return errors.New("stopped after 10 redirects")
			}
			return nil
		},
	}
}

func (d *Doer) request(ctx context.Context, pod *corev1.Pod, c *corev1.Container, a *corev1.HTTPGetAction) (*http.Request, error) {
	port, err := Port(c, a.Port)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(a.Path)
	if err != nil {
		u = &url.URL{Path: a.Path}
	}
	u.Scheme = "http"
	if a.Scheme == corev1.URISchemeHTTPS {
		u.Scheme = "https"
	}
	u.Host = net.JoinHostPort(d.host(pod, a.Host), strconv.Itoa(port))
	if u.Path != "" && !strings.HasPrefix(u.Path, "/") {
		u.Path = "/" + u.Path
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for _, h := range a.HTTPHeaders {
		req.Header.Add(h.Name, h.Value)
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	if _, set := req.Header["User-Agent"]; !set {
		req.Header.Set("User-Agent", userAgent)
	}
	if _, set := req.Header["Accept"]; !set {
		req.Header.Set("Accept", "*/*")
	}
	return req, nil
}

func (d *Doer) host(pod *corev1.Pod, host string) string {
	if host != "" {
		return host
	}
	if ips := d.PodIPs(pod); len(ips) > 0 {
		return ips[0]
	}
	return ""
}

// Port resolves a port number or the name of one of the container's ports.
func Port(c *corev1.Container, p intstr.IntOrString) (int, error) {
	port := p.IntValue()
	if p.Type == intstr.String && c != nil {
		for _, named := range c.Ports {
			if named.Name == p.StrVal {
				port = int(named.ContainerPort)
			}
		}
	}
	if port <= 0 || port > 65535 {
		return 0, fmt.Errorf("invalid port number: %v", p.String())
	}
	return port, nil
}

// tcp succeeds when a connection can be opened. It is closed with a reset, so
// that a probe each second leaves no thousand sockets in TIME_WAIT behind.
func (d *Doer) tcp(ctx context.Context, pod *corev1.Pod, c *corev1.Container, host string, p intstr.IntOrString) (Result, string) {
	port, err := Port(c, p)
	if err != nil {
		return Unknown, err.Error()
	}
	conn, err := dial(ctx, net.JoinHostPort(d.host(pod, host), strconv.Itoa(port)))
	if err != nil {
		return Failure, err.Error()
	}
	if err := conn.Close(); err != nil {
		return Success, err.Error()
	}
	return Success, ""
}

func dial(ctx context.Context, address string) (net.Conn, error) {
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) {
			_ = syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1, Linger: 0})
		})
	}}
	return dialer.DialContext(ctx, "tcp", address)
}
