package connect

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	restclient "k8s.io/client-go/rest"
	client "k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	streaming "k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// shout is a command that answers in capitals, complains and exits with 3.
type shout struct{}

//nolint:revive // the interface has that many arguments
func (shout) ExecInContainer(_ context.Context, _, _, _ string, cmd []string, in io.Reader, out, errOut io.WriteCloser, _ bool, _ <-chan streaming.TerminalSize, _ time.Duration) error {
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: %s", cmd, strings.ToUpper(string(text)))
	fmt.Fprint(errOut, "hoarse")
	return utilexec.CodeExitError{Err: fmt.Errorf("exit code 3"), Code: 3}
}

// serveShout is the node's side of exec, as engines have it.
func serveShout(w http.ResponseWriter, r *http.Request) {
	options := &streaming.Options{Stdin: true, Stdout: true, Stderr: true}
	streaming.ServeExec(w, r, shout{}, "", "", "", r.URL.Query()["command"], options, time.Minute, 10*time.Second, streaming.SupportedStreamingProtocols)
}

// The WebSocket protocol that kubectl speaks reaches a node that speaks SPDY:
// input and its end, both outputs and the exit code.
func TestExecOverWebSocket(t *testing.T) {
	server := world(t, "n1")
	where, err := url.Parse(server.URL + "/api/v1/namespaces/x/pods/web/exec?container=shout&command=shout&stdin=true&stdout=true&stderr=true")
	if err != nil {
		t.Fatal(err)
	}
	over, err := client.NewWebSocketExecutor(&restclient.Config{Host: server.URL}, http.MethodGet, where.String())
	if err != nil {
		t.Fatal(err)
	}
	var out, complaint bytes.Buffer
	err = over.StreamWithContext(t.Context(), client.StreamOptions{Stdin: strings.NewReader("quiet"), Stdout: &out, Stderr: &complaint})
	var code exec.CodeExitError
	if !errors.As(err, &code) {
		t.Errorf("the command's end: %v", err)
	}
	if code.Code != 3 || out.String() != "[shout]: QUIET" || complaint.String() != "hoarse" {
		t.Errorf("out %q, complaint %q, ended with %v", out.String(), complaint.String(), err)
	}
}

// A log is messages, raw or in base64 as the client asks, and then its end.
func TestLogOverWebSocket(t *testing.T) {
	server := world(t, "n1")
	where := "ws" + strings.TrimPrefix(server.URL, "http") + "/api/v1/namespaces/x/pods/web/log?container=a"
	for _, protocol := range []string{"", "binary.k8s.io", "base64.binary.k8s.io"} {
		config, err := websocket.NewConfig(where, server.URL)
		if err != nil {
			t.Fatal(err)
		}
		if protocol != "" {
			config.Protocol = []string{protocol}
		}
		ws, err := config.DialContext(t.Context())
		if err != nil {
			t.Fatalf("%q: %v", protocol, err)
		}
		t.Cleanup(func() { _ = ws.Close() })
		var log bytes.Buffer
		for err == nil {
			var message []byte
			if err = websocket.Message.Receive(ws, &message); err == nil && protocol == "base64.binary.k8s.io" {
				message, err = base64.StdEncoding.DecodeString(string(message))
			}
			log.Write(message)
		}
		const want = "/containerLogs/x/web/a? by kube-apiserver-kubelet-client"
		if !errors.Is(err, io.EOF) || log.String() != want {
			t.Errorf("%q: log %q, want %q, ended with %v", protocol, log.String(), want, err)
		}
	}
}

// A node that declares that it serves WebSockets itself is left to it.
func TestNodesThatTranslate(t *testing.T) {
	status := corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}}
	for _, declared := range [][]string{nil, {"Other"}, {"ExtendWebSocketsToKubelet", "Other"}} {
		status.DeclaredFeatures = declared
		c := New(Config{Objects: objects{"nodes n1": &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: status}}})
		n, err := c.find(t.Context(), "n1")
		if err != nil || n.translates != (len(declared) == 2) {
			t.Errorf("%v: %+v %v", declared, n, err)
		}
	}
}
