package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"github.com/sampan-dev/sampan/node/container"
)

const (
	// streamHeaderTime bounds how long a client may take to say what it wants.
	streamHeaderTime = 10 * time.Second
	// dialTime bounds the connection to a forwarded port.
	dialTime = 30 * time.Second
)

// streams is the server behind the URLs that Exec, Attach and PortForward give
// out. A URL works once and for a minute; beyond the library's own short token
// its path has a secret of this server, so that no local user can guess one.
type streams struct {
	server streaming.Server
	http   *http.Server
}

func (e *Engine) openStreams(address string) (*streams, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for streams: %w", err)
	}
	secret := make([]byte, 16)
	rand.Read(secret) // never fails
	cfg := streaming.DefaultConfig
	cfg.Addr = l.Addr().String()
	cfg.BaseURL = &url.URL{Scheme: "http", Host: cfg.Addr, Path: "/" + hex.EncodeToString(secret) + "/"}
	server, err := streaming.NewServer(cfg, streamed{e})
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("make stream server: %w", err)
	}
	s := &streams{server: server, http: &http.Server{Handler: server, ReadHeaderTimeout: streamHeaderTime}}
	e.running.Go(func() {
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			e.log.Error("stream server ended", "error", err)
		}
	})
	return s, nil
}

func (s *streams) close() error { return s.http.Close() }

// Exec gives a URL at which a command can be run with streams.
func (e *Engine) Exec(_ context.Context, r *rt.ExecRequest) (*rt.ExecResponse, error) {
	c, err := e.runningContainer(r.GetContainerId())
	if err != nil {
		return nil, err
	}
	r.ContainerId = c.ID
	return e.streams.server.GetExec(r)
}

// Attach gives a URL at which a container's own streams can be joined.
func (e *Engine) Attach(_ context.Context, r *rt.AttachRequest) (*rt.AttachResponse, error) {
	c, err := e.runningContainer(r.GetContainerId())
	if err != nil {
		return nil, err
	}
	r.ContainerId = c.ID
	return e.streams.server.GetAttach(r)
}

// PortForward gives a URL at which ports of a sandbox can be reached.
func (e *Engine) PortForward(_ context.Context, r *rt.PortForwardRequest) (*rt.PortForwardResponse, error) {
	s := e.records.sandbox(r.GetPodSandboxId())
	if s == nil {
		return nil, notFound("sandbox %q is not found", r.GetPodSandboxId())
	}
	if !s.Ready {
		return nil, precondition("sandbox %q is not ready", s.ID)
	}
	r.PodSandboxId = s.ID
	return e.streams.server.GetPortForward(r)
}

// streamed is what the stream server asks of the engine.
type streamed struct{ engine *Engine }

var _ streaming.Runtime = streamed{}

// Exec runs a command; an exit code other than 0 comes back as an ExitError,
// which the stream server turns into the status that clients know.
//
//nolint:revive // eight arguments: the interface is upstream's
func (s streamed) Exec(ctx context.Context, id string, cmd []string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cfg := container.ExecConfig{TTY: tty, Stdin: in, Resize: sizes(ctx, resize)}
	if out != nil {
		cfg.Stdout = out
	}
	if errOut != nil && !tty {
		cfg.Stderr = errOut
	}
	id, as, err := ownOf(id)
	if err != nil {
		return err
	}
	run := s.engine.exec
	if as.Detach {
		run = s.engine.execDetached
	}
	code, err := run(ctx, id, cmd, as, cfg)
	if err != nil && code <= 0 {
		return err
	}
	if err != nil {
		sayWhy(out, errOut, err)
	}
	if code != 0 {
		return utilexec.CodeExitError{Err: exitCause(code, err), Code: code}
	}
	return nil
}

// sayWhy tells the person at the other end why a command could not be started:
// clients show nothing but the number of an exit code.
func sayWhy(out, errOut io.Writer, err error) {
	to := errOut
	if to == nil {
		to = out
	}
	if to != nil {
		_, _ = fmt.Fprintf(to, "%v\r\n", err) // the client has gone: nobody to tell
	}
}

func exitCause(code int, err error) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("exit code %d", code)
}

// Attach joins the container's streams until it ends or the client goes.
//
//nolint:revive // seven arguments: the interface is upstream's
func (s streamed) Attach(ctx context.Context, id string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var stdout, stderr io.Writer
	if out != nil {
		stdout = out
	}
	if errOut != nil && !tty {
		stderr = errOut
	}
	return s.engine.runtime.Attach(ctx, id, in, stdout, stderr, sizes(ctx, resize))
}

// PortForward joins a stream to a port inside the sandbox. When one side has
// said all, the other may go on until it has, too.
func (s streamed) PortForward(ctx context.Context, id string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	dial, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	conn, err := s.engine.runtime.DialIn(dial, id, net.JoinHostPort("localhost", strconv.Itoa(int(port))))
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	var done sync.WaitGroup
	done.Go(func() {
		_, _ = io.Copy(stream, conn) // an error here is the other side hanging up
		stream.Close()
	})
	_, _ = io.Copy(conn, stream) // the same
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // it has hung up already
	}
	done.Wait()
	return nil
}

// sizes translates terminal sizes until ctx ends.
func sizes(ctx context.Context, in <-chan remotecommand.TerminalSize) <-chan container.Size {
	if in == nil {
		return nil
	}
	out := make(chan container.Size)
	go func() {
		defer close(out)
		for {
			select {
			case s, ok := <-in:
				if !ok {
					return
				}
				select {
				case out <- container.Size{Rows: s.Height, Cols: s.Width}:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}
